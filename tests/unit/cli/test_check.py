from __future__ import annotations

import json
import re

import pytest

from trimtab.cli.checks.datasets import check_overlap, check_prompts, length_bias
from trimtab.cli.checks.gold import check_gold_answers
from trimtab.cli.checks.line import within
from trimtab.cli.checks.models import check_tokenizer
from trimtab.cli.checks.resources import GIB, estimate_memory
from trimtab.cli.checks.rewards import check_rewards
from trimtab.cli.checks.settings import check_settings, learning_rates
from trimtab.cli.main import main
from trimtab.config import build_recipe
from trimtab.data import Preference, load_prompts
from trimtab.models.agreement import Subject, compare
from trimtab.types import Prompt

from ..data.toy_tokenizer import CHATML, build_tokenizer

USER = {"role": "user", "content": "q"}


def recipe_of(rewards=("sales",), **rl):
    return build_recipe({"rl": {"data": "p", "rewards": list(rewards)} | rl})


def statuses_of(findings):
    return {finding.what: finding.status for finding in findings}


def statuses(lines):
    return {line.name: line.status for line in lines}


@pytest.mark.parametrize(
    ("rl", "name", "status"),
    [
        ({}, "rl.learning_rate", "pass"),
        ({"learning_rate": 5e-6}, "rl.learning_rate", "pass"),
        ({"learning_rate": 6e-6}, "rl.learning_rate", "warn"),
        ({"learning_rate": 9e-7}, "rl.learning_rate", "warn"),
        ({"kl": {"coef": 0.1}}, "rl.kl.coef", "pass"),
        ({"kl": {"coef": 0.2}}, "rl.kl.coef", "warn"),
        ({"kl": {"coef": 0.0}}, "rl.kl.coef", "warn"),
        ({"clip": {"ratio": 10.0}}, "rl.clip.ratio", "pass"),
        ({"clip": {"ratio": 100.0}}, "rl.clip.ratio", "warn"),
        ({"algorithm": "ppo"}, "rl.clip.high", "pass"),
        ({"algorithm": "ppo", "clip": {"high": 0.9}}, "rl.clip.high", "warn"),
        ({"algorithm": "gspo"}, "rl.clip.high", "pass"),
        ({"algorithm": "dapo"}, "rl.clip.high", "pass"),
        ({}, "batch", "pass"),
        ({"num_prompts": 1}, "batch", "warn"),
        ({"num_minibatches": 3}, "batch", "warn"),
        ({"num_minibatches": 33}, "batch", "fail"),
        ({"temperature": 0.1}, "rl.temperature", "warn"),
    ],
)
def test_ranges_of_the_checklist(rl, name, status):
    """R25: learning rate 1e-6–5e-6, KL coefficient 0.001–0.1, clip sensible, batch large and divisible."""
    lines = list(check_settings(recipe_of(**rl)))
    assert statuses(lines)[name] == status
    assert all(line.fix for line in lines if line.status != "pass")


def test_defaults_of_every_preset_pass_the_fixed_ranges():
    """R9, R10, R25: no preset is warned about its own clip or batch."""
    from trimtab.config import PRESETS

    for algorithm in PRESETS:
        found = statuses(check_settings(recipe_of(algorithm=algorithm)))
        clips = [status for name, status in found.items() if name.startswith("rl.clip") or name == "batch"]
        assert clips == ["pass", "pass"], algorithm


def test_bounds_are_inclusive():
    """R25: 5e-6 is inside 1e-6–5e-6, whatever its binary form."""
    assert within("x", 5e-6, 1e-6, 5e-6, "f").status == "pass"
    assert within("x", 5.001e-6, 1e-6, 5e-6, "f").status == "warn"


