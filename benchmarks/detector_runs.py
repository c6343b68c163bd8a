"""Simulated runs for the detectors: healthy ones of five kinds, and the same with one thing going wrong.

A run is a dictionary of metric name to one value per step. Scales, noise and trends are those of runs of the
recipes; noise is autocorrelated (AR(1), 0 to 0.6) and in every third run it has heavy tails. Names that begin
with ``_`` are what an evaluation would measure: true rates and scores, never shown to a detector as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Run = dict[str, np.ndarray]
KINDS = ("sales", "arithmetic", "reasoning", "ppo", "warmup")
STEPS = 1000


@dataclass(frozen=True)
class Fault:
    """What goes wrong; which alarms count as finding it, and which findings of rl-doctor do (or none)."""

    apply: Callable[[Run, int, np.random.Generator], None]
    alarms: tuple[str, ...]
    doctor: tuple[str, ...] = ()
    is_from_start: bool = False  # what is wrong with the run was so from its first step


def ar1(rng: np.random.Generator, steps: int, correlation: float, is_heavy: bool) -> np.ndarray:
    """Unit noise with this correlation from step to step; heavy: Student's t, 3 degrees of freedom, to ±8."""
    shocks = np.clip(rng.standard_t(3, steps) / np.sqrt(3), -8, 8) if is_heavy else rng.standard_normal(steps)
    noise = np.empty(steps)
    noise[0] = shocks[0]
    for step in range(1, steps):
        noise[step] = correlation * noise[step - 1] + np.sqrt(1 - correlation**2) * shocks[step]
    return noise


