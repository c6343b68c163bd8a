"""The sample seam. Whatever samples hides behind ``RolloutEngine``: this process, or an engine elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from trimtab.config.rollout import RolloutConfig
from trimtab.errors import RolloutError
from trimtab.types import Completion

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How completions are drawn.

    Which log-probabilities come back when sampling is truncated (trap 9): those of the temperature-scaled
    **full** distribution, ``log_softmax(logits / temperature)``, which is what the learner computes.
    ``top_p``, ``top_k`` and ``min_new_tokens`` change which tokens can be drawn, never what is reported as
    ``logprobs``; with top-p or top-k, ``sampling_logprobs`` are those of what was drawn from, so that the
    learner can correct for the cut.

    Example:
        >>> SamplingParams(max_new_tokens=64, temperature=0.8, top_p=0.9, stop=("\\n\\n",)).top_k
        0
    """

    max_new_tokens: int
    temperature: float = 1.0  # 0 is the same as greedy at temperature 1
    top_p: float = 1.0  # draw from the fewest likeliest tokens whose mass reaches this; 1 keeps every token
    top_k: int = 0  # draw from the k likeliest tokens; 0 keeps every token
    stop: tuple[str, ...] = ()  # strings that end a completion; the text is cut before them
    seed: int = 0
    min_new_tokens: int = 0  # no end token before this many
    greedy: bool = False  # always the likeliest token

    def __post_init__(self) -> None:
        checks = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "stop": (all(self.stop), "non-empty strings"),
            "min_new_tokens": (0 <= self.min_new_tokens <= self.max_new_tokens, "within max_new_tokens"),
        }
        for name, (is_valid, wanted) in checks.items():
            if not is_valid:
                raise RolloutError(f"sampling: {name} = {getattr(self, name)!r} must be {wanted}")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.greedy or self.temperature == 0

    @property
    def is_truncated(self) -> bool:
        """Whether tokens are barred that the policy could say."""
        return not self.is_greedy and (self.top_p < 1.0 or self.top_k > 0 or self.min_new_tokens > 0)

    @property
    def scale(self) -> float:
        """The temperature that reported log-probabilities are of; 1 where it is given as 0."""
        return self.temperature or 1.0


class RolloutEngine(Protocol):
    """Samples completions from the policy."""

    policy_version: int

    def generate(
        self, prompts: Sequence[Sequence[int]], num_generations: int, params: SamplingParams
    ) -> list[list[Completion]]:
        """Sample ``num_generations`` completions of each prompt (token ids); groups in the prompts' order.

        The same seed gives the same texts: row g of prompt p draws from a stream of its own, so neither other
        prompts nor the engine's batches change it.

        Raises:
            RolloutError: an empty prompt, or prompt and completion do not fit the model's context.
        """
        ...

    def load_weights(self, state: Mapping[str, Tensor] | None, policy_version: int) -> None:
        """Sample from these weights from now on; None where the engine's module is the learner's own."""
        ...


def build_engine(
    model: Any, tokenizer: Any, config: RolloutConfig | None = None, *, rows: int | None = None
) -> RolloutEngine:
    """Make the engine that samples from ``model``, as ``[rollout]`` of a recipe says.

    ``native`` takes the fastest cache that gives this model's log-probabilities: a compiled kernel, or plain
    torch. How it computes is measured for batches of about ``rows`` rows, here and only once. It becomes
    ``generate``, with a warning, where the architecture cannot take our attention.

    Raises:
        ModelError: ``generate`` gives other logits than the learner, in whatever way it runs.
    """
    from trimtab.models.attention_proof import proof_of
    from trimtab.models.length_rule import length_rule
    from trimtab.models.tokenizer import eos_ids
    from trimtab.rollout.by_length import LengthEngine, NumberedEngine
    from trimtab.rollout.generate_engine import GenerateEngine, Ways
    from trimtab.rollout.generate_ways import choose_ways
    from trimtab.rollout.memory import Limits
    from trimtab.rollout.native import NativeEngine
    from trimtab.rollout.self_test import choose_cache
    from trimtab.rollout.settle import TYPICAL_ROWS

    config = config or RolloutConfig()
    ends, pad = eos_ids(model, tokenizer), tokenizer.pad_token_id or 0
    cache, fault = choose_cache(model, config.cache) if config.engine == "native" else (None, None)
    proof = proof_of(model)
    if fault is not None and (proof is None or proof.cause is None):  # else loading the model said it
        warnings.warn(
            f"{type(model).__name__} cannot sample natively ({fault}); using transformers' generate, "
            "which is slower",
            stacklevel=2,
        )
    rule, engine = length_rule(model), GenerateEngine(model, tokenizer, ends, pad, ways=Ways(pads=False))
    inner: NumberedEngine = engine
    if cache is not None:
        limits, has_graphs = Limits(config.max_rows, config.kv_memory_gb), config.cuda_graphs and rule is None
        inner = NativeEngine(
            model,
            tokenizer,
            ends,
            limits=limits,
            cache=cache,
            cuda_graphs=has_graphs,
            rows=rows or TYPICAL_ROWS,
        )
    elif rule is None:
        engine.ways = choose_ways(engine)
    return inner if rule is None else LengthEngine(model, inner, engine, rule)