def test_a_constraint_and_a_gate_are_shown_as_what_they_are(tmp_path):
    """R24, R25: a limit has no weight of its own, so none is shown, but its target."""
    limit = {"name": "no_forbidden_words", "options": {"words": ["x"]}, "constraint": {"target": 0.025}}
    gate = {"name": "no_forbidden_words", "options": {"words": ["y"]}, "gate": True}
    prompts = [Prompt("0", ({"role": "user", "content": "?"},))]
    (line,) = check_rewards(recipe_of(["sales", limit, gate]), prompts, None)
    assert line.status == "pass"
    shown = "1×sales, constraint no_forbidden_words (violated at most 2.5%), gate no_forbidden_words"
    assert line.found.startswith(shown)


def test_rewards_are_tried_on_four_samples(tmp_path):
    """R25: a reward that works passes; one that fails, abstains on everything or needs a model fails."""
    prompts = [Prompt(str(i), (USER,), {"answer": "4"}) for i in range(5)]
    (line,) = check_rewards(recipe_of(), prompts, None)
    assert (line.status, line.found.count(",")) == ("pass", 3)
    (tmp_path / "r.py").write_text(
        "def none(completions, **kw): return [None] * len(completions)\n"
        "def bad(completions, **kw): return [1 / 0]\n"
    )
    for name, words in (("none", "abstained on all 4"), ("bad", "failed on 4 of 4")):
        (line,) = check_rewards(recipe_of([f"{tmp_path}/r.py:{name}"]), prompts, None)
        assert line.status == "fail"
        assert words in line.found
    learned = {"name": "sales", "options": {"relevance": True}}
    (line,) = check_rewards(recipe_of([learned]), prompts, None)
    assert (line.status, "no" in line.found) == ("fail", True)


def test_dirty_prompts_are_seen():
    """R20, R25: duplicates warn, prompts over the limit fail, fail."""
    tokenizer = build_tokenizer()
    prompts = [
        Prompt(str(i), ({"role": "user", "content": text},)) for i, text in enumerate(["a", "a", "b" * 99])
    ]
    lines = list(check_prompts("rl.data", "p", prompts, 64, tokenizer))
    assert [line.status for line in lines] == ["pass", "warn", "fail"]
    assert "1 of 3 rows" in lines[1].found
    assert "first: 2" in lines[2].found


def write_json(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) if path.suffix == ".jsonl" else json.dumps(rows))
    return str(path)


def test_leaks_of_every_stage_are_seen(tmp_path):
    """R20: a hidden prompt in the SFT pairs, the preferences or the prompts fails, both texts shown."""
    secret, other = "what does the secret plan cost per year?", "quite another question"
    data = {
        "sft": write_json(tmp_path / "sft.jsonl", [{"prompt": secret.upper(), "completion": "b"}]),
        "pairs": write_json(tmp_path / "p.jsonl", [{"prompt": other, "chosen": "b", "rejected": "c"}]),
        "train": write_json(tmp_path / "train.json", ["one", "two", "three", "four"]),
        "hidden": write_json(tmp_path / "hidden.json", [secret]),
        "final": write_json(tmp_path / "final.json", [other]),
    }
    rl = {"data": data["train"], "hidden_data": data["hidden"], "rewards": ["sales"]}
    tree = {"sft": {"data": data["sft"]}, "reward_model": {"data": data["pairs"]}, "rl": rl}
    lines = list(check_overlap(build_recipe({**tree, "eval": {"data": data["final"]}})))
    assert [line.status for line in lines] == ["fail", "fail", "pass"]
    assert f"row 0 '{secret}' is row 0 '{secret.upper()}' (100% alike)" in lines[0].found
    assert lines[0].fix == f"remove these rows from sft.data ({data['sft']})"
    assert "reward_model.data" in lines[1].fix
    assert lines[2].found == (
        "nothing in common: eval.data and sft.data, rl.hidden_data and reward_model.data, "
        "rl.hidden_data and rl.data, eval.data and rl.data, eval.data and rl.hidden_data"
    )


