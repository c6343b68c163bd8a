"""Settings that do nothing beside others: said when a recipe is read, and refused where they contradict.

Only keys that the user wrote count; what a preset or a default says is nobody's mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.config.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Rule:
    """``keys`` (a name, or a table with ``.*``) do nothing where ``is_idle``; ``because`` says beside what.

    ``is_refused``: the recipe asks for two things of which only one can be had, so it is an error.
    ``is_for_switching``: a recipe may hold them for when it is switched by ``--KEY``; they are spoken of only
    where they themselves come from the command line.
    """

    keys: tuple[str, ...]
    is_idle: Callable[[Recipe], bool]
    because: str
    is_refused: bool = False
    is_for_switching: bool = False

    def matches(self, key: str) -> bool:
        """Whether ``key`` is one of the rule's keys, or lies in one of its tables."""
        return any(
            key == own or (own.endswith(".*") and key.startswith(own[:-1]) and key not in self.keys)
            for own in self.keys
        )


def _rl(test: Callable[[Any], bool]) -> Callable[[Recipe], bool]:
    return lambda recipe: recipe.rl is not None and test(recipe.rl)


_RULES: tuple[Rule, ...] = (
    Rule(
        ("rl.clip.low", "rl.clip.high"),
        _rl(lambda rl: rl.clip.ratio is not None),
        "rl.clip.ratio keeps the ratio in [1/c, c] instead; remove one or the other",
    ),
    Rule(
        ("rl.clip.low", "rl.clip.high", "rl.clip.ratio", "rl.clip.dual", "rl.ratio"),
        _rl(lambda rl: rl.loss == "cispo"),
        "rl.loss = 'cispo' has a ratio per token and only rl.clip.ratio_max",
    ),
    Rule(
        ("rl.clip.ratio_max",),
        _rl(lambda rl: rl.loss != "cispo"),
        "it is for rl.loss = 'cispo'; the clip is rl.clip.low and rl.clip.high, or rl.clip.ratio",
    ),
    Rule(
        ("rl.ppo.*",),
        _rl(lambda rl: rl.algorithm != "ppo"),
        "rl.algorithm is not 'ppo'",
        is_for_switching=True,
    ),
    Rule(
        ("rl.ppo.critic_warmup_steps", "rl.ppo.critic_learning_rate", "rl.ppo.critic_init"),
        _rl(lambda rl: rl.algorithm == "ppo" and rl.ppo.critic == "shared"),
        "a shared critic has one trunk and one optimizer with the policy; use rl.ppo.critic = 'separate'",
        is_refused=True,
    ),
    Rule(
        ("rl.learning_rate",),
        _rl(lambda rl: rl.algorithm == "ppo" and rl.ppo.policy_learning_rate is not None),
        "rl.ppo.policy_learning_rate takes its place; remove one of them",
        is_for_switching=True,
    ),
    Rule(
        ("rl.advantage.*",),
        _rl(lambda rl: rl.algorithm == "ppo"),
        "PPO takes its advantages from the critic; see rl.ppo.gae_lambda and rl.ppo.whiten_advantages",
        is_for_switching=True,
    ),
    Rule(
        ("rl.advantage.eps",),
        _rl(lambda rl: rl.advantage.scale == "none" and rl.advantage.components == "sum"),
        "with rl.advantage.scale = 'none' nothing is divided",
    ),
    Rule(
        ("rl.dynamic_sampling.enabled",),
        _rl(lambda rl: rl.dynamic_sampling.enabled and rl.num_generations == 1),
        "a group of rl.num_generations = 1 never varies, so all would be sampled again; turn it off",
        is_refused=True,
    ),
    Rule(
        ("rl.dynamic_sampling.max_rounds",),
        _rl(lambda rl: not rl.dynamic_sampling.enabled),
        "rl.dynamic_sampling.enabled is false",
    ),
    Rule(
        ("rl.overlong.penalty",),
        _rl(lambda rl: not rl.overlong.buffer),
        "rl.overlong.buffer = 0 turns the penalty off; give the tokens over which it grows",
    ),
    Rule(
        ("rl.importance_cap",),
        _rl(lambda rl: rl.importance_correction == "none"),
        "rl.importance_correction = 'none' weighs nothing",
    ),
    Rule(
        (
            *("rl.kl.target_per_token", "rl.kl.target_per_sequence", "rl.kl.horizon"),
            *("rl.kl.smoothing", "rl.kl.min_coef"),
        ),
        _rl(lambda rl: rl.kl.controller == "fixed"),
        "rl.kl.controller = 'fixed' follows no target; take 'adaptive' or 'clipped'",
    ),
    Rule(
        ("rl.kl.max_coef",),
        lambda r: r.rl is not None and r.rl.kl.controller == "fixed" and r.monitor.guard != "heal",
        "rl.kl.controller = 'fixed' and nothing raises the coefficient",
    ),
    Rule(
        ("rl.kl.target_per_token",),
        _rl(lambda rl: rl.kl.controller != "fixed" and rl.kl.target_per_sequence is not None),
        "rl.kl.target_per_sequence takes its place; remove one of them",
    ),
    Rule(
        ("rl.kl.estimator", "rl.kl.placement"),
        lambda r: (
            r.rl is not None
            and r.rl.kl.coef == 0
            and r.rl.kl.controller == "fixed"
            and r.monitor.guard != "heal"
        ),
        "rl.kl.coef = 0 charges no KL; it is only measured, by k3",
    ),
    Rule(
        ("rl.reference_mix",),
        _rl(lambda rl: not rl.reference_refresh_steps),
        "rl.reference_refresh_steps = 0 never moves the reference",
    ),
    Rule(
        ("rl.eval_every", "rl.eval_prompts", "rl.hidden_rewards"),
        _rl(lambda rl: rl.hidden_data is None),
        "there is no rl.hidden_data to evaluate on while training",
    ),
    Rule(
        ("rl.eval_prompts", "rl.hidden_rewards"),
        _rl(lambda rl: rl.hidden_data is not None and not rl.eval_every),
        "rl.eval_every = 0 never evaluates while training",
    ),
    Rule(
        ("rl.epochs",), _rl(lambda rl: rl.steps is not None), "rl.steps takes its place; remove one of them"
    ),
    *(
        Rule(
            (f"{table}.epochs",),
            lambda r, table=table: getattr(r, table) is not None and getattr(r, table).steps is not None,  # type: ignore[misc]
            f"{table}.steps takes its place; remove one of them",
        )
        for table in ("sft", "reward_model", "process_reward")
    ),
    Rule(
        ("process_reward.rows",),
        lambda r: r.process_reward is not None and not r.process_reward.data.startswith("task:"),
        "process_reward.data is a file, which is read whole",
    ),
    Rule(
        ("eval.tie_margin",),
        lambda r: r.eval is not None and (r.eval.judge is None or r.eval.judge.startswith("openai:")),
        "no judge of this recipe gives scores whose difference it could be",
    ),
    Rule(
        ("monitor.heal.*",),
        lambda r: r.monitor.guard == "protect",
        "monitor.guard = 'protect' acts on no alarm; take 'heal'",
    ),
    Rule(
        ("rollout.cache", "rollout.kv_memory_gb", "rollout.cuda_graphs", "rollout.max_rows"),
        lambda r: r.rollout.engine == "generate",
        "rollout.engine = 'generate' has caches and batches of its own",
    ),
    Rule(
        ("rollout.*",),
        lambda r: r.rl is None,
        "the recipe has no [rl] table, so nothing is sampled",
    ),
)


