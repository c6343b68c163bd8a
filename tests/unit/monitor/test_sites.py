"""Which site the bad figures of an update point to."""

from __future__ import annotations

import pytest

from trimtab.monitor.sites import site_of


@pytest.mark.parametrize(
    ("figures", "site"),
    [
        ((), None),
        (("train/grad_norm",), "gradient"),
        (("loss/total", "train/grad_norm"), "loss"),
        (("loss/total", "policy/entropy", "train/grad_norm"), "log-probability"),
        (("policy/ratio_max", "loss/policy"), "log-probability"),
    ],
)
def test_the_earliest_site_is_named(figures: tuple[str, ...], site: str | None) -> None:
    """Issue 5 (NaN): a bad log-probability spoils the loss, a bad loss the gradient."""
    assert site_of(figures) == site
