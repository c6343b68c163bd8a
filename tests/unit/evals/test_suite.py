from __future__ import annotations

import pytest

from trimtab.evals.suite import evaluate_policy, summarise_groups
from trimtab.rewards import CombinedReward
from trimtab.rewards.rules import exact_match, length
from trimtab.rollout.engine import SamplingParams
from trimtab.types import Completion, Prompt, RewardResult, RolloutGroup


class Tokenizer:
    """Renders nothing: a prompt's ids are its characters."""

    chat_template = "given"

    def apply_chat_template(self, messages, **kwargs):
        words = messages[-1]["content"]
        return [ord(char) for char in words] if kwargs.get("tokenize", True) else words


class Engine:
    """Answers generation g of a prompt with the g-th of its answers; one token per character."""

    def __init__(self, answers):
        self.answers, self.seen = answers, None

    def generate(self, prompts, num_generations, params):
        self.seen = (list(prompts), num_generations, params)
        return [[self.complete(a) for a in group[:num_generations]] for group in self.answers]

    def complete(self, text):
        ids = tuple(map(ord, text))
        return Completion(ids, text, (0.0,) * len(ids), "length" if text.endswith("…") else "stop")


def prompt(number, **columns):
    """A prompt with a gold answer."""
    return Prompt(str(number), ({"role": "user", "content": f"q{number}"},), columns)


def test_figures_by_hand():
    """R27: reward, pass rate, parts, abstentions, lengths and truncation, worked out by hand."""
    engine = Engine([["ab", "abab"], ["x", "yy…"], ["z", "z"]])
    prompts = [prompt(0, answer="ab"), prompt(1, answer="x"), prompt(2)]
    reward = CombinedReward([(exact_match(), 1.0), (length(1, 2), 0.5)])
    params = SamplingParams(max_new_tokens=8, seed=5)
    result = evaluate_policy(engine, Tokenizer(), prompts, reward, params, 2, pass_threshold=1.5)
    # Rewards: 1 + 0.5, 0 + 0.25, 1 + 0.5, 0 + 1/3, and two abstentions for the missing gold.
    assert result.reward == pytest.approx((1.5 + 0.25 + 1.5 + 1 / 3) / 4)
    assert result.pass_rate == 0.5
    assert (result.num_scored, result.num_abstained) == (4, 2)
    assert result.parts["exact_match"] == 0.5
    assert result.parts["length"] == pytest.approx((1 + 0.5 + 1 + 2 / 3 + 1 + 1) / 6)
    assert "needs the column 'answer'" in result.errors[0]
    assert result.mean_length == pytest.approx((2 + 4 + 1 + 3 + 1 + 1) / 6)
    assert result.truncated == pytest.approx(1 / 6)
    # Bigrams: ab | ab ba ab | - | yy y… | - | -: 6, of which ab, ba, yy, y… differ.
    assert result.distinct_2 == pytest.approx(4 / 6)
    # Unigrams: a b a b a b x y y … z z: 12, of which a b x y … z differ.
    assert result.distinct_1 == pytest.approx(6 / 12)
    assert result.answers == ["ab", "x", "z"]
    assert result.prompts == prompts
    assert [len(group) for group in result.completions] == [2, 2, 2]
    assert result.prompt_ids[1] == (ord("q"), ord("1"))
    assert engine.seen[1:] == (2, params)


def test_pass_at_k_leaves_out_abstentions():
    """R19, R27: pass@1 over the scored samples; the prompt whose samples abstained is left out."""
    engine = Engine([["ab", "no"], ["no", "no"], ["z", "z"]])
    prompts = [prompt(0, answer="ab"), prompt(1, answer="x"), prompt(2)]
    result = evaluate_policy(engine, Tokenizer(), prompts, exact_match(), SamplingParams(8), 2)
    assert result.pass_at_k(1) == 0.25
    assert result.pass_at_k(2) == 0.5
    assert result.summary()["num_abstained"] == 2
    assert "groups" not in result.summary()


def test_everything_abstains():
    """R19: no reward at all is told by num_scored; nothing is invented and nothing raises."""
    completion = Completion((1,), "a", (0.0,), "stop")
    group = RolloutGroup(prompt(0), (1,), (completion,), (RewardResult(None, error="x"),))
    result = summarise_groups([group])
    assert (result.num_scored, result.num_abstained, result.pass_rate) == (0, 1, 0.0)
    assert summarise_groups([]).mean_length == 0.0
