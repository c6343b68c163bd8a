from __future__ import annotations

import json
import math

import pytest
import torch

from trimtab.errors import ModelError, RewardError
from trimtab.rewards import LearnedReward, encode_for_reward
from trimtab.types import Prompt, Sample

from .toy import sample, toy_reward_model, toy_tokenizer

USER = ({"role": "user", "content": "hello"},)


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level tokenizer with ChatML."""
    return toy_tokenizer()


@pytest.fixture(scope="module")
def model():
    """A random reward model."""
    torch.set_num_threads(1)
    return toy_reward_model()


def test_value_is_normalised(model, tokenizer):
    """R4: value = (raw − mean) / std with the stored figures; both are parts; squash is their logistic."""
    card = {"mean": 0.5, "std": 2.0}
    result = LearnedReward(model, tokenizer, card).score([sample("yes")])[0]
    raw = result.parts["raw"]
    assert result.value == result.parts["normalised"] == pytest.approx((raw - 0.5) / 2.0)
    squashed = LearnedReward(model, tokenizer, card, squash=True).score([sample("yes")])[0]
    assert squashed.value == pytest.approx(1 / (1 + math.exp(-result.value)))
    assert LearnedReward(model, tokenizer, {"std": 0.0}).score([sample("yes")])[0].value == pytest.approx(raw)


def test_scores_do_not_depend_on_batch_or_padding(model, tokenizer):
    """R4, trap 4: batched scoring equals scoring one by one, in the order given."""
    rows = [sample("a" * n, prompt="p" * (40 - n)) for n in (3, 30, 1, 17, 8)]
    whole = [r.value for r in LearnedReward(model, tokenizer, batch_size=4).score(rows)]
    single = [LearnedReward(model, tokenizer, batch_size=1).score([row])[0].value for row in rows]
    assert whole == pytest.approx(single, abs=1e-5)
    assert len(set(whole)) == 5


def test_score_equals_transformers_own(model, tokenizer):
    """R4: the raw score is the classifier's logit for the same ids."""
    ids = encode_for_reward(tokenizer, sample("yes").prompt.messages, "yes")
    with torch.no_grad():
        wanted = float(model(input_ids=torch.tensor([ids])).logits[0, 0])
    reward = LearnedReward(model, tokenizer)
    assert reward.score([sample("yes")])[0].parts["raw"] == pytest.approx(wanted, abs=1e-5)
    assert reward.get_reward(tokenizer.decode(ids)) == pytest.approx(wanted, abs=1e-5)
    assert reward.score_texts([tokenizer.decode(ids), "x"])[0] == pytest.approx(wanted, abs=1e-5)


def test_get_reward_takes_any_text(model, tokenizer):
    """R4: get_reward(text) -> float, also for nothing and for more than the limit."""
    reward = LearnedReward(model, tokenizer, max_length=16)
    assert isinstance(reward.get_reward(""), float)
    assert reward.get_reward("b" * 100) == pytest.approx(reward.get_reward("b" * 16), abs=1e-6)


def test_what_the_model_cannot_read_abstains(tokenizer):
    """R19: a response beyond the model's positions abstains; the others are scored."""
    reward = LearnedReward(toy_reward_model(max_positions=64), tokenizer)
    results = reward.score([sample("a" * 70), sample("a")])
    assert results[0].value is None
    assert "more than it can read" in results[0].error
    assert results[1].value is not None


def test_a_prompt_beyond_the_context_is_cut(tokenizer):
    """R37: a limit above the model's context is the context, so a long prompt is cut and not refused."""
    small = toy_reward_model(max_positions=64)
    long = Sample(Prompt("0", ({"role": "user", "content": "q" * 200},)), "a")
    (result,) = LearnedReward(small, tokenizer).score([long])
    (exact,) = LearnedReward(small, tokenizer, max_length=64).score([long])
    assert result.value is not None and result.value == exact.value


def test_a_broken_model_abstains(tokenizer):
    """Threats: a NaN score is refused and never reaches the weights."""
    broken = toy_reward_model()
    with torch.no_grad():
        broken.score.weight.fill_(float("nan"))
    result = LearnedReward(broken, tokenizer).score([sample("a")])[0]
    assert result.value is None
    assert "not a finite number" in result.error


def test_from_directory(tmp_path, model, tokenizer):
    """R4: a directory with its card loads by path, and scores as the model in memory does."""
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "reward_model.json").write_text(json.dumps({"mean": 1.0, "std": 4.0, "accuracy": 0.9}))
    reward = LearnedReward(tmp_path)
    memory = LearnedReward(model, tokenizer, {"mean": 1.0, "std": 4.0})
    assert reward.card["accuracy"] == 0.9
    rows = [Sample(Prompt("0", USER), "yes"), Sample(Prompt("1", USER), "no")]
    assert [r.value for r in reward.score(rows)] == pytest.approx(
        [r.value for r in memory.score(rows)], abs=1e-5
    )


@pytest.mark.parametrize("card", ["{", "[]", '{"mean": NaN}', '{"std": -1}', '{"mean": "0"}'])
def test_a_damaged_card_is_refused(tmp_path, card):
    """Threats: a card that is no scale is refused when it is read."""
    from trimtab.rewards.learned import load_card

    (tmp_path / "reward_model.json").write_text(card)
    with pytest.raises(ModelError):
        load_card(tmp_path)


def test_a_model_needs_its_tokenizer(model):
    """R4: trap 11, a reward model is never scored with another tokenizer by accident."""
    with pytest.raises(RewardError, match="tokenizer"):
        LearnedReward(model)
