"""The sales task: customer messages, composed answers, preference pairs, and the judge of the win rate.

Example:
    >>> from trimtab.tasks.sales import generate_requests, quality
    >>> request = generate_requests(1, seed=3)[0]
    >>> 0.0 <= quality(request.prompt, "您好！") <= 1.0
    True
"""

from __future__ import annotations

from trimtab.tasks.sales.content import SITUATIONS, products
from trimtab.tasks.sales.datasets import (
    generate_good_answers,
    generate_hidden_prompts,
    generate_preferences,
    generate_requests,
    generate_sft,
    generate_train_prompts,
    hidden_prompts,
)
from trimtab.tasks.sales.quality import judge, quality

PRODUCTS = products()

__all__ = [
    "PRODUCTS",
    "SITUATIONS",
    "generate_good_answers",
    "generate_hidden_prompts",
    "generate_preferences",
    "generate_requests",
    "generate_sft",
    "generate_train_prompts",
    "hidden_prompts",
    "judge",
    "quality",
]
