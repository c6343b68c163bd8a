"""The golden runs: 20 steps on a fixed tiny model with scripted completions and an exact reward.

Nothing is sampled: a number that differs in its last digit on another CPU would flip a token and with it
the rest of the run. What remains is arithmetic that moves smoothly. To record the figures again, after a
change that is meant to move them (say in the commit why they moved)::

    python -m tests.golden.runs        # from the repository's root
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from tests.unit.models.tiny import tiny_tokenizer
from tests.unit.trainers.systems import rl_config, tiny_stage, tiny_system, train

from trimtab.rollout.scripted import ScriptedEngine
from trimtab.runs import metrics_table

STEPS = 20
RECORDED = ("loss/total", "train/grad_norm")
_SHARED: dict[str, Any] = {
    "steps": STEPS,
    "num_minibatches": 2,
    "learning_rate": 3e-4,
    "max_new_tokens": 12,
    "importance_correction": "none",  # scripted completions have no true sampling probability
}
SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": {**_SHARED, "num_prompts": 4, "num_generations": 4, "kl": {"coef": 0.05}},
    "ppo": {**_SHARED, "num_prompts": 8, "num_epochs_per_batch": 2, "lr_schedule": "cosine"},
}


def script(prompt: str, generation: int) -> str:
    """A completion of 4 to 13 characters: some end by themselves, some are cut at 12 tokens."""
    seed = sum(map(ord, prompt)) + 7 * generation
    return "".join(chr(97 + (seed * (i + 3) + i * i) % 26) for i in range(4 + seed % 10))


def fixed_weights(model: torch.nn.Module) -> None:
    """Give every matrix weights that depend on arithmetic only: sines of integers, in fp64."""
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            if parameter.ndim >= 2:
                index = torch.arange(parameter.numel(), dtype=torch.float64)
                parameter.copy_((0.2 * torch.sin(index * index * 0.37 + index + number)).view_as(parameter))


def run(algorithm: str, noise: float = 0.0) -> dict[str, list[float]]:
    """Figures of each step; ``noise`` perturbs the start relatively, as another CPU's rounding would."""
    rl = rl_config(algorithm, **SETTINGS[algorithm])
    system = tiny_system(rl, engine=ScriptedEngine(script, tiny_tokenizer()))
    models = [system.policy_model, system.reference.model]
    if system.critic is not None:
        critic: Any = system.critic
        models.append(critic.module.trunk)
    for model in models:
        fixed_weights(model)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in system.policy_model.parameters():
            parameter.mul_(1 + noise * torch.randn(parameter.shape, generator=draw))
    with tempfile.TemporaryDirectory() as folder:
        train(system, rl, tiny_stage(Path(folder)))
        table = metrics_table(folder, "rl")
    return {name: [float(value or 0.0) for value in table[name]] for name in RECORDED}


def path_of(algorithm: str) -> Path:
    """Where the figures of an algorithm are kept."""
    return Path(__file__).with_name(f"{algorithm}.json")


if __name__ == "__main__":
    for name in SETTINGS:
        path_of(name).write_text(json.dumps(run(name), indent=1) + "\n", encoding="utf-8")
        print(f"wrote {path_of(name)}")