def healthy(seed: int, steps: int = STEPS) -> Run:
    """A run that learns: ``KINDS[seed % 5]``, with its own speed, noise and scales."""
    rng = np.random.default_rng(seed)
    kind, is_heavy = KINDS[seed % len(KINDS)], seed % 3 == 2
    correlation = rng.uniform(0.0, 0.6)
    time = np.arange(steps)
    warm = np.clip(time / 50, 0, 1) if kind == "warmup" else np.ones(steps)
    learnt = (1 - np.exp(-np.cumsum(warm) / rng.uniform(60, 400))) * rng.uniform(0.7, 1.0)

    def noise(scale: float) -> np.ndarray:
        return scale * ar1(rng, steps, correlation, is_heavy)

    short = kind == "arithmetic"
    run: Run = {}
    shared, level = noise(1.0), rng.uniform(0.01, 0.035)
    weights = {"accuracy": 0.6, "format": 0.2, "style": 0.2}
    starts = {
        "accuracy": rng.uniform(0.15, 0.4),
        "format": rng.uniform(0.3, 0.7),
        "style": rng.uniform(0.4, 0.6),
    }
    for name, start in starts.items():
        rise = (0.85 - start) * learnt ** (0.6 if name == "format" else 1.0)
        run[f"reward/part/{name}"] = np.clip(start + rise + level * (0.7 * shared + noise(0.7)), 0, 1)
    reward = sum(weight * run[f"reward/part/{name}"] for name, weight in weights.items())
    run["reward/mean"] = np.asarray(reward)
    run["reward/std"] = np.abs(rng.uniform(0.1, 0.3) * (1 - 0.5 * learnt) * np.exp(noise(0.12)))
    run["reward/abstained"] = np.zeros(steps)
    run["reward/zero_variance_groups"] = np.clip(
        rng.uniform(0.0, 0.1) + (0.25 if short else 0.1) * learnt + noise(0.05), 0, 1
    )
    scale = rng.uniform(0.05, 0.25)
    run["kl/ref"] = np.abs(scale * np.sqrt(learnt) * np.exp(noise(0.15 if not short else 0.25))) + 1e-13
    run["kl/engine"] = np.abs(10.0 ** rng.uniform(-13, -3) * np.exp(noise(0.3)))
    run["kl/policy"] = np.abs(0.003 * np.exp(noise(0.4)))
    start = {"arithmetic": rng.uniform(0.25, 0.48), "reasoning": rng.uniform(0.35, 0.9)}.get(
        kind, rng.uniform(0.75, 2.5)
    )
    floor = {"arithmetic": 0.72, "reasoning": 0.75}.get(kind, max(0.65, 0.62 / start))
    run["policy/entropy"] = start * (1 - (1 - floor) * learnt) * np.exp(noise(0.03))
    clip = {"ppo": 0.1, "reasoning": 0.02}.get(kind, 0.0)
    run["policy/clipfrac"] = np.clip(clip * np.exp(noise(0.25)), 0, 1)
    lengths = {"arithmetic": 4.0, "reasoning": rng.uniform(200, 500)}.get(kind, rng.uniform(40, 120))
    growth = {"arithmetic": 0.05, "reasoning": rng.uniform(1.0, 3.0)}.get(kind, rng.uniform(-0.2, 0.6))
    tie = rng.uniform(-0.2, 0.4)
    run["completions/mean_length"] = (
        lengths * (1 + growth * time / steps) * np.exp(0.05 * (tie * shared + noise(1.0)))
    )
    run["completions/truncated"] = np.clip(rng.uniform(0, 0.15) * (1 + learnt) + noise(0.02), 0, 1)
    run["train/tokens"] = 64 * run["completions/mean_length"]
    heaps = (run["train/tokens"] / run["train/tokens"][0]) ** -0.4
    run["completions/distinct_2"] = np.clip(
        rng.uniform(0.35, 0.8) * (1 - 0.2 * learnt) * heaps * np.exp(noise(0.04)), 0, 1
    )
    gradient = rng.uniform(0.2, 2.0) * (1 + 0.5 * (1 - warm)) * np.exp(noise(rng.uniform(0.1, 0.35)))
    gradient[rng.random(steps) < 0.004] *= rng.uniform(3, 8)  # lone spikes belong to a healthy run
    run["train/grad_norm"] = gradient
    run["train/learning_rate"] = 1e-5 * warm
    if kind == "ppo":
        run["critic/explained_variance"] = -0.3 * np.exp(-time / 15) + 0.6 * learnt + noise(0.15)
    pace = rng.uniform(200, 20000) * np.exp(noise(0.08))
    run["speed/tokens_per_s"] = pace
    run["time/step"] = run["train/tokens"] / pace
    run["_train"] = np.clip(0.1 + 0.7 * learnt, 0, 1)
    run["_hidden"] = np.clip(0.1 + 0.68 * learnt, 0, 1)
    run["_judge"] = 0.4 + 0.3 * learnt
    return run


def _ramp(run: Run, onset: int, length: float) -> np.ndarray:
    """0 before the onset, 1 after ``length`` more steps."""
    return np.clip((np.arange(len(run["kl/ref"])) - onset) / length, 0, 1)


def _towards(run: Run, name: str, ramp: np.ndarray, target: float, jitter: np.ndarray | float = 1.0) -> None:
    """Move a metric to ``target`` along the ramp, geometrically where it is positive."""
    run[name] = run[name] * (1 - ramp) + target * ramp * jitter


def _jitter(run: Run, rng: np.random.Generator, scale: float = 0.1) -> np.ndarray:
    return np.exp(scale * rng.standard_normal(len(run["kl/ref"])))


def _multiply(name: str, low: float, high: float, steps: tuple[float, float]) -> Callable[..., None]:
    def apply(run: Run, onset: int, rng: np.random.Generator) -> None:
        ramp = _ramp(run, onset, rng.uniform(*steps))
        run[name] = run[name] * rng.uniform(low, high) ** ramp

    return apply


def _set(
    name: str, low: float, high: float, steps: tuple[float, float], jitter: float = 0.1
) -> Callable[..., None]:
    def apply(run: Run, onset: int, rng: np.random.Generator) -> None:
        _towards(
            run,
            name,
            _ramp(run, onset, rng.uniform(*steps)),
            rng.uniform(low, high),
            _jitter(run, rng, jitter),
        )

    return apply


