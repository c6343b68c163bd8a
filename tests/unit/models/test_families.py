"""Families of transformers, tiny and random: right in every way that we run them, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.families import Finding, examine, line
from benchmarks.family_configs import FAMILIES

# A few of every kind: ours and own attention, windows, chunks, soft caps, sinks, recurrences, convolutions,
# own positions, both directions. What is expected of them: attention, rows, engine; None: refused.
FEW: dict[str, tuple[str, str, str] | None] = {
    "qwen3": ("ours", "packed", "native"),
    "gemma2": ("ours", "padded", "native"),
    "mistral": ("ours", "padded", "native"),
    "llama4_text": ("ours", "padded", "generate"),
    "lfm2": ("ours", "padded", "generate"),
    "bloom": ("own (eager)", "padded", "generate"),
    "mpt": ("own (eager)", "padded", "generate"),
    "gpt_oss": ("own (eager)", "padded", "generate"),
    "rwkv": ("own (eager)", "padded", "generate, without a cache"),
    "roberta": None,
    "xlnet": None,
}
# Neither may become fewer without a reason.
LEAST_RIGHT, LEAST_OURS = 125, 75


def check(found: Finding) -> None:
    assert found.is_right, line(found)
    if found.refusal is not None:
        assert found.refusal.count(". ") == 0 and ";" in found.refusal, "one sentence, with a remedy"


@pytest.mark.parametrize("family", FEW)
def test_a_few_families(family: str, tmp_path: Path) -> None:
    """A.8: log-probabilities of the untouched module, whatever the way; or one sentence."""
    found, expected = examine(family, tmp_path), FEW[family]
    check(found)
    if expected is None:
        assert found.refusal is not None
    else:
        assert (found.attention, found.rows, found.engine) == expected


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_family(tmp_path: Path) -> None:
    """The table of docs/models.md: at least 60 families run, and all that do are right."""
    found = [examine(family, tmp_path / family) for family in FAMILIES]
    wrong = [line(one) for one in found if not one.is_right]
    assert not wrong, "\n".join(wrong)
    for one in found:
        check(one)
    assert sum(one.refusal is None for one in found) >= LEAST_RIGHT
    assert sum(one.attention == "ours" for one in found) >= LEAST_OURS
