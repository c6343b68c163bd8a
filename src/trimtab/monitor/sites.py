"""Where a number that is not finite was found: the six places that one can come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Site = Literal["reward", "log-probability", "loss", "gradient", "weight", "optimizer state"]


@dataclass(frozen=True, slots=True)
class StateFault:
    """A number that is not finite: its site, and what exactly was seen there.

    ``is_lasting``: it stays when the update is thrown away, so the run cannot go on from here.
    """

    site: Site
    detail: str
    is_lasting: bool = False


# Figures of an update that are means over log-probabilities alone: NaN in one, so NaN in those.
_OF_LOGPROBS = ("policy/entropy", "kl/policy", "policy/ratio", "kl/ref")


def site_of(figures: tuple[str, ...]) -> Site | None:
    """The site that the names of an update's bad figures point to; None where there are none.

    A bad log-probability spoils the loss, and a bad loss the gradient: the earliest of them counts.

    Example:
        >>> site_of(("loss/total", "train/grad_norm"))
        'loss'
    """
    if any(name.startswith(_OF_LOGPROBS) for name in figures):
        return "log-probability"
    if any(name.startswith("loss/") for name in figures):
        return "loss"
    return "gradient" if figures else None