def _flat(run: Run, name: str, onset: int) -> np.ndarray:
    """A metric whose trend ends at the onset; its noise goes on."""
    values = run[name]
    trend = np.convolve(np.pad(values, 10, mode="edge"), np.ones(21) / 21, "valid")
    after = np.arange(len(values)) >= onset
    return np.where(after, values - trend + trend[onset - 10], values)


def _weighted(run: Run) -> np.ndarray:
    return (
        0.6 * run["reward/part/accuracy"] + 0.2 * run["reward/part/format"] + 0.2 * run["reward/part/style"]
    )


def non_finite(run: Run, onset: int, rng: np.random.Generator) -> None:
    name = ["kl/ref", "train/grad_norm", "policy/entropy", "reward/mean"][rng.integers(4)]
    run[name][onset : onset + 3] = [np.nan, np.inf][rng.integers(2)]


def kl_explosion(run: Run, onset: int, rng: np.random.Generator) -> None:
    past = np.maximum(0, np.arange(len(run["kl/ref"])) - onset)
    run["kl/ref"] = run["kl/ref"] * np.minimum(rng.uniform(1.08, 1.4) ** np.minimum(past, 60), 1000)


def kl_drift(run: Run, onset: int, rng: np.random.Generator) -> None:
    past = np.maximum(0, np.arange(len(run["kl/ref"])) - onset)
    run["kl/ref"] = run["kl/ref"] + rng.uniform(0.006, 0.02) * past
    for name in ("accuracy", "format", "style"):
        part = run[f"reward/part/{name}"]
        part[onset:] = part[:onset][-20:].mean() + rng.permutation(part[onset:] - part[onset:].mean())
    run["reward/mean"] = _weighted(run)


def kl_negative(run: Run, onset: int, rng: np.random.Generator) -> None:
    size = len(run["kl/ref"]) - onset
    run["kl/ref"][onset:] = -rng.uniform(0.02, 0.1) * np.exp(0.3 * rng.standard_normal(size))


def reward_falling(run: Run, onset: int, rng: np.random.Generator) -> None:
    ramp = _ramp(run, onset, rng.uniform(10, 80))
    share = rng.uniform(0.4, 0.7)
    for name in ("accuracy", "format", "style"):
        run[f"reward/part/{name}"] = run[f"reward/part/{name}"] * (1 - (1 - share) * ramp)
    run["reward/mean"] = _weighted(run)


def saturation(run: Run, onset: int, rng: np.random.Generator) -> None:
    ramp = _ramp(run, onset, rng.uniform(20, 60))
    run["reward/std"] = run["reward/std"] * 0.02**ramp
    for name in ("accuracy", "format", "style"):
        _towards(run, f"reward/part/{name}", ramp, 1.0)
    run["reward/mean"] = _weighted(run)
    _towards(run, "reward/zero_variance_groups", ramp, 0.95)


def gradient(run: Run, onset: int, rng: np.random.Generator) -> None:
    size = len(run["kl/ref"]) - onset
    hit = rng.random(size) < rng.uniform(0.15, 0.5)
    run["train/grad_norm"][onset:] *= np.where(hit, rng.uniform(15, 100, size), 1.0)


def critic(run: Run, onset: int, rng: np.random.Generator) -> None:
    if "critic/explained_variance" not in run:
        size = len(run["kl/ref"])
        run["critic/explained_variance"] = 0.4 + 0.15 * rng.standard_normal(size)
    ramp = _ramp(run, onset, rng.uniform(1, 30))
    noise = 0.15 * rng.standard_normal(len(ramp))
    run["critic/explained_variance"] = run["critic/explained_variance"] * (1 - ramp) + ramp * (
        noise - rng.uniform(0.2, 1.0)
    )


def engine(run: Run, onset: int, rng: np.random.Generator) -> None:
    run["kl/engine"][onset:] = rng.uniform(0.02, 0.3) * _jitter(run, rng, 0.3)[onset:]


