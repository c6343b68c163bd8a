"""What a run cannot do is said before its first step, whichever stage would have met it (issue 14, A.10)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.models.tiny import PAD, tiny_tokenizer
from tests.unit.pipeline.tiny_recipe import VARIED, Tree, changed, tiny_tree, write_lines

from trimtab.errors import ConfigError, DataError, ModelError, RewardError, TrimtabError
from trimtab.models.load import load_sequence_classifier, save_model
from trimtab.pipeline import run_pipeline
from trimtab.pipeline.preflight import find_problems, long_ones, models_of
from trimtab.pipeline.trials import waits_for
from trimtab.runs import read_events
from trimtab.types import Prompt

REWARDS = """
def needs(prompts, completions, solution, **kw): return [1.0] * len(completions)
def picky(prompts, completions, **kw): raise KeyError("x")
def one(prompt): return 1.0
class Late:
    name = "late"
    def __init__(self, level): self.level = level
    def score(self, samples): return [1.0 for _ in samples]
"""
LATE: list[tuple[str, dict[str, Any], type[TrimtabError], str]] = [
    ("rl", {"data": "none.jsonl"}, DataError, "There is no data at none.jsonl"),
    ("rl", {"hidden_data": "none.jsonl"}, DataError, "There is no data at none.jsonl"),
    ("rl", {"num_prompts": 99}, ConfigError, r"rl.num_prompts = 99 but .* has 6 prompts"),
    ("rl", {"max_prompt_tokens": 3}, DataError, r"prompt 0 has \d+ tokens, over the limit of 3"),
    ("rl", {"rewards": ["lenght"]}, RewardError, r"reward 'lenght' is not known \(did you mean 'length'\?\)"),
    ("rl", {"rewards": ["none.py:f"]}, RewardError, "there is no file none.py"),
    ("rl", {"rewards": ["{rw}:nedds"]}, RewardError, r"has no function 'nedds' \(did you mean 'needs'\?\)"),
    ("rl", {"rewards": ["{rw}:needs"]}, RewardError, "'solution', which is not a column"),
    ("rl", {"rewards": ["{rw}:one"]}, RewardError, "which is no known form"),
    ("rl", {"rewards": [{"name": "length", "options": {"max": 3}}]}, RewardError, "length"),
    ("rl", {"rewards": [{"name": "length", "options": {"hi": 3}}]}, RewardError, "has no option 'hi'"),
    ("rl", {"rewards": ["exact_match"]}, RewardError, "needs the column 'answer'"),
    ("rl", {"hidden_rewards": ["nothing"]}, RewardError, "rl.hidden_rewards: reward 'nothing' is not known"),
    ("rl", {"reference": "none/model"}, ModelError, "none"),
    ("rl", {"reward_model": "{base}"}, ModelError, "is no reward model"),
    ("rl", {"model": "{root}"}, ModelError, "it has no config.json"),
    ("eval", {"judge": "sales_qualty"}, ConfigError, r"did you mean 'sales_quality'\?"),
    ("eval", {"judge": "none.py:f"}, RewardError, "There is no file none.py"),
    ("eval", {"judge": "{rw}:one"}, RewardError, "cannot be called with a prompt and a response"),
    ("eval", {"judge": "openai:gpt"}, RewardError, "OPENAI_API_KEY is not set"),
    ("eval", {"data": "none.jsonl"}, DataError, "There is no data at none.jsonl"),
    ("reward_model", {"data": "none.jsonl"}, DataError, "There is no data at none.jsonl"),
    ("reward_model", {"model": "none/model"}, ModelError, "none"),
    ("model", {"chat_template": "none.jinja"}, ModelError, "there is no chat template none.jinja"),
    ("model", {"device": "cuda:77"}, ModelError, "device cuda:77"),
    ("checkpoint", {"best": "eval/rewrd"}, ConfigError, r"no metric \(did you mean 'eval/reward'\?\)"),
    ("monitor", {"trackers": ["tensorbord"]}, ConfigError, r"did you mean 'tensorboard'\?"),
    ("monitor", {"heal": {"policy": {"kl_to_high": ["cut_lr"]}}}, ConfigError, "which is no alarm"),
]


def filled(value: Any, places: dict[str, str]) -> Any:
    """The value with {rw}, {base} and {root} replaced in every text."""
    if isinstance(value, str):
        for name, place in places.items():
            value = value.replace(f"{{{name}}}", place)
        return value
    if isinstance(value, dict):
        return {key: filled(item, places) for key, item in value.items()}
    return [filled(item, places) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("table", "keys", "error", "words"), LATE)
def test_what_a_late_stage_would_refuse_is_said_first(
    table: str,
    keys: dict[str, Any],
    error: type[TrimtabError],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R37: before SFT has taken a step, with nothing written: no record, no model."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    tree = tiny_tree(tmp_path)
    (tmp_path / "rw.py").write_text(REWARDS)
    places = {"rw": str(tmp_path / "rw.py"), "base": tree["model"]["path"], "root": str(tmp_path)}
    recipe = changed(tree, **{table: filled(keys, places)})
    with pytest.raises(error, match=words):
        run_pipeline(recipe)
    assert not (tmp_path / "out").exists()


def test_a_healthy_recipe_has_no_findings(tmp_path: Path) -> None:
    """R37: what an earlier stage of the run makes (SFT model, reward model) is not missed."""
    recipe = changed(tiny_tree(tmp_path))
    assert list(find_problems(recipe, recipe.stages)) == []
    assert [key for key, _, _ in models_of(recipe, recipe.stages)] == ["model.path"]
    assert {key for key, _, _ in models_of(recipe, ("eval",))} == {"paths.sft", "paths.policy"}


def test_every_problem_is_in_one_sentence(tmp_path: Path) -> None:
    """R37: two mistakes are told together, so that the second does not cost another try."""
    recipe = changed(tiny_tree(tmp_path), rl={"data": "none.jsonl"}, eval={"judge": "none.py:f"})
    with pytest.raises(
        DataError, match=r"^2 things would stop this run: \(1\) .*none.jsonl.*\(2\) .*none.py"
    ):
        run_pipeline(recipe)


def test_a_failing_user_function_is_warned_about_and_not_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R37: it may be right not to like the tried answers; its own words are shown before SFT trains."""
    (tmp_path / "rw.py").write_text(REWARDS)
    keys = {"rewards": [VARIED, {"name": f"{tmp_path}/rw.py:picky", "weight": 0.5}]}
    recipe = changed(tiny_tree(tmp_path), reward_model=None, eval=None, rl=keys)
    found = [(f.place, f.is_fatal, str(f.error)) for f in find_problems(recipe, recipe.stages)]
    assert len(found) == 1 and found[0][:2] == ("rl.rewards", False)
    assert "scored none of 4 tried answers: reward picky failed: KeyError: 'x'" in found[0][2]
    with pytest.raises(RewardError, match=r"no completion got a reward in the first step: .*KeyError"):
        run_pipeline(recipe)
    assert "trimtab: rl.rewards: " in capsys.readouterr().err


