"""What GRPO and PPO do alike before they differ: sample and score a step's prompts, and ask the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trimtab.config import RLConfig
from trimtab.data import PromptStream
from trimtab.distributed.build import System
from trimtab.functional import kl_estimate, masked_sum, overlong_penalty
from trimtab.rollout.collect import Collector
from trimtab.rollout.engine import SamplingParams
from trimtab.runs.faults import reach
from trimtab.trainers.batching import RolloutBatch
from trimtab.trainers.seeds import derive_seed, generator
from trimtab.trainers.shaping import RewardShaping, gated_rewards
from trimtab.trainers.stage import Phases
from trimtab.types import Prompt, RolloutGroup, TrainBatch

MEASURED_ROWS = 8  # rows at least on which the KL is measured while its coefficient is 0 (R16)
CRITIC = "critic"  # what stands where others have a baseline of their group: PPO compares over the batch


@dataclass(frozen=True, slots=True)
class Collected:
    """The groups of a step: those that are trained, and those that dynamic sampling left out."""

    trained: list[RolloutGroup]
    left_out: list[RolloutGroup]

    @property
    def sampled(self) -> list[RolloutGroup]:
        """All of them: what says how good the policy is."""
        return [*self.trained, *self.left_out]


def sampling_params(rl: RLConfig, seed: int) -> SamplingParams:
    """The recipe's sampling settings with the seed of one step."""
    return SamplingParams(
        max_new_tokens=rl.max_new_tokens,
        temperature=rl.temperature,
        top_p=rl.top_p,
        top_k=rl.top_k,
        stop=tuple(rl.stop),
        seed=seed,
    )


def collect_groups(
    system: System,
    stream: PromptStream[Prompt],
    rl: RLConfig,
    seed: int,
    phases: Phases,
    shaping: RewardShaping,
) -> Collected:
    """Sample and score groups until ``rl.num_prompts`` can be trained; ``shaping`` observes all of them.

    With dynamic sampling, groups without variance are replaced by those of further prompts, for at most
    ``max_rounds`` rounds; what is missing then is filled with groups without variance. What is left out is
    returned too: of a policy that is judged by the groups that vary, nobody would see that it gets better.
    """
    collector = Collector(
        system.engine, system.tokenizer, system.reward, rl.num_generations, rl.max_prompt_tokens
    )
    rounds = rl.dynamic_sampling.max_rounds if rl.dynamic_sampling.enabled else 1
    useful: list[RolloutGroup] = []
    spare: list[RolloutGroup] = []
    for number in range(rounds):
        prompts = stream.next_batch(rl.num_prompts - len(useful))
        with phases("rollout"):
            groups = collector.sample(prompts, sampling_params(rl, derive_seed(seed, "sample", number)))
        reach("after_rollout")
        with phases("reward"):
            groups = collector.score(groups)
        reach("after_reward")
        shaping.observe(groups)
        for group in groups:
            (useful if rounds == 1 or shaping.has_variance(group) else spare).append(group)
        if len(useful) >= rl.num_prompts:
            break
    everything = [*useful, *spare]
    return Collected(everything[: rl.num_prompts], everything[rl.num_prompts :])


def shaped_rewards(batch: RolloutBatch, rl: RLConfig, kl_penalty: Tensor | None = None) -> Tensor:
    """Rewards ``[N]`` less what constraints charge, with the overlong penalty; they were clipped when they
    were combined, and normalised after that (trap 2). Less the KL of each completion, where ``kl_penalty``
    ``[N, T]`` charges it to the reward. Last of all, nothing is worth more behind a closed gate (R24)."""
    rewards = batch.rewards if batch.penalties is None else batch.rewards - batch.penalties
    if rl.overlong.buffer:
        penalty = overlong_penalty(batch.lengths, rl.max_new_tokens, rl.overlong.buffer)
        rewards = rewards + rl.overlong.penalty * penalty
    if kl_penalty is not None:
        rewards = rewards - kl_penalty.sum(dim=1)
    return gated_rewards(rewards, batch, CRITIC if rl.algorithm == "ppo" else rl.advantage.baseline)


def add_reference(system: System, rows: TrainBatch, is_needed: bool) -> TrainBatch:
    """Add the reference's log-probabilities to every row when the update needs them."""
    return replace(rows, ref_logprobs=system.reference.logprobs(rows)) if is_needed else rows


def kl_penalty(system: System, rows: TrainBatch, rl: RLConfig, kl_coef: float) -> Tensor | None:
    """The KL charged to the reward of each token, ``[B, T]``, coefficient included; None if none is."""
    if rl.kl.placement != "reward" or rows.ref_logprobs is None:
        return None
    if rl.kl.estimator == "full":
        return kl_coef * system.exact_kl(rows)
    assert rows.old_logprobs is not None
    mask = rows.completion_mask
    return kl_coef * kl_estimate(rows.old_logprobs, rows.ref_logprobs, rl.kl.estimator, mask=mask)


def reference_kl(system: System, rows: TrainBatch, num_groups: int = 1, seed: int = 0) -> dict[str, float]:
    """KL to the reference before the update: nats per token and per sequence (traps 10 and 18, R16).

    Without reference log-probabilities in ``rows`` it is measured on a sample of them: one row of each of
    ``num_groups`` groups at least, drawn with ``seed``.
    """
    if not bool(rows.completion_mask.any()):
        return {}
    if rows.ref_logprobs is None:
        rows = rows.rows(spread_rows(rows.completion_mask.any(dim=1), max(MEASURED_ROWS, num_groups), seed))
        rows = replace(rows, ref_logprobs=system.reference.logprobs(rows))
    logprobs = rows.rollout_logprobs if rows.old_logprobs is None else rows.old_logprobs
    assert logprobs is not None and rows.ref_logprobs is not None
    mask = rows.completion_mask
    total = float(masked_sum(kl_estimate(logprobs, rows.ref_logprobs, "k3", mask=mask), mask))
    num_sequences = int(mask.any(dim=1).sum())
    return {"kl/ref": total / max(int(mask.sum()), 1), "kl/ref_sequence": total / max(num_sequences, 1)}


def spread_rows(usable: Tensor, count: int, seed: int) -> Tensor:
    """Numbers of ``count`` usable rows (all, where there are no more), spread evenly over all of them.

    ``usable [B]`` bool. The rows are cut into ``count`` stretches in their order, which is that of the
    groups, and one of each is drawn with ``seed``: the same seed, the same rows.
    """
    rows = usable.nonzero().squeeze(1)
    if len(rows) <= count:
        return rows
    edges = torch.arange(count + 1) * len(rows) // count
    draw = torch.rand(count, generator=generator(seed, "measured"), dtype=torch.float64)
    return rows[edges[:-1] + (draw * (edges[1:] - edges[:-1])).long()]
