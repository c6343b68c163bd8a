"""The metrics of a step that are about its rollouts: rewards, lengths, diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from trimtab.functional import distinct_n, num_zero_variance_groups
from trimtab.trainers.batching import RolloutBatch
from trimtab.types import RolloutGroup


def rollout_metrics(groups: Sequence[RolloutGroup], batch: RolloutBatch) -> dict[str, float]:
    """Rewards (abstentions left out), their parts, and the completions of one step."""
    values = [r.value for g in groups for r in g.rewards if r.value is not None]
    completions = [c for g in groups for c in g.completions]
    flat = num_flat_groups(batch)
    ids = [c.token_ids for c in completions]
    metrics = {
        "reward/abstained": 1.0 - len(values) / len(completions),
        "reward/zero_variance_groups": flat / len(groups),
        "completions/mean_length": float(batch.lengths.float().mean()),
        "completions/max_length": float(batch.lengths.max()),
        "completions/truncated": float(batch.truncated.float().mean()),
        "completions/distinct_1": distinct_n(ids, 1),
        "completions/distinct_2": distinct_n(ids, 2),
    }
    if values:
        metrics |= {
            "reward/mean": fmean(values),
            "reward/std": stdev(values) if len(values) > 1 else 0.0,
            "reward/min": min(values),
            "reward/max": max(values),
        }
    return {**metrics, **_parts(groups)}


def num_flat_groups(batch: RolloutBatch) -> int:
    """Groups whose rewards, less what constraints charge, are all equal."""
    rewards = batch.rewards if batch.penalties is None else batch.rewards - batch.penalties
    return num_zero_variance_groups(rewards, batch.valid, batch.group_ids)


def _parts(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for group in groups:
        for result in group.rewards:
            for name, value in result.parts.items():
                found.setdefault(f"reward/part/{name}", []).append(value)
    return {name: fmean(values) for name, values in sorted(found.items())}


def speed_metrics(times: Mapping[str, float], batch: RolloutBatch) -> dict[str, float]:
    """Tokens per second of the whole step and of sampling alone."""
    sampled = float(batch.lengths.sum())
    speeds = {"train/tokens": sampled, "speed/tokens_per_s": sampled / times["time/step"]}
    if times.get("time/rollout"):
        speeds["speed/rollout_tokens_per_s"] = sampled / times["time/rollout"]
    return speeds


def rollout_records(groups: Sequence[RolloutGroup], advantages: Sequence[float]) -> list[dict[str, object]]:
    """One record per completion, as kept in the run directory."""
    rows = [(g, c, r) for g in groups for c, r in zip(g.completions, g.rewards, strict=True)]
    return [
        {
            "prompt_id": group.prompt.id,
            "prompt": group.prompt.text,
            "completion": completion.text,
            "finish_reason": completion.finish_reason,
            "reward": result.value,
            "parts": dict(result.parts),
            "error": result.error,
            "num_tokens": len(completion.token_ids),
            "advantage": advantage,
            "policy_version": completion.policy_version,
        }
        for (group, completion, result), advantage in zip(rows, advantages, strict=True)
    ]