@pytest.mark.parametrize("key", ["policy", "run", "summary"])
def test_places_that_cannot_be_written(key: str, tmp_path: Path) -> None:
    """R37: a file in the way of a directory, or the other way round, is told with its key."""
    tree = tiny_tree(tmp_path)
    (tmp_path / "file").write_text("x")
    path = str(tmp_path) if key == "summary" else str(tmp_path / "file" / "below")
    recipe = changed(tree, paths={key: path})
    with pytest.raises(ConfigError, match=rf"paths\.{key}"):
        run_pipeline(recipe)


def test_a_full_disk_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R37: less room than the models take is refused with both figures."""
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("trimtab.pipeline.places.shutil.disk_usage", lambda place: usage)
    with pytest.raises(ConfigError, match=r"has 0.0 GiB left and this run writes about"):
        run_pipeline(changed(tiny_tree(tmp_path)))


def test_settings_without_effect_are_said(tmp_path: Path) -> None:
    """R37: an interval of evaluations without hidden prompts, and rewards that are never measured."""
    keys: Tree = {"hidden_data": None, "eval_every": 2, "hidden_rewards": ["length"]}
    recipe = changed(
        tiny_tree(tmp_path), sft=None, reward_model=None, eval=None, rl={**keys, "rewards": [VARIED]}
    )
    found = {f.place: f.is_fatal for f in find_problems(recipe, recipe.stages)}
    assert found == {"rl.eval_every": False, "rl.hidden_rewards": False}


def test_only_stages_that_run_are_checked(tmp_path: Path) -> None:
    """R37: `--stage sft` does not ask for what other stages need; a resumed run not for what is finished."""
    recipe = changed(tiny_tree(tmp_path), rl={"data": "none.jsonl"})
    run_pipeline(recipe, "sft")
    with pytest.raises(DataError, match=r"none.jsonl"):
        run_pipeline(recipe, resume=True)
    assert [event.stage for event in read_events(tmp_path / "out" / "run", "stage_finished")] == ["sft"]


def test_short_prompts_need_no_tokenizer() -> None:
    """R37: no token is shorter than a byte: only prompts of more bytes than the limit are encoded."""

    class Tokens:
        chat_template = "x"

        def apply_chat_template(self, messages: Any, **options: Any) -> Any:
            return [0] * 5 if options.get("tokenize", True) else messages[-1]["content"]

    rows = [Prompt(str(n), ({"role": "user", "content": "中" * n},)) for n in (1, 10, 100, 200)]
    assert [prompt.id for prompt in long_ones(Tokens(), rows, 300)] == ["100", "200"]


def test_rewards_that_wait_for_a_stage(tmp_path: Path) -> None:
    """R37: the recipe's own reward model is waited for; one that is given by path is not."""
    recipe = changed(tiny_tree(tmp_path), rl={"rewards": ["reward_model", "length"]})
    assert recipe.rl is not None
    assert [waits_for(spec, recipe, recipe.stages) for spec in recipe.rl.rewards] == [True, False]
    assert not waits_for(recipe.rl.rewards[0], recipe, ("rl",))


