"""The metrics of a step that are about its rollouts: rewards, lengths, diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev

import torch

from trimtab.functional import distinct_n, num_zero_variance_groups
from trimtab.trainers.batching import RolloutBatch
from trimtab.trainers.experience import Collected
from trimtab.trainers.shaping import gated_rewards
from trimtab.types import RolloutGroup


def rollout_metrics(groups: Sequence[RolloutGroup], batch: RolloutBatch) -> dict[str, float]:
    """Rewards (abstentions left out), their parts, and the completions of all ``groups`` of one step.

    ``batch`` holds those that are trained: what dynamic sampling left out shows in every figure but the
    share of flat groups, which is about what the update has to learn from. Where every prompt has one
    completion, as in PPO, the whole step is one group.
    """
    values = [r.value for g in groups for r in g.rewards if r.value is not None]
    completions = [c for g in groups for c in g.completions]
    flat, count = num_flat_groups(batch), len(batch.group_ids.unique())
    if count == len(batch.group_ids):  # a completion per prompt is compared with the rest of the step
        flat, count = num_flat_groups(replace(batch, group_ids=torch.zeros_like(batch.group_ids))), 1
    ids = [c.token_ids for c in completions]
    lengths = [len(tokens) for tokens in ids]
    metrics = {
        "reward/abstained": 1.0 - len(values) / len(completions),
        "reward/zero_variance_groups": flat / count,
        "completions/mean_length": fmean(lengths),
        "completions/max_length": float(max(lengths)),
        "completions/truncated": fmean(c.finish_reason != "stop" for c in completions),
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
    """Groups whose rewards, less what constraints charge, are all equal: closed gates as in training."""
    rewards = batch.rewards if batch.penalties is None else batch.rewards - batch.penalties
    rewards = gated_rewards(rewards, batch, "group_mean")
    return num_zero_variance_groups(rewards, batch.valid, batch.group_ids)


def _parts(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for group in groups:
        for result in group.rewards:
            for name, value in result.parts.items():
                found.setdefault(f"reward/part/{name}", []).append(value)
    return {name: fmean(values) for name, values in sorted(found.items())}


def speed_metrics(times: Mapping[str, float], groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """Tokens per second of the whole step and of sampling alone, of all that was sampled."""
    sampled = float(sum(len(c.token_ids) for group in groups for c in group.completions))
    speeds = {"train/tokens": sampled, "speed/tokens_per_s": sampled / times["time/step"]}
    if times.get("time/rollout"):
        speeds["speed/rollout_tokens_per_s"] = sampled / times["time/rollout"]
    return speeds


def rollout_records(collected: Collected, advantages: Sequence[float]) -> list[dict[str, object]]:
    """One record per completion, as kept in the run directory; ``advantages`` are those of the trained.

    Completions that dynamic sampling left out follow them, with advantage 0 and ``is_trained`` false.
    """
    rows = [(g, c, r) for g in collected.sampled for c, r in zip(g.completions, g.rewards, strict=True)]
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
            "advantage": advantages[number] if number < len(advantages) else 0.0,
            "policy_version": completion.policy_version,
            "is_closed": result.is_closed,
            "is_trained": number < len(advantages),
        }
        for number, (group, completion, result) in enumerate(rows)
    ]


def num_trained(records: Sequence[Mapping[str, object]]) -> int:
    """How many completions of a step were trained on."""
    return sum(bool(record["is_trained"]) for record in records)
