"""The fake engine: says what it is told to. For tests and examples that need no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from trimtab.errors import RolloutError
from trimtab.rollout.completion import RowLogprobs, StopStrings, build_completion
from trimtab.rollout.engine import SamplingParams
from trimtab.types import Completion, FinishReason

if TYPE_CHECKING:
    from torch import Tensor


class ScriptedEngine:
    """A ``RolloutEngine`` whose completions are given: a list of texts, or a function.

    Texts are handed out in order, over and over. A function is called with the prompt's text (special
    tokens left out) and the number of the generation. The end token is appended where ``max_new_tokens``
    leaves room, else the completion is cut and its finish reason is ``length``.

    Example:
        engine = ScriptedEngine(lambda prompt, generation: f"{prompt} {generation}", tokenizer)
    """

    def __init__(
        self,
        script: Sequence[str] | Callable[[str, int], str],
        tokenizer: Any,
        logprob: float = -1.0,
    ) -> None:
        """``logprob`` is what every token is said to have had, in nats."""
        if not callable(script) and (isinstance(script, str) or not len(script)):
            raise RolloutError("a scripted engine needs a list of at least one text, or a function")
        self.script, self.tokenizer, self.logprob = script, tokenizer, logprob
        self.policy_version = 0
        self._place = count()

    def generate(
        self, prompts: Sequence[Sequence[int]], num_generations: int, params: SamplingParams
    ) -> list[list[Completion]]:
        """See ``RolloutEngine``."""
        texts = [self.tokenizer.decode(prompt, skip_special_tokens=True) for prompt in prompts]
        return [
            [self._complete(self._line(text, g), params) for g in range(num_generations)] for text in texts
        ]

    def load_weights(self, state: Mapping[str, Tensor] | None, policy_version: int) -> None:
        """Only the version changes."""
        self.policy_version = policy_version

    def _line(self, prompt: str, generation: int) -> str:
        if callable(self.script):
            return self.script(prompt, generation)
        return self.script[next(self._place) % len(self.script)]

    def _complete(self, text: str, params: SamplingParams) -> Completion:
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        stop = StopStrings(self.tokenizer, params.stop)
        end = next((n for n in range(1, len(ids) + 1) if stop and stop.completed_by(ids[:n])), None)
        ids = ids[:end] if end is not None else [*ids, self.tokenizer.eos_token_id]
        reason: FinishReason = "stop" if len(ids) <= params.max_new_tokens else "length"
        ids = ids[: params.max_new_tokens]
        logprobs = RowLogprobs((self.logprob,) * len(ids))
        return build_completion(ids, logprobs, reason, stop, self.policy_version)
