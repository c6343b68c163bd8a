"""Recipes: strict, frozen pydantic sections read from TOML. Imports no torch."""

from trimtab.config.algorithms import (
    ALGORITHMS,
    PRESETS,
    AdvantageConfig,
    ClipConfig,
    DynamicSamplingConfig,
    KLConfig,
    OverlongConfig,
    PPOConfig,
)
from trimtab.config.data import ProcessRewardConfig, RewardModelConfig, SFTConfig
from trimtab.config.evals import EvalConfig, MonitorConfig, ThresholdConfig
from trimtab.config.heal import GuardMode, HealConfig, Remedy
from trimtab.config.load import build_recipe, load_recipe
from trimtab.config.model import ModelConfig
from trimtab.config.recipe import STAGES, PathsConfig, Recipe, Stage
from trimtab.config.rl import ConstraintConfig, RewardSpec, RLConfig
from trimtab.config.train import TrainConfig

__all__ = [
    "ALGORITHMS",
    "PRESETS",
    "STAGES",
    "AdvantageConfig",
    "ClipConfig",
    "ConstraintConfig",
    "DynamicSamplingConfig",
    "EvalConfig",
    "GuardMode",
    "HealConfig",
    "KLConfig",
    "ModelConfig",
    "MonitorConfig",
    "OverlongConfig",
    "PPOConfig",
    "PathsConfig",
    "ProcessRewardConfig",
    "RLConfig",
    "Recipe",
    "Remedy",
    "RewardModelConfig",
    "RewardSpec",
    "SFTConfig",
    "Stage",
    "ThresholdConfig",
    "TrainConfig",
    "build_recipe",
    "load_recipe",
]
