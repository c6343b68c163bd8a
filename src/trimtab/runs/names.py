"""Every metric name there is, with its unit, its meaning and its healthy range.

``METRICS`` is the only list: trainers emit these names, ``docs/metrics.md`` explains them, and a test
compares both. A name with ``*`` in it stands for a family, such as one reward component each.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """What one number means. ``healthy`` is (lowest, highest), None where that side is open or unknown."""

    unit: str
    meaning: str
    healthy: tuple[float | None, float | None] = (None, None)

    @property
    def range_text(self) -> str:
        """The healthy range for a reader: ``0.01 – 0.5``, ``≥ 0.5``, ``≤ 0.3`` or nothing."""
        low, high = self.healthy
        if low is not None and high is not None:
            return f"{low:g} – {high:g}"
        return f"≥ {low:g}" if low is not None else f"≤ {high:g}" if high is not None else ""


METRICS: dict[str, Metric] = {
    # What the optimizer minimises.
    "loss/total": Metric("1", "The loss that is differentiated: the terms below, or the supervised loss."),
    "loss/policy": Metric("1", "The policy term; its size says little, for advantages are centred."),
    "loss/value": Metric(
        "reward²", "The critic term before vf_coef: half the squared error against the returns."
    ),
    "loss/kl": Metric(
        "1", "The KL term, coefficient included; absent where the KL is charged to the reward."
    ),
    "loss/entropy": Metric(
        "1", "The entropy term, coefficient included; negative where entropy is rewarded."
    ),
    # What the completions earned.
    "reward/mean": Metric("reward", "Mean reward of all that was sampled, abstentions left out."),
    "reward/std": Metric("reward", "Standard deviation of those rewards over the whole step.", (0.01, None)),
    "reward/min": Metric("reward", "Lowest reward of the step."),
    "reward/max": Metric("reward", "Highest reward of the step."),
    "reward/abstained": Metric("share", "Completions for which no reward could be given.", (None, 0.05)),
    "reward/part/*": Metric("reward", "Mean of one reward component, before its weight."),
    "reward/zero_variance_groups": Metric(
        "share", "Trained groups whose rewards are all equal, and so teach nothing.", (None, 0.5)
    ),
    # Limits with an adaptive weight.
    "constraint/*/rate": Metric("share", "Mean violation of one constraint, over all that was sampled."),
    "constraint/*/weight": Metric("reward", "What a violation costs: the constraint's weight in force."),
    # How far the policy is from others.
    "kl/ref": Metric(
        "nats per token", "KL from the policy to the reference, over completion tokens.", (0.01, 0.5)
    ),
    "kl/ref_sequence": Metric("nats per sequence", "The same, summed over each completion."),
    "kl/policy": Metric(
        "nats per token", "How far the updates of this step moved the policy (approx_kl).", (None, 0.1)
    ),
    "kl/engine": Metric(
        "nats per token", "Sampler against learner at the same weights; a bug when not tiny.", (None, 0.01)
    ),
    "kl/coef": Metric("1", "The coefficient of the KL penalty in force."),
    # The policy itself.
    "policy/entropy": Metric("nats per token", "Mean entropy of the next-token distribution.", (0.5, None)),
    "policy/clipfrac": Metric("share", "Completion tokens whose ratio left the clip range.", (None, 0.3)),
    "policy/ratio_mean": Metric(
        "1", "Mean of new over old probability; 1 before the first update.", (0.8, 1.2)
    ),
    "policy/ratio_max": Metric("1", "Largest ratio of the step."),
    # The text.
    "completions/mean_length": Metric("tokens", "Mean completion length, end token included."),
    "completions/max_length": Metric("tokens", "Longest completion of the step."),
    "completions/truncated": Metric("share", "Completions cut at max_new_tokens.", (None, 0.5)),
    "completions/distinct_1": Metric("share", "Different tokens among all tokens of the step's completions."),
    "completions/distinct_2": Metric(
        "share", "Different token pairs among all pairs of the step's completions."
    ),
    # The critic (PPO).
    "critic/explained_variance": Metric(
        "1", "1 is a perfect critic, 0 a constant, below 0 worse than one.", (0.0, None)
    ),
    "critic/value_mean": Metric("reward", "Mean predicted value; should approach the mean return."),
    "critic/clipfrac": Metric("share", "Values that left the value clip range.", (None, 0.3)),
    # The optimizer.
    "train/grad_norm": Metric("1", "Global gradient norm before clipping."),
    "train/learning_rate": Metric("1", "Learning rate of the last update."),
    "train/tokens": Metric("tokens", "Completion tokens that this step sampled."),
    "train/epoch": Metric("epochs", "Passes over the data so far."),
    "train/updates": Metric("updates", "Optimizer steps in this step."),
    # Where the time goes.
    "time/rollout": Metric("s", "Sampling."),
    "time/reward": Metric("s", "Scoring."),
    "time/reference": Metric(
        "s", "Log-probabilities of the reference and of the policy before its update, and values."
    ),
    "time/update": Metric("s", "Forward, backward and optimizer."),
    "time/publish": Metric("s", "Handing the new weights to the sampler."),
    "time/step": Metric("s", "The whole step."),
    "speed/tokens_per_s": Metric(
        "tokens/s", "Tokens of this step over its time; in SFT the prompts count too."
    ),
    "speed/rollout_tokens_per_s": Metric("tokens/s", "Sampled tokens over the time of sampling."),
    # Prompts that are never trained on.
    "eval/reward": Metric("reward", "Mean reward on the hidden prompts."),
    "eval/pass_rate": Metric("share", "Hidden prompts whose completion passed."),
    "eval/violation/*": Metric("share", "Mean violation of one constraint on the hidden prompts."),
    "train/pass_rate": Metric("share", "Training completions since the last evaluation that passed."),
    "eval/gap": Metric("share", "`train/pass_rate` less `eval/pass_rate`.", (None, 0.1)),
    "eval/judge": Metric("score", "Mean score of the hidden answers by `eval.judge`, which no update sees."),
    "eval/hidden_reward/*": Metric("reward", "The same by one of `rl.hidden_rewards`."),
    "eval/quality_gap/*": Metric(
        "std", "Rise of `eval/reward` less that of the judge or hidden reward, since the first evaluations."
    ),
    # Supervised stages; their loss is loss/total.
    "sft/perplexity": Metric("1", "exp of the mean loss per response token; 1 is certainty."),
    "rm/accuracy": Metric("share", "Pairs whose chosen response scores higher.", (0.6, None)),
    "rm/margin": Metric("reward", "Mean of score(chosen) minus score(rejected)."),
    "rm/ece": Metric("share", "Expected calibration error of the preference probability.", (None, 0.1)),
    "prm/accuracy": Metric("share", "Steps judged as their label says.", (0.6, None)),
    "prm/ece": Metric("share", "Expected calibration error of the probability of a right step.", (None, 0.1)),
    "prm/first_error_accuracy": Metric("share", "Solutions whose first wrong step, or none, is found."),
}


def find_metric(name: str) -> Metric | None:
    """Return what a name means, also of a member of a family (``reward/part/format``); None when unknown."""
    if name in METRICS:
        return METRICS[name]
    for key, metric in METRICS.items():
        first, star, last = key.partition("*")
        if star and name.startswith(first) and name.endswith(last) and len(name) >= len(key):
            return metric
    return None