def test_gold_answers_are_checked(tmp_path):
    """Threats: a row whose gold answer does not earn 1 fails the checklist, named, and 0 leaves it out."""
    rows = [{"prompt": f"{i}+1", "answer": str(i + 1)} for i in range(4)] + [
        {"prompt": "x", "answer": "four"}
    ]
    data = write_json(tmp_path / "rows.jsonl", rows)
    recipe = recipe_of(["final_number"], data=data)
    prompts = load_prompts(data)
    (line,) = check_gold_answers(recipe, {"rl.data": prompts})
    assert line.status == "fail" and "1 gold answers of rl.data" in line.found
    assert "row 4, final_number, gold 'four'" in line.found
    (line,) = check_gold_answers(recipe, {"rl.data": prompts[:4]})
    assert (line.status, line.found) == ("pass", "those of rl.data earn 1 by final_number (4 rows)")
    (line,) = check_gold_answers(recipe_of(["final_number"], gold_rows=0), {"rl.data": prompts})
    assert line.status == "warn"
    assert not list(check_gold_answers(recipe_of(["length"]), {"rl.data": prompts}))


def test_length_bias_by_hand():
    """R4: 2 of 3 decided pairs have the longer side chosen; equal lengths do not count."""
    pairs = [("aa", "b"), ("aaa", "b"), ("a", "bb"), ("a", "b")]
    assert length_bias([Preference((USER,), chosen, rejected) for chosen, rejected in pairs]) == 2 / 3
    assert length_bias([]) == 0.5


def test_a_template_whose_end_the_engine_ignores_fails():
    """Trap 13: the end of a turn stops the engine, and padding must not be that end."""
    from transformers import GenerationConfig, LlamaConfig

    from trimtab.models.tokenizer import eos_ids

    tokenizer = build_tokenizer(CHATML)
    assert eos_ids(None, tokenizer) == {tokenizer.eos_token_id}
    assert [line.status for line in check_tokenizer("m", tokenizer)] == ["pass"]
    config = LlamaConfig(vocab_size=300, eos_token_id=tokenizer.eos_token_id)
    subject = Subject("model", config, 300, GenerationConfig())
    assert statuses_of(compare(subject, tokenizer)) == {"embedding": "pass", "padding": "pass", "EOS": "pass"}
    tokenizer.pad_token = tokenizer.eos_token
    assert statuses_of(compare(subject, tokenizer))["padding"] == "fail"


def test_estimates_by_hand():
    """R25: GRPO keeps policy, optimizer, reference; PPO adds a critic."""
    grpo, ppo = recipe_of(), recipe_of(algorithm="ppo")
    assert estimate_memory(grpo, 10**9, 2) == pytest.approx((18 + 2) * 10**9 * 1.2 + 0.5 * GIB)
    assert estimate_memory(ppo, 10**9, 2) == pytest.approx((36 + 2) * 10**9 * 1.2 + 0.5 * GIB)


