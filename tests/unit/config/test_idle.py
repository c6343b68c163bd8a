"""Settings that do nothing beside others are refused or said (issue 14)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.trainers.systems import same_weights, tiny_stage, tiny_system, train, weights

from trimtab.config import Recipe, RLConfig, build_recipe, load_recipe
from trimtab.config.idle import _RULES
from trimtab.config.schema import key_names
from trimtab.errors import ConfigError

BASE = {"data": "p.json", "rewards": ["length"]}


def said(tree: dict[str, Any]) -> list[str]:
    """The warnings of a recipe; a refusal counts as one."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            build_recipe(tree)
        except ConfigError as error:
            return [str(error)]
    return [str(one.message) for one in found]


def rl(**keys: Any) -> dict[str, Any]:
    return {"rl": {**BASE, **keys}}


# (recipe, the key that does nothing): one for every key of a rule, and the same key where it does something.
IDLE: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    (rl(clip={"ratio": 10.0, "high": 0.28}), "rl.clip.high", rl(clip={"high": 0.28})),
    (rl(clip={"ratio": 10.0, "low": 0.1}), "rl.clip.low", rl(clip={"low": 0.1})),
    (rl(loss="cispo", clip={"ratio": 5.0}), "rl.clip.ratio", rl(clip={"ratio": 5.0})),
    (rl(algorithm="cispo", clip={"low": 0.1}), "rl.clip.low", rl(algorithm="dapo", clip={"low": 0.1})),
    (rl(algorithm="cispo", clip={"high": 0.1}), "rl.clip.high", rl(algorithm="dapo", clip={"high": 0.1})),
    (rl(loss="cispo", clip={"dual": 3.0}), "rl.clip.dual", rl(clip={"dual": 3.0})),
    (rl(loss="cispo", ratio="sequence"), "rl.ratio", rl(ratio="sequence")),
    (rl(clip={"ratio_max": 4.0}), "rl.clip.ratio_max", rl(loss="cispo", clip={"ratio_max": 4.0})),
    *(
        (
            rl(algorithm="ppo", ppo={"critic": "shared", key: value}),
            f"rl.ppo.{key}",
            rl(algorithm="ppo", ppo={"critic": "separate", key: value}),
        )
        for key, value in (
            ("critic_warmup_steps", 5),
            ("critic_learning_rate", 1e-5),
            ("critic_init", "policy"),
        )
    ),
    (rl(advantage={"scale": "none", "eps": 1e-4}), "rl.advantage.eps", rl(advantage={"eps": 1e-4})),
    (
        rl(algorithm="ppo", dynamic_sampling={"enabled": True}),
        "rl.dynamic_sampling.enabled",
        rl(dynamic_sampling={"enabled": True}),
    ),
    (
        rl(dynamic_sampling={"max_rounds": 9}),
        "rl.dynamic_sampling.max_rounds",
        rl(algorithm="dapo", dynamic_sampling={"max_rounds": 9}),
    ),
    (rl(overlong={"penalty": 2.0}), "rl.overlong.penalty", rl(overlong={"penalty": 2.0, "buffer": 9})),
    (
        rl(importance_correction="none", importance_cap=3.0),
        "rl.importance_cap",
        rl(importance_cap=3.0),
    ),
    *(
        (rl(kl={key: value}), f"rl.kl.{key}", rl(kl={key: value, "controller": "clipped"}))
        for key, value in (
            ("target_per_token", 0.2),
            ("target_per_sequence", 6.0),
            ("horizon", 100),
            ("smoothing", 0.5),
            ("min_coef", 1e-5),
            ("max_coef", 1.0),
        )
    ),
    (
        rl(kl={"controller": "clipped", "target_per_token": 0.2, "target_per_sequence": 6.0}),
        "rl.kl.target_per_token",
        rl(kl={"controller": "clipped", "target_per_token": 0.2}),
    ),
    (rl(kl={"coef": 0.0, "estimator": "k2"}), "rl.kl.estimator", rl(kl={"estimator": "k2"})),
    (rl(kl={"coef": 0.0, "placement": "reward"}), "rl.kl.placement", rl(kl={"placement": "reward"})),
    (rl(reference_mix=0.5), "rl.reference_mix", rl(reference_mix=0.5, reference_refresh_steps=4)),
    (rl(eval_every=5), "rl.eval_every", rl(eval_every=5, hidden_data="h.json")),
    (
        rl(eval_prompts=5, hidden_data="h.json"),
        "rl.eval_prompts",
        rl(eval_prompts=5, eval_every=5, hidden_data="h.json"),
    ),
    (
        rl(hidden_rewards=["sales"], hidden_data="h.json"),
        "rl.hidden_rewards",
        rl(hidden_rewards=["sales"], eval_every=5, hidden_data="h.json"),
    ),
    (rl(steps=5, epochs=2), "rl.epochs", rl(epochs=2)),
    *(
        (
            {t: {"data": "p.jsonl", "steps": 5, "epochs": 2}},
            f"{t}.epochs",
            {t: {"data": "p.jsonl", "epochs": 2}},
        )
        for t in ("sft", "reward_model", "process_reward")
    ),
    (
        {"process_reward": {"data": "p.jsonl", "rows": 9}},
        "process_reward.rows",
        {"process_reward": {"data": "task:arithmetic", "rows": 9}},
    ),
    (
        {**rl(), "eval": {"tie_margin": 0.1}},
        "eval.tie_margin",
        {**rl(), "eval": {"tie_margin": 0.1, "judge": "sales_quality"}},
    ),
    (
        {**rl(), "monitor": {"heal": {"max_notches": 2}}},
        "monitor.heal.max_notches",
        {**rl(), "monitor": {"guard": "heal", "heal": {"max_notches": 2}}},
    ),
    *(
        (
            {**rl(), "rollout": {"engine": "generate", key: value}},
            f"rollout.{key}",
            {**rl(), "rollout": {key: value}},
        )
        for key, value in (
            ("cache", "torch"),
            ("kv_memory_gb", 1.0),
            ("cuda_graphs", False),
            ("max_rows", 8),
        )
    ),
    (
        {"sft": {"data": "p.jsonl"}, "rollout": {"engine": "generate"}},
        "rollout.engine",
        {**rl(), "rollout": {"engine": "generate"}},
    ),
    (
        rl(rewards=[{"name": "length"}, {"name": "no_promise", "gate": True, "weight": 2.0}]),
        "weight of the reward 'no_promise'",
        rl(rewards=[{"name": "length", "weight": 2.0}, {"name": "no_promise", "gate": True}]),
    ),
]


