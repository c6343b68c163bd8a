from __future__ import annotations

import pytest

from trimtab.config import RewardSpec
from trimtab.errors import RewardError
from trimtab.rewards import REWARDS, LearnedReward, build_reward
from trimtab.rewards.process_reward import ProcessReward
from trimtab.rewards.registry import uses_reward_model

from .bad_server import dead_address
from .toy import sample, toy_process_model, toy_reward_model, toy_tokenizer


def spec(name, weight=1.0, **options):
    """One entry of rl.rewards."""
    return RewardSpec(name=name, weight=weight, options=options)


@pytest.fixture(scope="module")
def learned():
    """A loaded reward model."""
    return LearnedReward(toy_reward_model(), toy_tokenizer(), {"mean": 0.1, "std": 0.5})


def test_a_mixture(tmp_path):
    """R19: names, options, weights and a user's function in one list."""
    (tmp_path / "mine.py").write_text(
        "def f(prompts, completions, **kw):\n    return [1.0] * len(completions)\n"
    )
    specs = [spec("sales"), spec("length", 0.5, low=1, high=4), spec(f"{tmp_path}/mine.py:f", 2.0)]
    reward = build_reward(specs)
    assert reward.names == ["sales", "length", "f"]
    result = reward.score([sample("您好")])[0]
    assert result.value == pytest.approx(0.29 + 0.5 + 2.0)
    assert result.parts["sales/safety"] == 1.0


def test_every_name_is_buildable_or_says_what_it_needs(learned):
    """R19: the registry holds no dead name."""
    needs = {"regex": {"pattern": "a"}, "contains": {"words": ["a"]}, "same_names": {"names": ["a", "b"]}}
    nobody = {"url": dead_address(), "retries": 0}
    needs |= {"remote": nobody, "judge": {**nobody, "model": "m", "cache": "off"}}
    for name in REWARDS:
        process = ProcessReward(toy_process_model(), learned.tokenizer)
        given = [spec(name, **needs.get(name, {}))]
        reward = build_reward(given, reward_model=learned, process_reward=process)
        assert len(reward.score([sample("1", answer="1")])) == 1


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (spec("sale"), "did you mean 'sales'?"),
        (spec("length", hgh=3), "Reward length has no option 'hgh' (did you mean 'high'?)"),
        (spec("regex"), "needs the option 'pattern'"),
        (spec("reward_model"), "needs a reward model"),
        (spec("sales", relevance=True), "needs a reward model"),
        (spec("process_reward"), "needs a process reward model"),
        (spec("length", low="a"), "wrong type"),
        (spec("nowhere.py:f"), "There is no file"),
    ],
)
def test_errors_are_one_sentence(entry, words):
    """R19: unknown names and options tell the nearest; what is missing is named."""
    with pytest.raises(RewardError) as caught:
        build_reward([entry])
    assert words in str(caught.value)


def test_relevance_is_the_squashed_reward_model(learned):
    """R23: relevance = logistic of the normalised score, so the total stays within 0..1."""
    plain = build_reward([spec("reward_model")], reward_model=learned).score([sample("您好")])[0]
    result = build_reward([spec("sales", relevance=True)], reward_model=learned).score([sample("您好")])[0]
    relevance = result.parts["sales/relevance"]
    assert 0 < relevance < 1
    assert relevance == pytest.approx(1 / (1 + 2.718281828459045**-plain.value))
    assert result.value == pytest.approx(0.29 + 0.2 * relevance)


def test_one_model_is_shared(learned):
    """R4: two uses share the model and keep their own settings."""
    reward = build_reward(
        [spec("reward_model", squash=True), spec("sales", relevance=True)], reward_model=learned
    )
    (first, _), (second, _) = reward.components
    assert first.model is second.relevance.model
    assert (first.name, second.relevance.name) == ("reward_model", "relevance")
    assert learned.name == "reward_model"
    assert learned.squash is False


def test_uses_reward_model():
    """R4: whether a reward model has to be there before training starts."""
    assert uses_reward_model([spec("reward_model")])
    assert uses_reward_model([spec("length"), spec("sales", relevance=True)])
    assert not uses_reward_model([spec("sales"), spec("reward_model", path="elsewhere")])