def test_the_whole_checklist(model, tmp_path, monkeypatch, capsys):
    """R25, issue 2: every line passes or warns → exit 0; one that fails → exit 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sft.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}))
    rows = [
        {"prompt": "a", "chosen": "bb", "rejected": "c"},
        {"prompt": "a", "chosen": "b", "rejected": "cc"},
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "train.json").write_text(json.dumps(["one", "two", "three", "four"]))
    (tmp_path / "hidden.json").write_text(json.dumps(["quite another question"]))
    (tmp_path / "r.toml").write_text(
        f'[model]\npath = "{model}"\n[sft]\ndata = "sft.jsonl"\n[reward_model]\ndata = "pairs.jsonl"\n'
        '[rl]\ndata = "train.json"\nhidden_data = "hidden.json"\nrewards = ["sales"]\nsteps = 2\n'
        "max_new_tokens = 128\n"
        '[eval]\njudge = "sales_quality"\n'
    )
    assert main(["check", "r.toml"]) == 0
    shown = capsys.readouterr().out
    assert ", 0 failed" in shown
    for name in (
        "recipe",
        "model",
        "EOS",
        "chat template",
        "memory",
        "sft.data",
        "reward_model.data",
    ):
        assert f"pass  {name}: " in shown
    # Where the repeats scatter, on a busy machine, it says so instead of an estimate.
    assert re.search(r"pass  time: about|warn  time: no estimate", shown)
    for name in ("rl.data", "hidden data", "overlap", "rl.rewards", "eval.judge", "batch"):
        assert f"pass  {name}: " in shown
    assert main(["check", "r.toml", "--rl.hidden_data", "train.json", "--eval.judge", "sales"]) == 2
    captured = capsys.readouterr()
    assert "fail  overlap" in captured.out
    assert "fail  eval.judge" in captured.out
    said = r"trimtab: error: 2 of \d+ checks of r\.toml failed: mend those lines\.\n"
    assert re.fullmatch(said, captured.err)


@pytest.mark.parametrize(
    ("parameters", "rate", "status"),
    [
        (None, 3e-6, "pass"),
        (7_000_000_000, 3e-6, "pass"),
        (7_000_000_000, 2e-5, "warn"),
        (135_000_000, 2e-5, "pass"),
        (135_000_000, 3e-6, "warn"),
        (135_000_000, 1e-4, "warn"),
        (4_000_000, 2e-4, "pass"),
        (4_000_000, 3e-6, "warn"),
    ],
)
def test_the_learning_rate_knows_the_size(parameters, rate, status):
    """A.10: 2e-5 works for 135 million parameters where 3e-6 does nothing; R25's range is for large ones."""
    lines = {line.name: line for line in check_settings(recipe_of(learning_rate=rate), parameters)}
    assert lines["rl.learning_rate"].status == status


def test_an_adapter_needs_ten_times_as_much():
    """A.10, R25: as the README says of [model.lora]."""
    assert learning_rates(None) == (1e-6, 5e-6)
    assert learning_rates(2_000_000_000, has_adapter=True) == pytest.approx((1e-5, 5e-5))


def test_equal_rewards_are_warned_about(tmp_path):
    """A.10: the same for four very different answers; not where a right answer earns more."""
    (tmp_path / "r.py").write_text(
        "def same(completions, **kw): return [0.5] * len(completions)\n"
        "def exact(completions, answer, **kw): return [float(c == a) for c, a in zip(completions, answer)]\n"
    )
    prompts = [Prompt(str(i), (USER,), {"answer": "x17"}) for i in range(5)]
    (line,) = check_rewards(recipe_of([f"{tmp_path}/r.py:same"]), prompts, None)
    assert (line.status, "gave 0.5 to all 4 samples" in line.found) == ("warn", True)
    (line,) = check_rewards(recipe_of([f"{tmp_path}/r.py:exact"]), prompts, None)
    assert (line.status, line.found[-42:]) == ("pass", "gave 0 to 4 samples and 1 to a right answer"[-42:])


def test_the_check_shows_what_a_run_would_refuse(model, tmp_path, monkeypatch, capsys):
    """R37: one function for both: a hidden reward, a place and a tracker that no line of its own looks at."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(["one", "two", "three", "four"]))
    (tmp_path / "file").write_text("x")
    (tmp_path / "r.toml").write_text(
        f'[model]\npath = "{model}"\n[rl]\ndata = "train.json"\nrewards = ["sales"]\nsteps = 2\n'
        'hidden_rewards = ["nothing"]\neval_every = 2\n[monitor]\ntrackers = ["tensorbord"]\n'
    )
    assert main(["check", "r.toml", "--output", "file/out"]) == 2
    shown = capsys.readouterr().out
    for words in (
        "fail  output: ",
        "fail  monitor.trackers: Unknown tracker 'tensorbord' (did you mean 'tensorboard'?)",
        "fail  rl.rewards: rl.hidden_rewards: reward 'nothing' is not known",
        "warn  rl.eval_every: rl.eval_every = 2 has no effect without rl.hidden_data",
    ):
        assert words in shown
