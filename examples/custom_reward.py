"""A reward of your own: a plain function, as TRL takes it. Nothing of Trimtab is imported.

Try it on a few rows, then train with it, alone or beside others:

    trimtab rewards score examples/custom_reward.py:names_the_customer --data rows.jsonl --json scores.json
    trimtab run recipes/sales/demo.toml --rl.rewards "sales, examples/custom_reward.py:names_the_customer"

A function gets the prompts and completions of a whole step as lists of strings (lists of messages, where the
data's prompts are messages), and every column of the rows as a list. It returns one number per completion;
None says "does not apply to this row": the row is then left out, which is not the same as 0. An exception
makes the call abstain and is recorded; it does not end the run.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any


def names_the_customer(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    """1 when the answer takes up the name that the customer gave, 0 when not, None where none was given.

    Example:
        >>> names_the_customer(["我姓王，多少钱？", "多少钱？"], ["王先生，您好。", "您好。"])
        [1.0, None]
    """
    scores: list[float | None] = []
    for prompt, completion in zip(prompts, completions, strict=True):
        given = re.search(r"(?:我姓|我是|免贵姓)(\w)", prompt)
        scores.append(float(given.group(1) in completion) if given else None)
    return scores


def is_brief(completions: list[str], limit: int = 200, **columns: Any) -> list[float]:
    """1 up to ``limit`` characters, then falling to 0 at twice as many.

    ``limit`` is an option: ``{ name = "examples/custom_reward.py:is_brief", options = { limit = 120 } }``.

    Example:
        >>> is_brief(["x" * 100, "x" * 300])
        [1.0, 0.5]
    """
    return [max(0.0, min(1.0, 2.0 - len(text) / limit)) for text in completions]


async def asks_a_service(completions: list[str], **columns: Any) -> list[float]:
    """An async function may wait for a service for all completions at once; here the service is a stand-in.

    Example:
        >>> asyncio.run(asks_a_service(["您好！", "喂"]))
        [1.0, 0.0]
    """

    async def score_one(text: str) -> float:
        await asyncio.sleep(0)  # an HTTP request in real life
        return float("您好" in text)

    return list(await asyncio.gather(*(score_one(text) for text in completions)))


def quality(prompt: str, response: str) -> float:
    """A judge for the win rate, ``eval.judge = "examples/custom_reward.py:quality"``: one answer, one number.

    A judge must not be one of the rewards that the policy was trained on.

    Example:
        >>> quality("多少钱？", "每月 99 元。您想先试用吗？")
        1.0
    """
    return 0.5 * bool(re.search(r"\d", response)) + 0.5 * ("？" in response or "?" in response)
