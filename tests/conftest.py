"""For every test: one thread, no hub, the same numbers each time."""

from __future__ import annotations

import os

# Before torch is imported: tiny models run faster on one thread, and sums keep their order.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Which way is fastest is the machine's business; tests take the own kernels, tests/matrix.py the others.
os.environ.setdefault("TRIMTAB_CHOICES", "own")
