"""The stages of a recipe, in order, resumable: SFT → reward model → RL → evaluation."""

from trimtab.pipeline.run import run_pipeline
from trimtab.pipeline.sources import prompts_for

__all__ = ["prompts_for", "run_pipeline"]
