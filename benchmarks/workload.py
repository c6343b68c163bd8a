"""Prompts of an exact number of tokens, the same for every arm, and the recipe of the step that is timed."""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

# Nothing but the words, so that a prompt can be as short as one likes and every arm sees the same ids.
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

# Text that a model knows how to go on: in bf16, nonsense has larger rounding errors than a real prompt.
REQUESTS = (
    "What is the capital of France, and why did it become the largest city of the country?",
    "Explain how a bicycle stays upright when it moves, in words that a child understands.",
    "Write a short letter to a customer whose order has arrived late and who is unhappy.",
    "How do I make bread at home without a machine, and how long does it have to rest?",
    "Give me three reasons to learn a second language as an adult, and one reason not to.",
    "What happens inside a star when it runs out of hydrogen to burn in its core?",
    "My laptop does not start any more; which steps should I take before I call support?",
    "Summarise the story of Romeo and Juliet in two sentences for somebody in a hurry.",
    "Which plants grow well on a balcony that has shade for most of the day?",
    "Compare trains and planes for a journey of six hundred kilometres between two cities.",
)


@dataclass(frozen=True, slots=True)
class StepSpec:
    """A GRPO step as every arm is told to make it."""

    model: str
    device: str = "cpu"
    dtype: str = "bfloat16"
    threads: int | None = None
    num_prompts: int = 8
    num_generations: int = 8
    prompt_tokens: int = 25
    new_tokens: int = 128
    beta: float = 0.001
    learning_rate: float = 1e-6
    microbatch_size: int = 8  # TRL's; ours chooses from the free memory
    seed: int = 0
    overrides: Mapping[str, Any] | None = None  # recipe keys of our arm, dotted: {"train.packing": False}
    without: Sequence[str] = ()  # techniques of our arm that are off: names in techniques.WITHOUT

    def as_dict(self) -> dict[str, Any]:
        """Plain data, to be sent to an arm."""
        return asdict(self)


def step_of(args: argparse.Namespace, model: str, **more: Any) -> StepSpec:
    """The step that the options of the command line describe; ``more`` as in ``StepSpec``."""
    return StepSpec(
        model=model,
        device=args.device,
        dtype=args.dtype,
        threads=args.threads,
        num_prompts=args.prompts,
        num_generations=args.generations,
        prompt_tokens=args.prompt_tokens,
        new_tokens=args.new_tokens,
        seed=args.seed,
        **more,
    )


def plain_template() -> str:
    """The path of a file that holds ``PLAIN_TEMPLATE``, for ``model.chat_template``."""
    path = Path(gettempdir()) / "trimtab-bench-plain.jinja"
    path.write_text(PLAIN_TEMPLATE, encoding="utf-8")
    return str(path)


def words_of(tokenizer: Any, count: int, rng: random.Random) -> list[str]:
    """Words of the vocabulary that are one token each after a space."""
    special = set(tokenizer.all_special_ids)
    found: list[str] = []
    for _ in range(200 * count):
        token = rng.randrange(len(tokenizer))
        word = tokenizer.decode([token]).strip()
        if token in special or not (word.isascii() and word.isalnum() and len(word) > 1):
            continue
        if len(tokenizer.encode(f"{found[-1]} {word}" if found else word, add_special_tokens=False)) <= 2:
            found.append(word)
        if len(found) == count:
            break
    return found


def prompt_messages(tokenizer: Any, num_tokens: int, rng: random.Random) -> list[dict[str, str]]:
    """A conversation that the tokenizer's template makes exactly ``num_tokens`` long.

    Raises:
        ValueError: the template alone is longer.
    """
    words = text_words(tokenizer, num_tokens, rng)
    # The system turn is given, empty, where the template would add a long one of its own.
    system = [{"role": "system", "content": ""}] if tokenizer.chat_template != PLAIN_TEMPLATE else []

    def messages() -> list[dict[str, str]]:
        return [*system, {"role": "user", "content": " ".join(words)}]

    while words and len(encode(tokenizer, messages())) > num_tokens:
        words.pop()
    pool = words_of(tokenizer, 16, rng)
    for _ in range(20 * num_tokens):
        length = len(encode(tokenizer, messages()))
        if length == num_tokens and words:
            return messages()
        if length < num_tokens:
            words.append(rng.choice(pool))
        elif words:
            words.pop()
        else:
            break
    raise ValueError(f"no prompt of {num_tokens} tokens can be made with this tokenizer's chat template")


def text_words(tokenizer: Any, count: int, rng: random.Random) -> list[str]:
    """At least ``count`` words of requests in plain English, or of the vocabulary where it has no English."""
    if tokenizer.unk_token_id in tokenizer.encode(REQUESTS[0], add_special_tokens=False):
        pool = words_of(tokenizer, 64, rng)
        return [rng.choice(pool) for _ in range(count)]
    words: list[str] = []
    while len(words) < count:
        words += " ".join(rng.sample(REQUESTS, len(REQUESTS))).split()
    return words[:count]


def encode(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The ids of a prompt through the template, as the recipe would encode it."""
    from trimtab.data import encode_prompt

    return list(encode_prompt(tokenizer, messages))


def make_prompts(tokenizer: Any, lengths: Sequence[int], seed: int) -> list[list[dict[str, str]]]:
    """One conversation for each length; the same for the same seed, in every process."""
    rng = random.Random(seed)
    return [prompt_messages(tokenizer, length, rng) for length in lengths]


def recipe_of(spec: StepSpec) -> Any:
    """The recipe of our arm: GRPO with TRL's default loss (``dapo`` there, ``token_mean`` here), KL in it.

    Raises:
        ConfigError: an override names no key.
    """
    from trimtab.config import build_recipe

    tree: dict[str, Any] = {
        "seed": spec.seed,
        "threads": spec.threads,
        "model": {
            "path": spec.model,
            "dtype": spec.dtype,
            "device": spec.device,
            "chat_template": plain_template(),
        },
        "rl": {
            "data": "bench",
            "rewards": ["length"],
            "steps": 1_000_000,
            "num_prompts": spec.num_prompts,
            "num_generations": spec.num_generations,
            "max_prompt_tokens": max(spec.prompt_tokens, 512),
            "max_new_tokens": spec.new_tokens,
            "temperature": 1.0,
            "top_p": 1.0,
            "importance_correction": "none",
            "learning_rate": spec.learning_rate,
            "reduction": "token_mean",
            "advantage": {"eps": 1e-4},
            "kl": {"coef": spec.beta},
        },
    }
    for key, value in (spec.overrides or {}).items():
        *tables, last = key.split(".")
        branch = tree
        for table in tables:
            branch = branch.setdefault(table, {})
        branch[last] = value
    return build_recipe(tree)
