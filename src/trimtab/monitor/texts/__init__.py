"""Symptom, cause and remedy of each alarm, in English and in Chinese (R14, R18).

Every remedy names a key of the recipe, so that it can be tried with ``trimtab run RECIPE --KEY VALUE``.
"""

from trimtab.monitor.texts.explanation import Explanation, Language
from trimtab.monitor.texts.rewards import REWARDS
from trimtab.monitor.texts.training import TRAINING

__all__ = ["REWARDS", "TRAINING", "Explanation", "Language"]