def hidden_gap(run: Run, onset: int, rng: np.random.Generator) -> None:
    ramp = _ramp(run, onset, rng.uniform(50, 100))
    run["_train"] = run["_train"] * (1 - ramp) + 0.98 * ramp
    held = run["_hidden"][onset] - rng.uniform(0.0, 0.1)
    run["_hidden"] = np.where(ramp > 0, run["_hidden"][onset] * (1 - ramp) + held * ramp, run["_hidden"])
    run["_judge"] = np.where(ramp > 0, run["_judge"][onset], run["_judge"])


def quality_gap(run: Run, onset: int, rng: np.random.Generator) -> None:
    ramp = _ramp(run, onset, rng.uniform(40, 100))
    run["_judge"] = run["_judge"] * (1 - rng.uniform(0.5, 0.9) * ramp)
    for name in ("format", "style"):
        _towards(run, f"reward/part/{name}", ramp, 0.99)
    _towards(run, "_hidden", ramp, 0.95)
    run["reward/mean"] = _weighted(run)


def component(run: Run, onset: int, rng: np.random.Generator) -> None:
    """Style is paid for with accuracy, which no longer rises; the reward still does."""
    ramp = _ramp(run, onset, rng.uniform(20, 60))
    run["reward/part/accuracy"] = _flat(run, "reward/part/accuracy", onset)
    run["reward/part/style"] = run["reward/part/style"] + rng.uniform(0.8, 1.5) * ramp
    run["reward/part/accuracy"] = run["reward/part/accuracy"] - rng.uniform(0.08, 0.15) * ramp
    run["reward/mean"] = _weighted(run)


def form(run: Run, onset: int, rng: np.random.Generator) -> None:
    """Only the format rises, everything else stays or falls a little."""
    ramp = _ramp(run, onset, rng.uniform(20, 60))
    for name in ("accuracy", "style"):
        run[f"reward/part/{name}"] = _flat(run, f"reward/part/{name}", onset) - 0.05 * ramp
    run["reward/part/format"] = run["reward/part/format"] + rng.uniform(0.8, 1.2) * ramp
    run["reward/mean"] = _weighted(run)


def by_length(run: Run, onset: int, rng: np.random.Generator) -> None:
    ramp = _ramp(run, onset, rng.uniform(30, 80))
    wobble = np.exp(0.08 * rng.standard_normal(len(ramp)))
    factor = (rng.uniform(1.5, 1.9) ** ramp) * np.where(ramp > 0, wobble, 1.0)
    run["completions/mean_length"] = run["completions/mean_length"] * factor
    run["train/tokens"] = 64 * run["completions/mean_length"]
    paid = 0.5 * np.log(run["completions/mean_length"] / run["completions/mean_length"][onset])
    for name in ("accuracy", "format", "style"):
        part = run[f"reward/part/{name}"]
        run[f"reward/part/{name}"] = np.where(ramp > 0, part[onset] + paid + 0.2 * (part - part.mean()), part)
    run["reward/mean"] = _weighted(run)


def hacking(run: Run, onset: int, rng: np.random.Generator) -> None:
    """The reward rises fast and the text loses its variety."""
    ramp = _ramp(run, onset, rng.uniform(15, 40))
    run["completions/distinct_2"] = run["completions/distinct_2"] * rng.uniform(0.2, 0.4) ** ramp
    for name in ("accuracy", "format", "style"):
        _towards(run, f"reward/part/{name}", ramp, 0.97)
    run["reward/mean"] = _weighted(run)


def throughput(run: Run, onset: int, rng: np.random.Generator) -> None:
    ramp = _ramp(run, onset, rng.uniform(20, 90))
    factor = rng.uniform(0.15, 0.4) ** ramp
    run["speed/tokens_per_s"] = run["speed/tokens_per_s"] * factor
    run["time/step"] = run["time/step"] / factor


def stall(run: Run, onset: int, rng: np.random.Generator) -> None:
    run["time/step"][onset] = run["time/step"][onset] * rng.uniform(20, 100) + 30


def abstaining(run: Run, onset: int, rng: np.random.Generator) -> None:
    run["reward/abstained"][onset:] = rng.uniform(0.55, 1.0)


