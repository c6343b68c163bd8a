"""A reward and a judge as a user writes them, in a file of their own."""

from __future__ import annotations

from typing import Any


def varied(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """TRL-style: some number that differs between random completions."""
    return [len(text) % 7 / 7 for text in completions]


def longer(prompt: str, response: str) -> float:
    """A judge that prefers the longer answer."""
    return float(len(response))
