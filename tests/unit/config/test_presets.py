"""The numbers of the specification come out of the presets, and the layers override one another in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trimtab.config import ALGORITHMS, PRESETS, RLConfig, build_recipe, load_recipe
from trimtab.errors import ConfigError


def rl_of(algorithm: str | None = None, **keys: Any) -> RLConfig:
    """The ``[rl]`` section of a minimal recipe."""
    named = {} if algorithm is None else {"algorithm": algorithm}
    recipe = build_recipe({"rl": {"data": "p", "rewards": ["sales"], **named, **keys}})
    assert recipe.rl is not None
    return recipe.rl


def test_everyday_grpo() -> None:
    """R11: the defaults of GRPO, number by number."""
    rl = rl_of()
    assert rl == rl_of("grpo")
    assert (rl.learning_rate, rl.kl.coef, rl.clip.ratio) == (3e-6, 0.001, 10.0)
    assert (rl.num_generations, rl.num_prompts, rl.max_new_tokens) == (8, 4, 256)
    assert (rl.temperature, rl.top_p, rl.max_grad_norm) == (1.0, 0.9, 1.0)
    assert (rl.advantage.baseline, rl.advantage.scale, rl.advantage.eps) == ("group_mean", "group_std", 1e-6)
    assert (rl.kl.placement, rl.kl.estimator) == ("loss", "k3")


def test_deepseek_r1() -> None:
    """R10: kl 0.001, clip factor 10, lr 3e-6, 16 × 32, 32768 tokens, T 1, reference every 400 steps."""
    rl = rl_of("deepseek_r1")
    assert (rl.kl.coef, rl.clip.ratio, rl.learning_rate) == (0.001, 10.0, 3e-6)
    assert (rl.num_generations, rl.num_prompts, rl.max_new_tokens) == (16, 32, 32_768)
    assert (rl.temperature, rl.reference_refresh_steps) == (1.0, 400)


def test_ppo() -> None:
    """R6: every default of the PPO recipe that the specification names."""
    recipe = build_recipe({"rl": {"algorithm": "ppo", "data": "p", "rewards": ["sales"]}})
    rl = recipe.rl
    assert rl is not None
    batch = rl.num_prompts * rl.num_generations
    assert (rl.learning_rate, batch, batch // rl.num_minibatches) == (1e-6, 16, 4)
    assert (rl.num_generations, rl.num_epochs_per_batch, rl.epochs) == (1, 4, 3)
    assert (rl.clip.low, rl.clip.high, rl.clip.ratio) == (0.2, 0.2, None)
    assert (rl.ppo.value_clip, rl.ppo.vf_coef, rl.ppo.target_kl) == (0.2, 0.1, 0.1)
    assert (rl.kl.placement, rl.kl.estimator, recipe.seed) == ("reward", "kl", 42)
    assert (rl.max_new_tokens, rl.temperature, rl.top_p) == (256, 0.8, 0.9)
    assert rl.ppo.whiten_advantages
    assert (rl.ppo.critic, rl.ppo.critic_init) == ("separate", "reward_model")


@pytest.mark.parametrize("estimator", ["kl", "abs", "mse", "full"])
def test_every_kl_kind_of_ppo_is_accepted(estimator: str) -> None:
    """R6: the KL in the reward may be `kl`, `abs`, `mse` or `full`."""
    assert rl_of("ppo", kl={"estimator": estimator}).kl.estimator == estimator


def test_what_the_relatives_change() -> None:
    """R9: each named preset says what sets it apart, and nothing of another one."""
    dr_grpo, dapo, gspo = rl_of("dr_grpo"), rl_of("dapo"), rl_of("gspo")
    assert (dr_grpo.advantage.scale, dr_grpo.reduction) == ("none", "fixed_length")
    assert (dapo.clip.low, dapo.clip.high, dapo.reduction) == (0.2, 0.28, "token_mean")
    assert dapo.dynamic_sampling.enabled
    assert dapo.overlong.buffer > 0
    assert dapo.kl.coef == 0
    assert (gspo.ratio, gspo.reduction, gspo.clip.low, gspo.clip.high) == (
        "sequence",
        "sequence_mean",
        3e-4,
        4e-4,
    )
    rloo, reinforce = rl_of("rloo"), rl_of("reinforce_plus_plus")
    assert (rloo.advantage.baseline, rloo.advantage.scale, rloo.kl.placement) == (
        "leave_one_out",
        "none",
        "reward",
    )
    assert (reinforce.advantage.baseline, reinforce.advantage.scale) == ("batch_mean", "batch_std")
    assert (rl_of("cispo").loss, rl_of("cispo").clip.ratio_max) == ("cispo", 5.0)


def test_every_algorithm_has_a_preset_that_loads() -> None:
    """R9: presets and algorithm names are the same set."""
    assert set(PRESETS) == set(ALGORITHMS)
    for algorithm in ALGORITHMS:
        assert rl_of(algorithm).algorithm == algorithm


RECIPE = """
[rl]
algorithm = "ppo"
data = "p.json"
rewards = ["sales"]
temperature = 0.7