def unmoved(run: Run, onset: int, rng: np.random.Generator) -> None:
    """A learning rate far too low: the reward keeps its noise without a trend, the KL is that of rounding."""
    size = len(run["kl/ref"])
    run["kl/ref"] = 10.0 ** rng.uniform(-6, -3.3) * np.exp(0.2 * rng.standard_normal(size))
    run["train/learning_rate"] = np.full(size, 3e-6)
    level = rng.uniform(0.01, 0.035)
    for name in ("accuracy", "format", "style"):
        part = run[f"reward/part/{name}"]
        run[f"reward/part/{name}"] = part[0] + level * ar1(rng, size, rng.uniform(0, 0.3), False)
    run["reward/mean"] = _weighted(run)


FAULTS: dict[str, Fault] = {
    "non-finite": Fault(non_finite, ("non_finite",), ("gradient_pathology",)),
    "KL explosion": Fault(kl_explosion, ("kl_explosion", "kl_too_high"), ("kl_drift",)),
    "KL drift": Fault(kl_drift, ("kl_drift", "kl_too_high"), ("kl_drift",)),
    "KL negative": Fault(kl_negative, ("kl_negative",)),
    "entropy collapse": Fault(
        _set("policy/entropy", 0.02, 0.12, (10, 60)), ("entropy_collapse",), ("entropy_collapse",)
    ),
    "entropy explosion": Fault(_multiply("policy/entropy", 2.6, 6.0, (10, 60)), ("entropy_explosion",)),
    "reward falling": Fault(reward_falling, ("reward_falling",), ("plateau",)),
    "reward saturation": Fault(saturation, ("reward_saturation",), ("advantage_collapse", "plateau")),
    "zero variance": Fault(
        _set("reward/zero_variance_groups", 0.65, 0.95, (10, 60)), ("zero_variance",), ("advantage_collapse",)
    ),
    "length growth": Fault(
        _multiply("completions/mean_length", 2.6, 6.0, (10, 25)), ("length_drift",), ("length_pathology",)
    ),
    "length collapse": Fault(
        _multiply("completions/mean_length", 0.1, 0.38, (10, 25)), ("length_drift",), ("length_pathology",)
    ),
    "truncation": Fault(
        _set("completions/truncated", 0.65, 0.95, (10, 60)), ("truncation",), ("length_pathology",)
    ),
    "clip saturation": Fault(
        _set("policy/clipfrac", 0.4, 0.7, (5, 40)), ("clip_saturation",), ("clip_saturation",)
    ),
    "gradient spikes": Fault(gradient, ("gradient_spike",), ("gradient_pathology",)),
    "critic collapse": Fault(critic, ("critic_collapse",)),
    "engine mismatch": Fault(engine, ("engine_mismatch",)),
    "repetition": Fault(_multiply("completions/distinct_2", 0.15, 0.4, (10, 60)), ("repetition",)),
    "reward hacking": Fault(hacking, ("reward_hacking", "repetition"), ("reward_hacking",)),
    "hidden gap": Fault(hidden_gap, ("hidden_gap",), ("reward_hacking",)),
    "quality gap": Fault(quality_gap, ("quality_gap",), ("reward_hacking",)),
    "component share": Fault(component, ("component_share",), ("reward_composition",)),
    "format only": Fault(form, ("component_share",), ("reward_composition",)),
    "reward by length": Fault(by_length, ("reward_by_length",), ("length_pathology",)),
    "throughput rot": Fault(throughput, ("throughput_rot",)),
    "stall": Fault(stall, ("stall",)),
    "reward abstains": Fault(abstaining, ("reward_abstains",)),
    "policy unmoved": Fault(unmoved, ("policy_unmoved",), is_from_start=True),
}


def faulty(name: str, seed: int, steps: int = 260) -> tuple[Run, int]:
    """A healthy run into which the fault comes; and the step at which it does."""
    run = healthy(seed, steps)
    rng = np.random.default_rng([seed, list(FAULTS).index(name)])
    onset = 0 if FAULTS[name].is_from_start else int(rng.integers(80, 130))
    FAULTS[name].apply(run, onset, rng)
    return run, onset
