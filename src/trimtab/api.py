"""The Python names of R30: a thin layer over the same trainers that the recipes use.

Example:
    >>> from trimtab import GRPOTrainer, load_prompts
    >>> trainer = GRPOTrainer("output/sales_sft", "output/sales_rm", {"learning_rate": 3e-6})
    >>> trainer.train(load_prompts("data/prompts/sales_prompts.json"), num_epochs=1)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.config import Recipe, RLConfig, build_recipe
from trimtab.data import PromptStream
from trimtab.data import load_prompts as load_prompt_rows
from trimtab.distributed.build import build_system
from trimtab.errors import ConfigError, nearest
from trimtab.models.choice import follow_choices
from trimtab.models.load import save_model
from trimtab.monitor import Guard, RLMonitor, build_kl_controller
from trimtab.rewards.learned import LearnedReward
from trimtab.rewards.registry import describe_sandbox
from trimtab.runs import RunWriter, TerminalView, named_stats
from trimtab.trainers.cadence import Cadence
from trimtab.trainers.grpo import grpo_step
from trimtab.trainers.measure import num_trained
from trimtab.trainers.ppo import ppo_step
from trimtab.trainers.seeds import derive_seed
from trimtab.trainers.shaping import RewardShaping
from trimtab.trainers.stage import HasState, Stage, total_steps
from trimtab.types import Prompt

# Keys of the config argument that are spelled differently in a recipe.
_KEYS = {
    "kl_coef": ("kl", "coef"),
    "clip_ratio": ("clip", "ratio"),
    "num_samples_per_prompt": ("num_generations",),
    "batch_size": ("num_prompts",),
}
_MODEL_KEYS = ("dtype", "device", "lora")
_OTHER_KEYS = ("seed", "output", "rewards", "guard", "monitor", *_MODEL_KEYS)


class PromptText(str):
    """The text of a prompt that still knows its ``row``: earlier turns, and the columns that rewards read."""

    row: Prompt


def load_prompts(path: str, columns: Mapping[str, str] | None = None) -> list[str]:
    """Return the prompts of a file as strings: a JSON list of strings, or any shape of R31 and R33.

    A string is the last turn; a trainer that gets it trains on the whole row, with its other columns.

    Args:
        path: a file, a directory or a hub name.
        columns: names and the paths of what they hold: ``{"answer": "reward_model.ground_truth"}``.

    Raises:
        DataError: the file is missing, empty or malformed, or a path leads to nothing.
    """
    return [_text_of(prompt) for prompt in load_prompt_rows(path, columns=columns)]


def _text_of(prompt: Prompt) -> PromptText:
    text = PromptText(prompt.text)
    text.row = prompt
    return text


def load_reward_model(path: str) -> LearnedReward:
    """Return the reward model of a directory: ``get_reward(text) -> float`` and batched ``score(samples)``.

    Raises:
        ModelError: the directory holds no reward model.
    """
    return LearnedReward(path)


class _Trainer:
    """What GRPOTrainer and PPOTrainer share; use one of those."""

    algorithm = "grpo"

    def __init__(
        self,
        policy_model_path: str,
        reward_model_path: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = dict(config or {})
        self.recipe = _recipe(self.algorithm, policy_model_path, reward_model_path, self.config)
        assert self.recipe.rl is not None
        self.rl = self.recipe.rl
        self.system = build_system(self.recipe, policy_model_path, reward_model_path)
        self.monitor = RLMonitor()
        self.kl_controller = build_kl_controller(self.rl.kl)
        self.shaping = RewardShaping(self.rl, self.system.reward)
        self.step = 0
        self.num_steps = 0
        facts = describe_sandbox(self.rl.rewards)
        run = RunWriter(self.recipe.paths.run, self.recipe.resolved(), facts=facts)
        follow_choices({}, run.note_choices)
        guard = Guard(config=self.recipe.monitor)
        self.stage = Stage("rl", run, TerminalView(0, "rl", samples=0), guard, self.rl.checkpoint_every)
        self.trained: dict[str, HasState] = {
            "policy": self.system.policy,
            "kl_controller": self.kl_controller,
            "shaping": self.shaping,
        }
        if self.system.critic is not None:
            self.trained["critic"] = self.system.critic

    def train_step(self, prompts: Sequence[str]) -> dict[str, float]:
        """Sample, score and update once on ``prompts``; return the stats of R13 and R17.

        Raises:
            DivergedError: the guard stopped the run: several updates in a row were not finite, as a rule.
        """
        rl = self.rl.model_copy(update={"num_prompts": len(prompts)})
        stream = PromptStream(_as_prompts(prompts), derive_seed(self.recipe.seed, "step", self.step))
        cadence = Cadence(rl=rl, stage=self.stage, seed=self.recipe.seed)
        # Where nobody has said how many steps there will be, there is always one more to save for.
        steps = self.num_steps if self.step < self.num_steps else self.step + 2
        cadence.evaluate_start(self.step, self.system, self.trained)
        now, at = cadence.begin(
            self.step, max(self.num_steps, self.step + 1), self.system, self.kl_controller
        )
        run_step = ppo_step if self.algorithm == "ppo" else grpo_step
        metrics, records = run_step(self.system, stream, now, self.stage, at, self.shaping)
        cadence.after_step(self.step, metrics, records)
        cadence.follow_kl(self.kl_controller, self.step, metrics, num_samples=num_trained(records))
        cadence.follow_constraints(self.shaping, self.step)
        cadence.evaluate_and_save(self.step, steps, self.system, self.trained)
        self.step += 1
        stats = named_stats(metrics)
        self.monitor.log(stats)
        return stats

    def train(self, prompts: Sequence[str], num_epochs: int = 1) -> list[dict[str, float]]:
        """Train for ``num_epochs`` passes over ``prompts``, reshuffled each time; return every step's stats.

        Raises:
            ConfigError: fewer prompts than one batch, or no epoch.
            DivergedError: several updates in a row were not finite.
        """
        size = self.rl.num_prompts
        if num_epochs < 1:
            raise ConfigError(f"num_epochs = {num_epochs} trains nothing; give at least 1.")
        if len(prompts) < size:
            raise ConfigError(
                f"There are {len(prompts)} prompts but batch_size = {size}; set batch_size to at most "
                f"{max(len(prompts), 1)}."
            )
        stream = PromptStream(list(prompts), derive_seed(self.recipe.seed, "prompts"))
        steps = total_steps(len(prompts), size, num_epochs, None)
        self.num_steps = self.step + steps
        self.stage.view = TerminalView(self.num_steps, "rl", samples=self.recipe.monitor.samples)
        try:
            return [self.train_step(stream.next_batch(size)) for _ in range(steps)]
        finally:
            self.stage.view.close()

    def save(self, path: str | None = None) -> str:
        """Save the policy where transformers loads it; return the directory (R3's default for None)."""
        target = path or self.recipe.paths.policy
        keep = self.recipe.model.keeps_adapter
        save_model(self.system.policy_model, self.system.tokenizer, target, keep_adapter=keep)
        return target


class GRPOTrainer(_Trainer):
    """GRPO from Python: ``GRPOTrainer(policy_model_path, reward_model_path, config).train(prompts, 1)``.

    ``config`` keys: learning_rate, kl_coef, clip_ratio, num_samples_per_prompt, batch_size, max_new_tokens,
    temperature; also any key of ``[rl]``, ``seed``, ``output``, ``rewards``, ``dtype``, ``device``, ``lora``
    (a table as ``[model.lora]``), ``monitor`` (a table as ``[monitor]``) and ``guard``, its first key:
    ``observe``, ``protect`` (default) or ``heal``.

    Raises:
        ConfigError: an unknown key (the nearest one is named) or a value out of range.
        ModelError: a model cannot be loaded.
    """

    algorithm = "grpo"


class PPOTrainer(_Trainer):
    """PPO from Python; see GRPOTrainer. The critic starts from the reward model."""

    algorithm = "ppo"


def _recipe(algorithm: str, policy: str, reward_model: str | None, config: Mapping[str, Any]) -> Recipe:
    """The recipe that a config dictionary stands for."""
    known = [*_KEYS, *_OTHER_KEYS, *_rl_fields()]
    rl: dict[str, Any] = {"algorithm": algorithm, "data": "prompts", "reward_model": reward_model}
    # Whole tables first: `kl_coef` beside `kl` is one key of that table, whichever was written first.
    for key, value in sorted(copy.deepcopy(dict(config)).items(), key=lambda item: item[0] in _KEYS):
        if key not in known:
            raise ConfigError(f"config has an unknown key '{key}'{nearest(key, known)}.")
        if key in _OTHER_KEYS:
            continue
        *parents, last = _KEYS.get(key, (key,))
        table = rl.setdefault(parents[0], {}) if parents else rl
        table[last] = value
    if reward_model is None and "rewards" not in config:
        raise ConfigError("Without a reward_model_path, config needs 'rewards', such as ['sales'].")
    rl["rewards"] = config.get("rewards", ["reward_model"])
    output = Path(config.get("output", f"output/sales_{algorithm}"))
    return build_recipe(
        {
            "name": algorithm,
            "seed": config.get("seed", 42),
            "model": {"path": policy, **{key: config[key] for key in _MODEL_KEYS if key in config}},
            "paths": {"policy": str(output), "run": str(output.with_name(f"{output.name}_run"))},
            "monitor": {**config.get("monitor", {}), **{k: config[k] for k in ("guard",) if k in config}},
            "rl": {key: value for key, value in rl.items() if value is not None},
        },
        where="config",
    )


def _rl_fields() -> list[str]:
    return [name for name in RLConfig.model_fields if name not in ("algorithm", "data", "rewards")]


def _as_prompts(prompts: Sequence[str]) -> list[Prompt]:
    return [
        text.row if isinstance(text, PromptText) else Prompt(str(i), ({"role": "user", "content": text},))
        for i, text in enumerate(prompts)
    ]
