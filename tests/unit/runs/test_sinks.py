"""Sinks and the names they write."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import ConfigError
from trimtab.runs import METRICS, SINKS, SinkSettings, build_sinks, find_metric, named_stats, trl_metrics
from trimtab.runs.spellings import STATS, TRL


def test_tensorboard_reads_back(tmp_path: Path) -> None:
    """R17, R26: every metric of each stage is in the event files, under our name and under TRL's."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (sink,) = build_sinks(["tensorboard"], SinkSettings(tmp_path))
    assert not list(tmp_path.iterdir()), "nothing is written before the first log"
    sink.log("sft", 0, {"loss/total": 2.0})
    for step in range(2):
        sink.log("rl", step, {"reward/mean": 0.5 + step, "kl/ref": math.nan, "reward/part/format": 0.25})
    sink.close()
    found: dict[str, dict[tuple[str, int], float]] = {}
    for path in tmp_path.glob("tensorboard/*/*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                stage = found.setdefault(path.parent.name, {})
                stage[value.tag, event.step] = (
                    value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value
                )
    assert found["sft"] == {("loss/total", 0): 2.0, ("loss", 0): 2.0}
    assert found["rl"]["reward/mean", 1] == found["rl"]["reward", 1] == 1.5
    assert found["rl"]["reward/part/format", 0] == found["rl"]["rewards/format/mean", 0] == 0.25
    assert math.isnan(found["rl"]["kl", 0]) and math.isnan(found["rl"]["kl/ref", 0])


@pytest.mark.parametrize("name", SINKS)
def test_missing_package_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: a tracker that is not installed is said with the command that installs it."""
    import trimtab.runs.sinks as sinks

    def fail(module: str) -> Any:
        raise ImportError(f"No module named {module!r}")

    for variable in ("TRACKIO_DIR", *sinks._TELEMETRY_OFF):
        monkeypatch.setenv(variable, "set")
    monkeypatch.setattr(sinks, "import_module", fail)
    with pytest.raises(ConfigError, match=rf"pip install 'trimtab\[{name}\]'"):
        build_sinks([name], SinkSettings(tmp_path))


def test_unknown_sink_names_the_nearest() -> None:
    """Rules: a misspelt tracker is answered with the one that was meant."""
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        build_sinks(["tensorbord"], SinkSettings(Path("x")))


def test_names_of_r17() -> None:
    """R13, R17: every statistic of the specification has one metric behind it."""
    required = {
        *("loss", "mean_reward", "reward_std", "kl_divergence", "policy_loss", "value_loss", "clipfrac"),
        *("entropy", "approx_kl", "response_length", "distinct_1", "distinct_2", "grad_norm"),
        "learning_rate",
    }
    assert required <= set(STATS.values())
    assert len(set(STATS.values())) == len(STATS)
    stats = named_stats(dict.fromkeys(METRICS, 1.0))
    assert required <= stats.keys() and len(stats) == len(METRICS)
    assert named_stats({"kl/policy": 0.1, "reward/part/format": 0.2, "time/step": 3.0}) == {
        "approx_kl": 0.1,
        "reward_part_format": 0.2,
        "time_step": 3.0,
    }


def test_names_of_trl() -> None:
    """Design: sinks also write the names that TRL users know."""
    metrics = {name: float(number) for number, name in enumerate(METRICS)}
    written = trl_metrics(metrics)
    named = {"reward", "reward_std", "kl", "entropy", "completions/mean_length", "loss", "grad_norm"}
    assert {*named, "learning_rate"} <= written.keys()
    assert written["reward"] == metrics["reward/mean"] and written["kl"] == metrics["kl/ref"]
    # A name of TRL's that is also ours must mean the same number.
    assert all(written[name] == metrics[name] for name in written.keys() & metrics.keys())


def test_every_spelling_has_a_metric() -> None:
    """R17: no spelling points at a name that nobody emits; every metric has unit and meaning."""
    assert set(STATS) | set(TRL) <= set(METRICS)
    assert all(metric.unit and metric.meaning.endswith(".") for metric in METRICS.values())
    assert all("/" in name for name in METRICS)


def test_healthy_ranges_of_r17() -> None:
    """R17, R18: KL 0.01–0.5, clipfrac below 0.3, entropy from 0.5."""
    assert METRICS["kl/ref"].healthy == (0.01, 0.5)
    assert METRICS["policy/clipfrac"].healthy == (None, 0.3)
    assert METRICS["policy/entropy"].healthy == (0.5, None)
    assert METRICS["kl/ref"].range_text == "0.01 – 0.5"


def test_families() -> None:
    """R17: one entry explains every reward component."""
    assert find_metric("reward/part/format") is METRICS["reward/part/*"]
    assert find_metric("reward/part") is None and find_metric("nothing") is None
    assert find_metric("kl/ref") is METRICS["kl/ref"]


def test_no_tracker_is_imported_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Design: importing the package imports neither trackers nor torch."""
    import subprocess
    import sys

    code = (
        "import sys, trimtab.runs, trimtab.monitor; "
        "print(sorted({'torch', 'wandb', 'trackio', 'mlflow', 'tensorboard', 'pyarrow'} & set(sys.modules)))"
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3] / "src"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
