from __future__ import annotations

import pytest

from trimtab.config import RewardSpec
from trimtab.errors import ConfigError, ModelError, RewardError
from trimtab.evals.judges import ScoreJudge, build_judge
from trimtab.types import Prompt, RewardResult

PROMPT = Prompt("0", ({"role": "user", "content": "多少钱？"},))


def spec(name, **options):
    """One entry of rl.rewards."""
    return RewardSpec(name=name, options=options)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A user's judge, and two directories with the same weights and one with others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judge.py").write_text("def score(prompt, response):\n    return len(response)\n")
    for name, weights in (("rm", b"same"), ("copy", b"same"), ("other", b"diff")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    return tmp_path


def test_by_name_and_by_file(files):
    """R27: the generator's own quality, or a user's function."""
    assert build_judge("sales_quality", rewards=[spec("sales")]).compare(PROMPT, "垃圾", "垃圾") == 0.5
    judge = build_judge("judge.py:score", tie_margin=2)
    assert [judge.compare(PROMPT, a, "xx") for a in ("xxxx", "xxx", "")] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("judge", "rewards", "reward_model"),
    [
        ("sales", [spec("sales")], None),
        ("sales", [spec("length")], None),
        ("judge.py:score", [spec("judge.py:score")], None),
        ("./judge.py:score", [spec("judge.py:score")], None),
        ("rm", [spec("reward_model")], "rm"),
        ("rm/../rm", [spec("sales", relevance=True)], "rm"),
        ("copy", [spec("reward_model")], "rm"),
        ("copy", [spec("reward_model", path="rm")], None),
    ],
)
def test_a_training_reward_cannot_judge(files, judge, rewards, reward_model):
    """R27: a judge is never the training reward, under another path or as a copy neither."""
    with pytest.raises(ConfigError, match="of the training"):
        build_judge(judge, rewards=rewards, reward_model=reward_model)


def test_another_reward_model_may_judge(files):
    """R27: other weights may judge (here they are no model, which is told when they are loaded)."""
    for judge, rewards in (("other", [spec("reward_model")]), ("rm", [spec("sales")])):
        with pytest.raises(ModelError):
            build_judge(judge, rewards=rewards, reward_model="rm")


def test_unknown_judge():
    """R27: an unknown judge is one sentence with the nearest."""
    with pytest.raises(ConfigError, match="did you mean 'sales_quality'"):
        build_judge("sale_quality")


def test_a_batch_scorer_is_asked_once_per_answer():
    """R27: a Reward judges in one batch, each (prompt, answer) once."""
    calls = []

    class Length:
        name = "length"

        def score(self, samples):
            calls.append(len(samples))
            return [RewardResult(float(len(sample.completion))) for sample in samples]

    judge = ScoreJudge(Length())
    judge.prepare([PROMPT] * 3, ["a", "bb", "a"])
    assert judge.compare(PROMPT, "bb", "a") == 1.0
    assert [count for count in calls if count] == [2]


@pytest.mark.parametrize("value", [float("nan"), "high", None])
def test_a_judge_that_cannot_score_stops(value):
    """R27: an answer without a score is never counted as a loss."""
    with pytest.raises(RewardError):
        ScoreJudge(lambda prompt, response: value).compare(PROMPT, "a", "b")


def test_an_exception_of_a_judge_is_a_sentence():
    """R27: a user's judge that fails is told in one sentence."""
    with pytest.raises(RewardError, match="ZeroDivisionError"):
        ScoreJudge(lambda prompt, response: 1 / 0).compare(PROMPT, "a", "b")