def idle_settings(
    recipe: Recipe, written: Sequence[str], overridden: Sequence[str] = ()
) -> list[tuple[str, bool]]:
    """A sentence for what the user's dotted keys do not do beside others, and whether it is an error.

    ``written`` are all keys of the recipe's data, ``overridden`` those of them that the command line gave.
    """
    found, spoken = [], set()
    for rule in (rule for rule in _RULES if rule.is_idle(recipe)):
        given = overridden if rule.is_for_switching else written
        keys = [key for key in given if rule.matches(key) and key not in spoken]
        spoken |= set(keys)
        if rule.is_refused:  # a recipe with every default written out contradicts nothing
            keys = [key for key in keys if key in overridden or not _is_default(recipe, key)]
        if keys:
            verb = "has" if len(keys) == 1 else "have"
            found.append((f"{' and '.join(keys)} {verb} no effect: {rule.because}", rule.is_refused))
    return [*found, *_idle_weights(recipe)]


def _is_default(recipe: Recipe, key: str) -> bool:
    """Whether a dotted key holds what it would hold if nobody had written it."""
    *parents, name = key.split(".")
    section: Any = recipe
    for parent in parents:
        section = getattr(section, parent, None)
    fields = getattr(type(section), "model_fields", {})
    return name in fields and getattr(section, name) == fields[name].get_default(call_default_factory=True)


def doubtful_settings(recipe: Recipe) -> list[str]:
    """A sentence for each pair of settings that do what they say, and are hardly meant."""
    rl = recipe.rl
    if rl is None or rl.importance_correction != "sequence_sum" or (rl.top_p == 1 and rl.top_k == 0):
        return []
    cut = f"rl.top_p = {rl.top_p:g}" if rl.top_p < 1 else f"rl.top_k = {rl.top_k}"
    return [
        f"rl.importance_correction = 'sequence_sum' with {cut} multiplies the kept mass of all tokens of a "
        "completion, so long completions weigh next to nothing; take 'token' or 'sequence_mean', or sample "
        "with rl.top_p = 1 and rl.top_k = 0"
    ]


def written_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of what a recipe's plain data says; a list counts as one."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from written_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _idle_weights(recipe: Recipe) -> list[tuple[str, bool]]:
    if recipe.rl is None:
        return []
    gates = [spec for spec in recipe.rl.rewards if spec.gate and "weight" in spec.model_fields_set]
    return [
        (f"weight of the reward '{spec.name}' has no effect: a gate is not added to the sum", False)
        for spec in gates
        if spec.weight != 1.0
    ]
