"""Issue 3, part 5: `trimtab bench` for a user's own model, and the estimate that `trimtab check` shares."""

from __future__ import annotations

import json

import pytest

from trimtab.cli.checks.duration import duration
from trimtab.cli.main import main
from trimtab.config import build_recipe
from trimtab.pipeline.estimate import estimate_stages, evaluation_seconds, rl_seconds
from trimtab.pipeline.speed import Speeds

from ..data.toy_tokenizer import CHATML, build_tokenizer

SPEEDS = Speeds(rollout=100.0, score=200.0, train=50.0, optimizer_seconds=3.0)
SMALL = ["--prompts", "1", "--generations", "2", "--prompt-tokens", "8", "--new-tokens", "4"]


@pytest.fixture
def recipe(tmp_path):
    """GRPO on one prompt that is repeated, with an evaluation."""
    (tmp_path / "train.json").write_text(json.dumps(["one"] * 6))

    def build(**rl):
        tree = {"data": str(tmp_path / "train.json"), "rewards": ["length"], "num_prompts": 2, "steps": 5}
        tree |= {"num_generations": 4, "max_new_tokens": 10, **rl}
        return build_recipe({"rl": tree, "eval": {"num_prompts": 3, "num_generations": 2}})

    return build


def test_rl_step_by_hand(recipe):
    """80 new tokens, 2 prompts once: sampled, scored by the reference, learned, one optimizer step."""
    from trimtab.data import encode_prompt

    tokenizer = build_tokenizer(CHATML)
    prompt = len(encode_prompt(tokenizer, [{"role": "user", "content": "one"}]))
    distinct = 80 + 2 * prompt
    step = 80 / 100 + distinct / 200 + distinct / 50 + 3
    assert rl_seconds(recipe(), SPEEDS, tokenizer) == pytest.approx(step)
    # No KL: no reference. Two mini-batches: the old log-probabilities are needed instead.
    free = recipe(kl={"coef": 0.0})
    assert rl_seconds(free, SPEEDS, tokenizer) == pytest.approx(step - distinct / 200)
    halves = recipe(kl={"coef": 0.0}, num_minibatches=2)
    assert rl_seconds(halves, SPEEDS, tokenizer) == pytest.approx(step + 3)
    rl, evaluation = estimate_stages(recipe(), SPEEDS, tokenizer)
    assert (rl.steps, rl.seconds) == (5, pytest.approx(5 * step))
    assert evaluation.seconds == evaluation_seconds(recipe(), SPEEDS) == 2 * 2 * 3 * 2 * 10 / 100


def test_a_model_is_measured(model, tmp_path, capsys):
    """Tokens per second, fractions of the roofline and memory are shown and written."""
    file = tmp_path / "out" / "bench.json"
    assert main(["bench", model, *SMALL, "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    for words in ("sampling", "training", "of the roofline", "peak memory", "1 prompts of 8 tokens × 2"):
        assert words in shown
    data = json.loads(file.read_text())
    speeds = data["speeds"]
    assert min(speeds["rollout"], speeds["score"], speeds["train"], speeds["peak_bytes"]) > 0
    assert 0 < speeds["rollout_fraction"] < 1.5
    assert 0 < speeds["train_fraction"] < 1.5
    assert (data["workload"]["new_tokens"], data["stages"]) == (4, [])


def test_a_recipe_is_estimated(model, tmp_path, monkeypatch, capsys):
    """Every stage of the recipe has a line, and the overrides count."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sft.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}))
    (tmp_path / "train.json").write_text(json.dumps(["one", "two", "three", "four"]))
    (tmp_path / "r.toml").write_text(
        f'[model]\npath = "{model}"\n[sft]\ndata = "sft.jsonl"\n'
        '[rl]\ndata = "train.json"\nrewards = ["length"]\nsteps = 2\n'
    )
    options = ["--prompts", "1", "--generations", "2", "--new-tokens", "4", "--json", "b.json"]
    assert main(["bench", "r.toml", *options, "--rl.steps", "7"]) == 0
    shown = capsys.readouterr().out
    assert "estimated time" in shown
    stages = {stage["stage"]: stage for stage in json.loads((tmp_path / "b.json").read_text())["stages"]}
    assert list(stages) == ["sft", "rl"]
    assert stages["rl"]["steps"] == 7
    assert stages["rl"]["seconds"] == pytest.approx(7 * stages["rl"]["seconds_per_step"])


def test_mistakes_are_sentences(model, capsys):
    """A model takes no recipe keys, counts are positive, and a name that is nowhere is said."""
    assert main(["bench", model, "--rl.steps", "3"]) == 2
    assert "overrides a recipe" in capsys.readouterr().err
    assert main(["bench", model, "--prompts", "0"]) == 2
    assert "--prompts 0 must be at least 1" in capsys.readouterr().err
    assert main(["bench", "./nowhere"]) == 2
    assert "there is no model directory" in capsys.readouterr().err


def test_durations():
    """Seconds, minutes and hours as a person would say them."""
    assert [duration(s) for s in (1.234, 75, 600, 7200)] == ["1.2 s", "75 s", "10 min", "2.0 h"]
