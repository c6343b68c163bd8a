"""What GRPO and PPO do alike before they differ: sample and score a step's prompts, and ask the reference."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from trimtab.config import RLConfig
from trimtab.data import PromptStream
from trimtab.distributed.build import System
from trimtab.functional import kl_estimate, masked_sum, overlong_penalty
from trimtab.rollout.collect import Collector
from trimtab.rollout.engine import SamplingParams
from trimtab.runs.faults import reach
from trimtab.trainers.batching import RolloutBatch
from trimtab.trainers.seeds import derive_seed
from trimtab.trainers.shaping import RewardShaping
from trimtab.trainers.stage import Phases
from trimtab.types import Prompt, RolloutGroup, TrainBatch

MEASURED_ROWS = 8  # rows on which the KL is measured while its coefficient is 0 (R16)


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
) -> list[RolloutGroup]:
    """Sample and score ``rl.num_prompts`` groups; ``shaping`` observes all that were sampled.

    With dynamic sampling, groups without variance are replaced by those of further prompts, for at most
    ``max_rounds`` rounds; what is missing then is filled with groups without variance.
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
    return [*useful, *spare][: rl.num_prompts]


def shaped_rewards(batch: RolloutBatch, rl: RLConfig) -> Tensor:
    """Rewards ``[N]`` less what constraints charge, with the overlong penalty; they were clipped when they
    were combined, and normalised after that (trap 2)."""
    rewards = batch.rewards if batch.penalties is None else batch.rewards - batch.penalties
    if not rl.overlong.buffer:
        return rewards
    penalty = overlong_penalty(batch.lengths, rl.max_new_tokens, rl.overlong.buffer)
    return rewards + rl.overlong.penalty * penalty


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


def reference_kl(system: System, rows: TrainBatch) -> dict[str, float]:
    """KL to the reference before the update: nats per token and per sequence (traps 10 and 18, R16).

    Without reference log-probabilities in ``rows`` it is measured on the first few rows only.
    """
    if not bool(rows.completion_mask.any()):
        return {}
    if rows.ref_logprobs is None:
        rows = rows.rows(rows.completion_mask.any(dim=1).nonzero().squeeze(1)[:MEASURED_ROWS])
        rows = replace(rows, ref_logprobs=system.reference.logprobs(rows))
    logprobs = rows.rollout_logprobs if rows.old_logprobs is None else rows.old_logprobs
    assert logprobs is not None and rows.ref_logprobs is not None
    mask = rows.completion_mask
    total = float(masked_sum(kl_estimate(logprobs, rows.ref_logprobs, "k3", mask=mask), mask))
    num_sequences = int(mask.any(dim=1).sum())
    return {"kl/ref": total / max(int(mask.sum()), 1), "kl/ref_sequence": total / max(num_sequences, 1)}