@pytest.mark.parametrize(
    ("tree", "key", "other"), IDLE, ids=[f"{n}-{case[1]}" for n, case in enumerate(IDLE)]
)
def test_it_is_said_where_it_does_nothing(tree: dict[str, Any], key: str, other: dict[str, Any]) -> None:
    """One sentence that names the key and what it is beside; silence where it does something."""
    assert any(key in sentence for sentence in said(tree)), said(tree)
    assert not any(key in sentence for sentence in said(other)), said(other)


def test_every_rule_is_gone_over() -> None:
    """A rule without a case above proves nothing; every key of a rule is a key of a recipe."""
    cases = {key for _, key, _ in IDLE}
    known = set(key_names(Recipe))
    for rule in _RULES:
        for key in rule.keys:
            if not key.endswith(".*"):
                assert key in known, key
                assert rule.is_for_switching or key in cases, key


def test_contradictions_are_refused() -> None:
    """Two things are asked for of which only one can be had: no run is started with that."""
    for tree in (
        rl(algorithm="ppo", ppo={"critic": "shared", "critic_warmup_steps": 3}),
        rl(algorithm="ppo", dynamic_sampling={"enabled": True}),
    ):
        with pytest.raises(ConfigError, match="has no effect"):
            build_recipe(tree)


def test_what_a_preset_says_is_nobodys_mistake() -> None:
    """A preset sets keys too; only what the user wrote is spoken of. Distances beat the preset's factor."""
    for algorithm in ("grpo", "dapo", "gspo", "rloo", "deepseek_r1", "cispo", "ppo"):
        assert said(rl(algorithm=algorithm)) == []
    assert said(rl(algorithm="grpo", clip={"high": 0.28})) == []


def test_settings_for_switching_are_spoken_of_only_when_given_now(tmp_path: Path) -> None:
    """A recipe may hold [rl.ppo] for `--rl.algorithm ppo`; with a GRPO command line it is a mistake."""
    file = tmp_path / "r.toml"
    file.write_text('[rl]\ndata = "p.json"\nrewards = ["length"]\n[rl.ppo]\ngae_lambda = 1.0\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_recipe(file)
        load_recipe(file, [("rl.algorithm", "ppo")])
    with pytest.warns(UserWarning, match=r"rl\.ppo\.gae_lambda has no effect: rl\.algorithm is not 'ppo'"):
        load_recipe(file, [("rl.ppo.gae_lambda", "0.9")])


def test_recipes_that_are_shipped_say_nothing() -> None:
    """None of them has a setting that does nothing."""
    files = sorted((Path(__file__).parents[3] / "recipes").rglob("*.toml"))
    assert files
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for file in files:
            load_recipe(file)


def test_sequence_sum_with_a_truncated_nucleus_warns() -> None:
    """Trap 9: the kept mass is multiplied over all tokens; exact sampling makes it a plain ratio."""
    for keys in ({"top_p": 0.9}, {"top_p": 1.0, "top_k": 50}):
        assert (
            "long completions weigh next to nothing"
            in said(rl(importance_correction="sequence_sum", **keys))[0]
        )
    assert said(rl(importance_correction="sequence_sum", top_p=1.0)) == []
    assert said(rl(importance_correction="sequence_mean", top_p=0.9)) == []


TRAINED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"clip": {"ratio": 1.01}}, {"clip": {"ratio": 1.01, "high": 0.9, "low": 0.9}}),
    ({"clip": {"high": 0.01}}, {"clip": {"high": 0.01, "ratio_max": 1.01}}),
    ({"advantage": {"scale": "none"}}, {"advantage": {"scale": "none", "eps": 0.5}}),
    ({"overlong": {}}, {"overlong": {"penalty": 9.0}}),
    ({"importance_correction": "none"}, {"importance_correction": "none", "importance_cap": 1.01}),
    ({"loss": "cispo"}, {"loss": "cispo", "ratio": "sequence", "clip": {"dual": 1.5}}),
    ({"kl": {"coef": 0.0}}, {"kl": {"coef": 0.0, "estimator": "k2", "horizon": 2, "max_coef": 1.0}}),
]


@pytest.mark.parametrize(("keys", "more"), TRAINED)
def test_it_really_does_nothing(keys: dict[str, Any], more: dict[str, Any], tmp_path: Path) -> None:
    """The rules are true: with and without the idle setting the trained weights are the same, bit for bit."""
    found = []
    small = {"num_prompts": 2, "num_generations": 4, "max_new_tokens": 4, "steps": 1, "num_minibatches": 4}
    for number, one in enumerate((keys, more)):
        config = RLConfig.model_validate(
            {**BASE, "rewards": [{"name": "length"}], **small, "learning_rate": 1e-2, **one}
        )
        torch.manual_seed(0)
        system = tiny_system(config)
        train(system, config, tiny_stage(tmp_path / str(number)))
        found.append(weights(system.policy))
    assert same_weights(*found)
