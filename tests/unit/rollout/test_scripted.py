"""The fake engine keeps the contract."""

from __future__ import annotations

import pytest
from tests.unit.models.tiny import EOS, tiny_tokenizer

from trimtab.errors import RolloutError
from trimtab.rollout.engine import RolloutEngine, SamplingParams
from trimtab.rollout.scripted import ScriptedEngine

TOKENIZER = tiny_tokenizer()
PROMPTS = [TOKENIZER.encode("a"), TOKENIZER.encode("b")]


def test_texts_in_order() -> None:
    """R12: completions are the scripted texts with ids, log-probabilities and a version."""
    engine: RolloutEngine = ScriptedEngine(["one", "two", "您好"], TOKENIZER)
    engine.load_weights(None, 5)
    groups = engine.generate(PROMPTS, 2, SamplingParams(20))
    assert [[c.text for c in group] for group in groups] == [["one", "two"], ["您好", "one"]]
    first = groups[0][0]
    assert first.token_ids == (*TOKENIZER.encode("one"), EOS) and first.logprobs == (-1.0,) * 4
    assert first.finish_reason == "stop" and first.policy_version == 5


def test_function_length_and_stop() -> None:
    """R12: a function sees the prompt; max_new_tokens cuts; stop strings stop."""
    engine = ScriptedEngine(lambda prompt, generation: f"{prompt}{generation}#rest", TOKENIZER)
    assert engine.generate(PROMPTS, 2, SamplingParams(99))[1][1].text == "b1#rest"
    cut = engine.generate(PROMPTS, 1, SamplingParams(3))[0][0]
    assert (cut.text, cut.finish_reason, len(cut.token_ids)) == ("a0#", "length", 3)
    stopped = engine.generate(PROMPTS, 1, SamplingParams(99, stop=("#",)))[0][0]
    assert (stopped.text, stopped.finish_reason, len(stopped.token_ids)) == ("a0", "stop", 3)
    with pytest.raises(RolloutError, match="at least one text"):
        ScriptedEngine([], TOKENIZER)
