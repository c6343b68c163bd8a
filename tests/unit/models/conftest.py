"""One thread: the models are tiny and the machine is shared."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # 1, but for tests/matrix.py
