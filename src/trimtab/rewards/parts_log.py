"""What reward functions say beside their values: finite numbers become parts of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.rewards.base import check_result
from trimtab.types import RewardResult


class PartsLog:
    """What a function gives to TRL's ``log_extra`` and ``log_metric`` while it scores ``count`` samples.

    Texts, and lists that have not one value per completion, are not kept: parts are numbers of a sample.

    Example:
        >>> log = PartsLog(2)
        >>> log.extra("matches", [1, 3]); log.metric("seconds", 0.5)
        >>> log.added_to([RewardResult(1.0), RewardResult(0.0)])[1].parts
        {'matches': 3.0, 'seconds': 0.5}
    """

    def __init__(self, count: int) -> None:
        self.parts: list[dict[str, float]] = [{} for _ in range(count)]

    def extra(self, column: str, values: Any) -> None:
        """Keep one value per completion."""
        values = as_list(values)
        if len(values) == len(self.parts):
            for part, value in zip(self.parts, values, strict=True):
                part |= numbers_of({column: value})

    def metric(self, name: str, value: Any) -> None:
        """Keep one value for the whole batch."""
        for part in self.parts:
            part |= numbers_of({name: value})

    def added_to(self, results: Sequence[RewardResult]) -> list[RewardResult]:
        """Return the results with what was kept."""
        pairs = zip(results, self.parts, strict=True)
        return [RewardResult(result.value, {**result.parts, **part}, result.error) for result, part in pairs]


def as_list(values: Any) -> list[Any]:
    """A list, tuple, array or tensor as a list; anything else is none."""
    values = values.tolist() if hasattr(values, "tolist") else values
    return list(values) if isinstance(values, (list, tuple)) else []


def numbers_of(values: Mapping[Any, Any], but: str = "") -> dict[str, float]:
    """The finite numbers of a dict by name, without ``but``."""
    checked = {str(key): check_result(item, "") for key, item in values.items() if key != but}
    return {key: result.value for key, result in checked.items() if result.value is not None}
