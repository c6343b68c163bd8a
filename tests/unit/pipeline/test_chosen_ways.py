"""One seed gives one text on one machine, whatever is measured later (B.12): the run's manifest decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.unit.models.tiny import CONFIGS
from tests.unit.pipeline.test_resuming import interrupted, rl_only
from tests.unit.pipeline.test_run import equal
from tests.unit.pipeline.tiny_recipe import Tree, tiny_tree

from trimtab.models import choice
from trimtab.models.kernels.build import load_kernel
from trimtab.models.trials import OWN, TORCH, Choice, Way
from trimtab.pipeline import run_pipeline
from trimtab.runs import metrics_table

_CASE = {"IS_BF16": 1, "HEAD_SIZE": 32, "GROUP": 1}
pytestmark = pytest.mark.skipif(
    load_kernel("decode", _CASE) is None, reason="no C compiler: nothing to choose"
)


@pytest.fixture(autouse=True)
def measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CHOICES", "measure")
    monkeypatch.setattr(choice, "_folder", lambda: tmp_path / "choices")
    sizes = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 64}  # what the kernels take
    monkeypatch.setitem(CONFIGS, "Llama", {**CONFIGS["Llama"], **sizes})


def answering(monkeypatch: pytest.MonkeyPatch, way: str) -> list[int]:
    """From now on every measurement ends with this way; the list grows with each."""
    asked: list[int] = []

    def measure(ways: Mapping[str, Way], fallback: str, left: float) -> Choice:
        asked.append(1)
        return Choice(way if way in ways else fallback, dict.fromkeys(ways, 1.0))

    monkeypatch.setattr(choice, "measure", measure)
    return asked


def trees(root: Path, *names: str) -> list[Tree]:
    found = []
    for name in names:
        (root / name).mkdir()
        tree = tiny_tree(root / name)
        found.append({**tree, "model": {**tree["model"], "dtype": "bfloat16"}})
    return found


def manifest(root: Path) -> dict[str, str]:
    return dict(json.loads((root / "out" / "run" / "manifest.json").read_text())["choices"])


def forget(root: Path) -> None:
    """The machine's cache is emptied."""
    for file in (root / "choices").glob("*.json"):
        file.unlink()


def test_the_same_run_twice_and_one_resumed_under_another_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit the same weights and rewards; the resumed run would measure the other way now."""
    one, two, cut = trees(tmp_path, "one", "two", "cut")
    asked = answering(monkeypatch, TORCH)
    run_pipeline(rl_only(one))
    first = len(asked)
    run_pipeline(rl_only(two))
    assert len(asked) == first  # the second run reads
    interrupted(cut, monkeypatch)
    told = manifest(tmp_path / "cut")
    assert told == manifest(tmp_path / "one") == manifest(tmp_path / "two")
    assert "linear" in {question.split(" ")[0] for question in told}
    forget(tmp_path)
    answering(monkeypatch, OWN)
    run_pipeline(rl_only(cut), resume=True)
    assert manifest(tmp_path / "cut") == told
    for name in ("two", "cut"):
        assert equal(tmp_path / "one" / "out" / "policy", tmp_path / name / "out" / "policy")
        tables = [metrics_table(tmp_path / other / "out" / "run", "rl") for other in ("one", name)]
        assert tables[0]["reward/mean"] == tables[1]["reward/mean"]


def test_a_run_that_is_not_resumed_asks_the_machine_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the resumed run above would prove nothing: a new run does go the other way."""
    (tree,) = trees(tmp_path, "one")
    answering(monkeypatch, TORCH)
    run_pipeline(rl_only(tree))
    before = manifest(tmp_path / "one")
    forget(tmp_path)
    answering(monkeypatch, OWN)
    run_pipeline(rl_only(tree))
    after = manifest(tmp_path / "one")
    assert before.keys() == after.keys()
    assert set(before.values()) == {TORCH}
    assert OWN in after.values()