[rl.kl]
coef = 0.02
"""


def test_order_of_the_layers(tmp_path: Path) -> None:
    """R6: defaults < preset < file < override; a table of the file changes only the keys that it names."""
    path = tmp_path / "r.toml"
    path.write_text(RECIPE)
    rl = load_recipe(path, [("rl.num_prompts", "4"), ("rl.kl.target_per_token", "0.3")]).rl
    assert rl is not None
    assert rl.top_p == 0.9  # the default
    assert rl.num_epochs_per_batch == 4  # the preset
    assert rl.temperature == 0.7  # the file beats the preset's 0.8
    assert (rl.kl.coef, rl.kl.placement, rl.kl.estimator) == (0.02, "reward", "kl")
    assert (rl.num_prompts, rl.kl.target_per_token) == (4, 0.3)  # the override


def test_distances_beat_the_factor_of_a_preset() -> None:
    """R9: clip distances that are asked for are not hidden by the preset's factor. Both: the factor."""
    assert rl_of("grpo", clip={"high": 0.3}).clip.model_dump() == {
        "low": 0.2, "high": 0.3, "ratio": None, "dual": None, "ratio_max": 5.0,
    }  # fmt: skip
    assert rl_of("grpo", clip={"high": 0.3, "ratio": 4.0}).clip.ratio == 4.0
    assert rl_of("grpo", clip={"dual": 3.0}).clip.ratio == 10.0
    assert rl_of("grpo").clip.ratio == 10.0  # the preset itself is untouched


def test_an_overridden_algorithm_brings_its_preset(tmp_path: Path) -> None:
    """R6: `--rl.algorithm ppo` on a GRPO recipe gives PPO's defaults, and keeps what the file says."""
    path = tmp_path / "r.toml"
    path.write_text(RECIPE.replace('"ppo"', '"grpo"'))
    rl = load_recipe(path, [("rl.algorithm", "ppo")]).rl
    assert rl is not None
    assert (rl.learning_rate, rl.num_prompts, rl.temperature, rl.kl.coef) == (1e-6, 16, 0.7, 0.02)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"num_generations": 1}, "nothing to compare"),
        ({"kl": {"estimator": "k1"}}, "wrong gradient in the loss"),
        ({"kl": {"coef": 0.0, "controller": "adaptive", "estimator": "k1"}}, "wrong gradient in the loss"),
        ({"overlong": {"buffer": 300}}, "longer than max_new_tokens"),
        ({"rewards": []}, "rewards is empty"),
        ({"learning_rate": float("inf")}, "finite"),
        ({"learning_rate": float("nan")}, "rl.learning_rate"),
        ({"top_p": 0.0}, "rl.top_p"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys: dict[str, Any], words: str) -> None:
    """Trap 1 and issue 2: what would train wrongly, or not at all, is one sentence before anything loads."""
    with pytest.raises(ConfigError, match=words):
        rl_of("grpo", **keys)


def test_one_completion_per_prompt_with_a_batch_baseline() -> None:
    """R9: REINFORCE++ compares with the whole batch, so single completions are fine."""
    assert rl_of("reinforce_plus_plus", num_generations=1).num_generations == 1