def test_preferences_with_equal_sides(tmp_path: Path) -> None:
    """R37: fewer than two usable pairs are told before SFT trains."""
    same = write_lines(tmp_path / "same.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "a"}] * 3)
    with pytest.raises(DataError, match="has 0 usable preference pair"):
        run_pipeline(changed(tiny_tree(tmp_path), reward_model={"data": same}))
    assert json.loads((tmp_path / "same.jsonl").read_text().splitlines()[0])


SILENT = """
def never(prompts, completions, **kw): raise KeyError("gone")
def judge(prompt, response): raise ValueError("no judgement")
def varied(prompts, completions, **kw): return [float(len(c) % 7) / 7 for c in completions]
"""


def test_silent_measures_of_the_evaluation_are_no_go(tmp_path: Path) -> None:
    """all-abstain: a judge or hidden reward that never answers ends in a no-go with its words, and the other
    figures are kept; in training its silence is an alarm."""
    (tmp_path / "rw.py").write_text(SILENT)
    file = tmp_path / "rw.py"
    keys: Tree = {"rewards": [f"{file}:varied"], "hidden_rewards": [f"{file}:never"], "eval_every": 3}
    recipe = changed(
        tiny_tree(tmp_path), sft=None, reward_model=None, rl=keys, eval={"judge": f"{file}:judge"}
    )
    summary = run_pipeline(recipe)
    assert set(summary["unanswered"]) == {"eval.judge", "hidden reward never"}
    assert summary["hidden"]["policy"] is not None
    report = (tmp_path / "out" / "run" / "report.md").read_text()
    assert "NO-GO" in report and "KeyError" in report and "no judgement" in report
    alarms = [e.data for e in read_events(tmp_path / "out" / "run", "alarm", "rl")]
    named = {a["metric"] for a in alarms if a["kind"] == "reward_abstains"}
    assert named <= {"eval/judge", "eval/hidden_reward/never"} and named


def test_a_reward_that_abstains_in_the_evaluation_is_not_measured(tmp_path: Path) -> None:
    """all-abstain: the hidden reward is then not 0 but not there, and the report says why."""
    (tmp_path / "rw.py").write_text(
        "def f(prompts, completions, **kw):\n"
        "    rows = zip(prompts, completions)\n"
        "    return [None if 'else entirely' in p else len(c) % 7 / 7 for p, c in rows]\n"
    )
    keys: Tree = {"rewards": [f"{tmp_path}/rw.py:f"]}
    recipe = changed(tiny_tree(tmp_path), sft=None, reward_model=None, rl=keys, eval={"judge": None})
    summary = run_pipeline(recipe)
    assert summary["hidden"] == {"sft": None, "policy": None}
    assert summary["policy"]["reward"] is not None
    report = (tmp_path / "out" / "run" / "report.md").read_text()
    assert "NO-GO" in report and "it returned None, which says that it does not apply" in report


def test_a_stopped_run_leaves_a_report_with_the_cause(tmp_path: Path) -> None:
    """all-abstain: terminal, events and report; no policy and no summary that look like a result."""
    (tmp_path / "rw.py").write_text(SILENT)
    recipe = changed(
        tiny_tree(tmp_path),
        sft=None,
        reward_model=None,
        eval=None,
        rl={"rewards": [f"{tmp_path}/rw.py:never"]},
    )
    with pytest.raises(RewardError, match="KeyError: 'gone'"):
        run_pipeline(recipe)
    (verdict,) = read_events(tmp_path / "out" / "run", "verdict")
    assert (verdict.step, verdict.data["verdict"]) == (1, "stop") and "gone" in verdict.data["reason"]
    report = (tmp_path / "out" / "run" / "report.md").read_text()
    assert "NO-GO" in report and "stopped in stage rl" in report and "gone" in report
    assert not (tmp_path / "out" / "policy").exists() and not (tmp_path / "out" / "summary.json").exists()


def test_reward_models_of_others_are_scored_or_refused_before_the_run(tmp_path: Path) -> None:
    """R38: padding equal to the end is none of a scorer's business; a missing template may be an option."""
    tree = tiny_tree(tmp_path)
    folder = tmp_path / "rm"
    model = load_sequence_classifier(tree["model"]["path"], pad_token_id=PAD)
    save_model(model, tiny_tokenizer(), folder)
    tokenizer = tiny_tokenizer()
    (tmp_path / "c.jinja").write_text(tokenizer.chat_template)
    tokenizer.pad_token, tokenizer.chat_template = tokenizer.eos_token, None
    for file in folder.glob("*.jinja"):
        file.unlink()
    tokenizer.save_pretrained(folder)
    rl = {"reward_model": str(folder), "rewards": ["reward_model"]}
    found = [str(problem.error) for problem in find_problems(changed(tree, rl=rl), ("sft", "rl"))]
    assert found and all("option chat_template" in text for text in found), found
    options = {"name": "reward_model", "options": {"chat_template": str(tmp_path / "c.jinja")}}
    assert not list(find_problems(changed(tree, rl=rl | {"rewards": [options]}), ("sft", "rl")))
