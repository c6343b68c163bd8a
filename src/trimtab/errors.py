"""Every error that Trimtab raises on purpose.

::

    TrimtabError                what went wrong, where, and one thing to do (exit code 2)
    ├── ConfigError             a recipe or an override: unknown key, wrong type, value out of range
    ├── DataError               a data file: missing, empty, malformed row, unknown columns, too long
    ├── ModelError              a model directory: missing, not loadable, no chat template, pad = EOS
    ├── RewardError             a reward: unknown name, wrong signature, not a number
    ├── AdvantageError          advantages cannot be estimated from these rewards (a group of one, ...)
    ├── RolloutError            the sampling engine cannot do what was asked
    ├── CheckpointError         a checkpoint is missing, incomplete or of another recipe
    ├── MemoryShortError        a single row does not fit into memory
    ├── DivergedError           the run went bad and was stopped (exit code 3)
    └── StoppedError            a signal stopped the run after it was saved (exit code 130 or 143)

The message is one sentence for a user, without a traceback; a bug is never wrapped into these.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TrimtabError(Exception):
    """Base of all errors that a user can cause or mend; the command line prints only its sentence."""

    exit_code = 2


class ConfigError(TrimtabError):
    """A recipe, an override or a combination of keys is not valid."""


class DataError(TrimtabError):
    """A data file cannot be used as it is."""


class ModelError(TrimtabError):
    """A model, tokenizer or chat template cannot be used as it is."""


class RewardError(TrimtabError):
    """A reward cannot be found, loaded or called."""


class AdvantageError(TrimtabError):
    """Advantages are undefined for these rewards."""


class RolloutError(TrimtabError):
    """The sampling engine cannot do what was asked."""


class CheckpointError(TrimtabError):
    """A checkpoint cannot be read or does not belong to this run."""


class MemoryShortError(TrimtabError):
    """Not even one row fits into memory."""


class DivergedError(TrimtabError):
    """The run was stopped because its numbers went bad."""

    exit_code = 3


class StoppedError(TrimtabError):
    """A signal stopped the run; it can go on from what was saved."""

    def __init__(self, sentence: str, exit_code: int = 130) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest known name, or the known names when none is close.

    Example:
        >>> nearest("learning_rte", ["learning_rate", "seed"])
        " (did you mean 'learning_rate'?)"
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.55)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(names)})" if names else ""
