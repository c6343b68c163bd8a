"""The run directory: what is written comes back, after a crash, a resume and a rewind too."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import DataError, TrimtabError
from trimtab.runs import RunDirectory, RunWriter, metrics_table, read_events, read_rollouts
from trimtab.runs.manifest import hide_secrets

RECIPE = {"name": "demo", "seed": 7, "rl": {"steps": 3, "kl": {"coef": 0.01}}}
ROW = {
    "prompt_id": "p1",
    "prompt": "价格多少？",
    "completion": "您好 \x00\u2028 end",
    "finish_reason": "stop",
    "reward": 0.5,
    "parts": {"format": 0.25, "safety": 1.0},
    "num_tokens": 12,
    "advantage": -0.5,
    "policy_version": 3,
}


def test_every_number_of_a_step_comes_back(tmp_path: Path) -> None:
    """R17: metrics are read back as they were written, NaN and infinity included, in one table."""
    values = {"loss/total": 0.1, "train/grad_norm": math.nan, "kl/ref": math.inf, "loss/policy": -math.inf}
    with RunWriter(tmp_path, RECIPE) as run:
        run.metrics("rl", 0, values)
        run.metrics("rl", 1, {"loss/total": 0.2})
        run.metrics("rl", 1, {"eval/reward": 0.9})
        run.metrics("sft", 0, {"loss/total": 9.0})
    table = metrics_table(tmp_path, "rl")
    assert table["step"] == [0.0, 1.0]
    assert table["loss/total"] == [0.1, 0.2]
    assert table["kl/ref"] == [math.inf, None]
    assert table["loss/policy"] == [-math.inf, None]
    assert table["train/grad_norm"][0] is not None and math.isnan(table["train/grad_norm"][0])
    assert table["eval/reward"] == [None, 0.9]


def test_the_file_is_strict_json(tmp_path: Path) -> None:
    """Design: JSONL that any reader takes: no bare NaN, hostile text escaped, Chinese readable."""
    with RunWriter(tmp_path, RECIPE) as run:
        run.event(
            "rl",
            "note",
            0,
            {"x": math.nan, "nested": [math.inf, {"y": -math.inf}], "text": "\ud800 中文\n\u2028"},
        )

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = RunDirectory(tmp_path).events.read_bytes().split(b"\n")
    assert lines[-1] == b"" and len(lines) == 2
    data = json.loads(lines[0], parse_constant=refuse)["data"]
    assert data == {"x": "nan", "nested": ["inf", {"y": "-inf"}], "text": "\ud800 中文\n\u2028"}
    assert "中文".encode() in lines[0]


def test_rollouts_come_back_with_parts_and_abstentions(tmp_path: Path) -> None:
    """R19, R26: completions with reward and parts; an abstained reward is null, never 0."""
    with RunWriter(tmp_path, RECIPE) as run:
        run.rollouts("rl", 0, [ROW, {**ROW, "reward": None, "parts": {}}])
        run.rollouts("rl", 2, [{**ROW, "gold": 4, "tags": ["a"], "bad": "\ud800"}])
    rows = read_rollouts(tmp_path, "rl")
    assert rows[0] == {"step": 0, **ROW}
    assert [row["reward"] for row in rows] == [0.5, None, 0.5]
    assert [row["step"] for row in rows] == [0, 0, 2]
    assert read_rollouts(tmp_path, "rl", step=2) == rows[2:]
    assert (rows[2]["gold"], rows[2]["tags"], rows[2]["bad"]) == (4, '["a"]', "?")
    assert read_rollouts(tmp_path, "rl", step=1) == read_rollouts(tmp_path, "sft") == []


def test_one_row_group_per_step(tmp_path: Path) -> None:
    """Design: Parquet rollouts, one row group per step."""
    import pyarrow.parquet

    with RunWriter(tmp_path, RECIPE) as run:
        run.rollouts("rl", 5, [ROW] * 40)
    assert pyarrow.parquet.ParquetFile(RunDirectory(tmp_path).rollout_file("rl", 5)).num_row_groups == 1


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    """Threats, runs: after SIGKILL without close, every event and every step's rollouts can be read."""
    code = (
        "import os, signal; from trimtab.runs import RunWriter\n"
        f"run = RunWriter({str(tmp_path)!r}, {{}})\n"
        "for step in range(5):\n"
        "    run.metrics('rl', step, {'loss/total': float(step)})\n"
        "    run.rollouts('rl', step, [{'completion': str(step)}])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    source = str(Path(__file__).parents[3] / "src")
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert metrics_table(tmp_path, "rl")["loss/total"] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [row["completion"] for row in read_rollouts(tmp_path, "rl")] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("rest", [b'{"time": 1.0, "sta', b"\xe4\xb8", b"[1, 2]\n", b'{"a": 1}\n', b"\x00\n"])
def test_half_written_and_damaged_lines_are_left_out(tmp_path: Path, rest: bytes) -> None:
    """Design: dead or alive: a half-written last line or a damaged one never hides the others."""
    with RunWriter(tmp_path, RECIPE) as run:
        run.metrics("rl", 0, {"loss/total": 1.0})
    with RunDirectory(tmp_path).events.open("ab") as file:
        file.write(rest)
    assert len(read_events(tmp_path)) == 1
    with RunWriter(tmp_path, RECIPE, resume=True) as run:
        run.metrics("rl", 1, {"loss/total": 2.0})
    assert metrics_table(tmp_path, "rl")["loss/total"] == [1.0, 2.0]


def test_rewind_keeps_the_first_steps_of_one_stage(tmp_path: Path) -> None:
    """Threats, runs: on resume after 2 finished steps, later records of that stage go, all others stay."""
    with RunWriter(tmp_path, RECIPE) as run:
        run.event("sft", "stage_finished", 9)
        run.event("rl", "stage_started", 0)
        for step in (1, 2, 3, 4):
            run.metrics("rl", step, {"loss/total": float(step)})
            run.rollouts("rl", step, [ROW])
            run.event("rl", "checkpoint", step)
        run.rollouts("sft", 3, [ROW])
        run.rewind("rl", 2)
        run.metrics("rl", 3, {"loss/total": 20.0})
    assert metrics_table(tmp_path, "rl")["loss/total"] == [1.0, 2.0, 20.0]
    assert [row["step"] for row in read_rollouts(tmp_path, "rl")] == [1, 2]
    assert [event.step for event in read_events(tmp_path, "checkpoint")] == [1, 2]
    assert len(read_events(tmp_path, "stage_finished", "sft")) == len(read_rollouts(tmp_path, "sft")) == 1
    assert read_events(tmp_path, "stage_started", "rl")
    with RunWriter(tmp_path, RECIPE, resume=True) as run:
        run.rewind("rl", 0)
    assert read_events(tmp_path, stage="rl") == []


def test_a_new_run_sets_the_old_one_aside(tmp_path: Path) -> None:
    """Design: records are append-only: a second run in the same place starts empty, the first is kept."""
    layout = RunDirectory(tmp_path)
    for seed in (1, 2):
        with RunWriter(tmp_path, {"seed": seed}) as run:
            run.metrics("rl", 0, {"loss/total": float(seed)})
            run.rollouts("rl", seed, [ROW])
    assert metrics_table(tmp_path, "rl")["loss/total"] == [2.0]
    assert metrics_table(layout.previous, "rl")["loss/total"] == [1.0]
    assert [row["step"] for row in read_rollouts(tmp_path, "rl")] == [2]


def test_manifest_and_recipe(tmp_path: Path) -> None:
    """Design: versions, Python, platform, seed, commit, command line and start; the resolved recipe."""
    with RunWriter(tmp_path, RECIPE):
        pass
    layout = RunDirectory(tmp_path)
    manifest = json.loads(layout.manifest.read_text())
    assert manifest["seed"] == 7
    assert {"trimtab", "torch", "transformers"} <= manifest["versions"].keys()
    assert manifest["versions"]["trimtab"] and manifest["python"] and manifest["platform"]
    assert manifest["started"] and manifest["command"] and "git" in manifest
    assert json.loads(layout.recipe.read_text()) == RECIPE


def test_resume_says_what_changed(tmp_path: Path) -> None:
    """Design: a resumed run keeps its first manifest, adds its own, and notes the keys that changed."""
    with RunWriter(tmp_path, RECIPE):
        pass
    with RunWriter(tmp_path, {**RECIPE, "rl": {"steps": 9, "kl": {"coef": 0.02}}}, resume=True):
        pass
    with RunWriter(tmp_path, {**RECIPE, "rl": {"steps": 9, "kl": {"coef": 0.02}}}, resume=True):
        pass
    notes = read_events(tmp_path, "note")
    assert [note.data["keys"] for note in notes] == [["rl.kl.coef", "rl.steps"]]
    manifest = json.loads(RunDirectory(tmp_path).manifest.read_text())
    assert manifest["seed"] == 7 and len(manifest["resumed"]) == 2


def test_secrets_are_not_written() -> None:
    """Threats: a token on the command line does not reach the manifest; a count of tokens does."""
    shown = hide_secrets(
        ["trimtab", "--hub-token", "abc", "--api_key=x", "--rl.max_new_tokens", "9", "--token", "--x"]
    )
    assert shown == [
        "trimtab",
        "--hub-token",
        "***",
        "--api_key=***",
        "--rl.max_new_tokens",
        "9",
        "--token",
        "--x",
    ]


class RecordingSink:
    """Keeps what it is given; breaks when told to."""

    def __init__(self, breaks: bool = False) -> None:
        self.seen: list[tuple[str, int, dict[str, float]]] = []
        self.breaks, self.is_closed = breaks, False

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        if self.breaks:
            raise RuntimeError("tracker is down")
        self.seen.append((stage, step, dict(metrics)))

    def close(self) -> None:
        self.is_closed = True


def test_a_broken_sink_costs_itself_only(tmp_path: Path) -> None:
    """Threats, runs: a tracker that fails is switched off with a note; the run and the other sinks go on."""
    good, bad = RecordingSink(), RecordingSink(breaks=True)
    not_measured: Any = None
    with RunWriter(tmp_path, RECIPE, sinks=[bad, good]) as run:
        run.metrics("rl", 0, {"loss/total": 1.0, "kl/ref": not_measured})
        run.metrics("rl", 1, {"loss/total": 2.0})
    assert good.seen == [("rl", 0, {"loss/total": 1.0}), ("rl", 1, {"loss/total": 2.0})]
    assert good.is_closed
    notes = [note.data["text"] for note in read_events(tmp_path, "note")]
    assert notes == ["RecordingSink failed and was switched off: tracker is down"]


def test_errors_are_sentences(tmp_path: Path) -> None:
    """Rules: a directory that holds no run, or cannot be written, gives one sentence with a fix."""
    with pytest.raises(DataError, match=r"No run in .*; give the directory"):
        read_events(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrimtabError, match=r"Cannot write the run directory .*--output"):
        RunWriter(tmp_path / "file" / "run", RECIPE)


def test_unknown_kind_and_unstorable_value(tmp_path: Path) -> None:
    """Design: the kinds of events are a closed list, and an event holds plain data only."""
    kind: Any = "surprise"
    with RunWriter(tmp_path, RECIPE) as run:
        with pytest.raises(ValueError, match="surprise"):
            run.event("rl", kind, 0)
        with pytest.raises(TypeError, match="object"):
            run.event("rl", "note", 0, {"x": object()})
    assert read_events(tmp_path) == []


def test_arrays_and_paths_become_plain(tmp_path: Path) -> None:
    """R17: figures may arrive as array scalars, paths as paths."""
    import numpy

    with RunWriter(tmp_path, RECIPE) as run:
        run.metrics("rl", 0, {"loss/total": numpy.float32(0.5)})
        run.event("rl", "checkpoint", 1, {"path": tmp_path, "scores": numpy.array([1.0, numpy.nan])})
    metrics, checkpoint = read_events(tmp_path)
    assert metrics.data == {"loss/total": 0.5}
    assert checkpoint.data == {"path": str(tmp_path), "scores": [1.0, "nan"]}
