"""The same numbers under the names that others know: those of R13 and R17, and those of TRL."""

from __future__ import annotations

from collections.abc import Mapping

STATS: dict[str, str] = {
    "loss/total": "loss",
    "loss/policy": "policy_loss",
    "loss/value": "value_loss",
    "reward/mean": "mean_reward",
    "reward/std": "reward_std",
    "kl/ref": "kl_divergence",
    "kl/policy": "approx_kl",
    "kl/coef": "kl_coef",
    "policy/entropy": "entropy",
    "policy/clipfrac": "clipfrac",
    "completions/mean_length": "response_length",
    "completions/distinct_1": "distinct_1",
    "completions/distinct_2": "distinct_2",
    "completions/truncated": "truncated_fraction",
    "reward/zero_variance_groups": "zero_variance_groups",
    "train/grad_norm": "grad_norm",
    "train/learning_rate": "learning_rate",
    "speed/tokens_per_s": "tokens_per_second",
}

TRL: dict[str, str] = {
    "loss/total": "loss",
    "loss/policy": "policy_loss",
    "reward/mean": "reward",
    "reward/std": "reward_std",
    "reward/zero_variance_groups": "frac_reward_zero_std",
    "kl/ref": "kl",
    "policy/entropy": "entropy",
    "policy/clipfrac": "clip_ratio/region_mean",
    "completions/mean_length": "completions/mean_length",
    "completions/max_length": "completions/max_length",
    "completions/truncated": "completions/clipped_ratio",
    "train/grad_norm": "grad_norm",
    "train/learning_rate": "learning_rate",
    "train/epoch": "epoch",
    "time/step": "step_time",
}

_PART = "reward/part/"


def named_stats(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a step in the spelling of the Python API (R13, R17).

    Names without a spelling of their own have ``/`` replaced by ``_`` (``time/step`` → ``time_step``).

    Example:
        >>> named_stats({"reward/mean": 0.5, "kl/ref": 0.01, "time/step": 2.0})
        {'mean_reward': 0.5, 'kl_divergence': 0.01, 'time_step': 2.0}
    """
    return {STATS.get(name, name.replace("/", "_")): value for name, value in metrics.items()}


def trl_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return those metrics that TRL has too, under its names; a component is ``rewards/NAME/mean``."""
    found = {TRL[name]: value for name, value in metrics.items() if name in TRL}
    parts = {
        f"rewards/{name.removeprefix(_PART)}/mean": value
        for name, value in metrics.items()
        if name.startswith(_PART)
    }
    return found | parts
