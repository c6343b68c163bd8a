"""Several steps without the host give what step by step gives; here with plain calls instead of graphs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import pytest
from tests.unit.models.tiny import random_prompts, tiny_model, tiny_tokenizer
from torch import Tensor

from trimtab.errors import DivergedError
from trimtab.models.kv_rows import RowState
from trimtab.rollout.engine import SamplingParams
from trimtab.rollout.memory import Limits
from trimtab.rollout.native import NativeEngine

ENDS = frozenset(range(0, 259, 16))


class PlainCalls:
    """What ``GraphedDecode`` does, without a graph."""

    def __init__(self, step: Callable[[Tensor], Tensor], state: RowState) -> None:
        self.step = step

    def prepare(self, tokens: Tensor) -> None:
        """Nothing to capture."""

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.step(tokens)


@pytest.fixture(autouse=True)
def _without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.rollout.bursts.GraphedDecode", PlainCalls)
    monkeypatch.setattr("trimtab.rollout.native.GraphedDecode", PlainCalls)


def engines(max_rows: int) -> tuple[NativeEngine, NativeEngine]:
    """One that goes step by step, one that goes in bursts and keeps its cache."""
    model, tokenizer = tiny_model("Qwen3"), tiny_tokenizer()
    steps = NativeEngine(model, tokenizer, ENDS, limits=Limits(max_rows))
    bursts = NativeEngine(model, tokenizer, ENDS, limits=Limits(max_rows))
    bursts._has_graphs = True
    return steps, bursts


@pytest.mark.parametrize("max_rows", [256, 6])
@pytest.mark.parametrize("options", [{}, {"min_new_tokens": 5}, {"stop": ("a",)}], ids=str)
def test_bursts_change_nothing(options: dict[str, object], max_rows: int) -> None:
    """Issue 3: the same tokens, log-probabilities and ends, call after call over one kept cache."""
    steps, bursts = engines(max_rows)
    for seed, size, most in ((1, 4, 24), (2, 3, 16)):
        params = SamplingParams(most, temperature=0.8, seed=seed, **options)  # type: ignore[arg-type]
        prompts = random_prompts(5, 12, 9, 4, 7)
        one = list(chain(*steps.generate(prompts, size, params)))
        other = list(chain(*bursts.generate(prompts, size, params)))
        assert [(c.token_ids, c.finish_reason) for c in one] == [
            (c.token_ids, c.finish_reason) for c in other
        ]
        for a, b in zip(one, other, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
            assert a.sampling_logprobs == pytest.approx(b.sampling_logprobs, abs=1e-5)


def test_bursts_refuse_logits_that_are_not_finite() -> None:
    """R14: NaN is seen at the end of the burst at the latest."""
    _, bursts = engines(256)
    bursts.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="not finite"):
        bursts.generate(random_prompts(5), 2, SamplingParams(12))
