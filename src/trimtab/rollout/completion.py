"""From sampled token ids to a ``Completion``: the text, and where stop strings cut it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from trimtab.types import Completion, FinishReason


class StopStrings:
    """Finds stop strings in the text of token ids; the ids ``ends`` end a completion by themselves."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], ends: Iterable[int] = ()) -> None:
        self._tokenizer, self._stop, self._ends = tokenizer, tuple(stop), frozenset(ends)
        # A token is at least one byte of text, so the newest stop string lies within this many tokens.
        self._tail = 4 + max((len(text.encode()) for text in stop), default=0)

    def __bool__(self) -> bool:
        return bool(self._stop)

    def completed_by(self, token_ids: Sequence[int]) -> bool:
        """Whether the text holds a stop string, given that it held none before the last token."""
        tail = self._tokenizer.decode(token_ids[-self._tail :], skip_special_tokens=True)
        if not any(text in tail for text in self._stop):
            return False
        return self.cut(self._tokenizer.decode(token_ids, skip_special_tokens=True))[1]

    def text(self, token_ids: Sequence[int]) -> str:
        """What a completion says, cut before the first stop string.

        The token that ended it is none of its words, also where the tokenizer does not call it special.
        """
        said = token_ids[:-1] if token_ids and token_ids[-1] in self._ends else token_ids
        return self.cut(self._tokenizer.decode(list(said), skip_special_tokens=True))[0]

    def cut(self, text: str) -> tuple[str, bool]:
        """The text before the first stop string, and whether there was one."""
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        return (text[: min(places)], True) if places else (text, False)


class RowLogprobs(NamedTuple):
    """Log-probabilities of one completion; see ``Completion``."""

    logprobs: tuple[float, ...]
    sampling_logprobs: tuple[float, ...] = ()


def build_completion(
    token_ids: Sequence[int],
    logprobs: RowLogprobs,
    finish_reason: FinishReason,
    stop: StopStrings,
    policy_version: int,
) -> Completion:
    """Decode and cut. Token ids stay as sampled, up to the token that ended the completion."""
    return Completion(
        tuple(token_ids),
        stop.text(token_ids),
        logprobs.logprobs,
        finish_reason,
        policy_version,
        logprobs.sampling_logprobs,
    )
