"""The data of a recipe: there, of a known shape, clean, short enough, and nothing of the hidden set in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from trimtab.cli.checks.line import CheckLine
from trimtab.config import Recipe
from trimtab.data import (
    Pair,
    Preference,
    encode_prompt,
    encode_row,
    load_pairs,
    load_preferences,
)
from trimtab.data.messages import Reply
from trimtab.data.overlap import describe_overlap
from trimtab.errors import TrimtabError
from trimtab.pipeline.sources import solutions_for
from trimtab.rewards.steps import NUMBERED, split_steps
from trimtab.types import Message, Prompt

if TYPE_CHECKING:
    from trimtab.pipeline.leaks import TextSet

SAMPLE = 1000  # rows that are tokenised; the others are only read


def check_pairs(recipe: Recipe, tokenizer: Any) -> Iterator[CheckLine]:
    """The SFT pairs: loadable, no duplicates, rows over the limit counted. ``tokenizer`` may be None."""
    assert recipe.sft is not None
    path, limit = recipe.sft.data, recipe.sft.max_length
    pairs = load_pairs(path, columns=recipe.sft.columns)
    yield CheckLine("pass", "sft.data", f"{path}: {len(pairs)} pairs")
    yield from _duplicates("sft.data", [f"{_key(pair.prompt)}\0{pair.completion}" for pair in pairs])
    if tokenizer is not None:
        lengths = [_pair_length(tokenizer, pair, f"{path}, row {n}") for n, pair in enumerate(pairs[:SAMPLE])]
        yield _lengths("sft.data", lengths, limit, "sft.max_length", "left out")


def check_preferences(recipe: Recipe) -> Iterator[CheckLine]:
    """The preference pairs: loadable, sides differ, and length alone does not predict the better one."""
    assert recipe.reward_model is not None
    path = recipe.reward_model.data
    pairs = load_preferences(path, columns=recipe.reward_model.columns)
    yield CheckLine("pass", "reward_model.data", f"{path}: {len(pairs)} preference pairs")
    keys = [f"{_key(pair.prompt)}\0{pair.chosen}\0{pair.rejected}" for pair in pairs]
    yield from _duplicates("reward_model.data", keys)
    same = sum(pair.chosen == pair.rejected for pair in pairs)
    if same:
        yield CheckLine(
            "warn", "reward_model.data", f"{same} pairs have two equal sides", "they are left out"
        )
    longer = length_bias(pairs)
    if abs(longer - 0.5) > 0.2:
        fix = "balance the lengths, or the reward model learns length"
        yield CheckLine("warn", "length bias", f"the longer side is chosen in {longer:.0%} of the pairs", fix)
    else:
        yield CheckLine("pass", "length bias", f"the longer side is chosen in {longer:.0%} of the pairs")


def check_solutions(recipe: Recipe) -> Iterator[CheckLine]:
    """The labelled solutions: loadable, of both labels, and split in RL into the steps that are labelled."""
    assert recipe.process_reward is not None
    config, name = recipe.process_reward, "process_reward.data"
    rows = solutions_for(config, recipe.seed)
    labels = [label >= 0.5 for row in rows for label in row.labels]
    right = sum(labels) / len(labels)
    found = f"{config.data}: {len(rows)} solutions, {len(labels)} steps, {right:.0%} of them right"
    if right in (0.0, 1.0):
        yield CheckLine("fail", name, found, "steps of both labels are needed, or there is nothing to learn")
    else:
        yield CheckLine("pass", name, found)
    joint = "\n" if config.separator == NUMBERED else config.separator
    other = sum(
        split_steps(joint.join(row.steps), config.separator) != [step.strip() for step in row.steps]
        for row in rows
    )
    if other:
        found = f"{other} of {len(rows)} solutions would be split into other steps in RL"
        fix = "choose process_reward.separator so that a step ends where the data end it"
        yield CheckLine("warn", "process_reward.separator", found, fix)


def length_bias(pairs: Sequence[Preference]) -> float:
    """Return the share of pairs of unequal length whose longer side is the chosen one; 0.5 when none is."""
    lengths = [(len(_shown(pair.chosen)), len(_shown(pair.rejected))) for pair in pairs]
    decided = [chosen > rejected for chosen, rejected in lengths if chosen != rejected]
    return sum(decided) / len(decided) if decided else 0.5


def check_prompts(
    name: str, source: str, prompts: Sequence[Prompt], limit: int, tokenizer: Any
) -> Iterator[CheckLine]:
    """Prompts: no duplicates, and none over ``limit`` tokens. ``tokenizer`` may be None."""
    yield CheckLine("pass", name, f"{source}: {len(prompts)} prompts")
    yield from _duplicates(name, [_key(prompt.messages) for prompt in prompts])
    if tokenizer is None:
        return
    lengths = [
        len(encode_prompt(tokenizer, prompt.messages, where=f"{source}, prompt {prompt.id}"))
        for prompt in prompts[:SAMPLE]
    ]
    over = [prompts[index].id for index, length in enumerate(lengths) if length > limit]
    if over:
        found = f"{len(over)} prompts are over rl.max_prompt_tokens = {limit} (first: {over[0]})"
        yield CheckLine("fail", name, found, f"shorten them, or raise the limit to {max(lengths)}")
    else:
        yield CheckLine("pass", f"{name} length", f"at most {max(lengths)} tokens, limit {limit}")


def check_overlap(recipe: Recipe) -> Iterator[CheckLine]:
    """Nothing that is held out is, exactly or nearly, trained on by a stage of the recipe (R20)."""
    from trimtab.pipeline.leaks import guarded_pairs, leaks_between, load_texts

    sets: dict[str, TextSet] = {}
    clean = []
    for train, held_out in guarded_pairs(recipe):
        for key in {train, held_out} - sets.keys():
            with suppress(TrimtabError):  # what cannot be loaded has failed in a line of its own
                sets[key] = load_texts(recipe, key)
        if not {train, held_out} <= sets.keys():
            continue
        one, other = sets[train], sets[held_out]
        found = leaks_between(one, other)
        if found:
            shown = describe_overlap(found, one.texts, other.texts, (str(one), str(other)))
            yield CheckLine("fail", "overlap", shown, f"remove these rows from {one}")
        else:
            clean.append(f"{other.key} and {one.key}")
    if clean:
        yield CheckLine("pass", "overlap", f"nothing in common: {', '.join(clean)}")


def _duplicates(name: str, keys: Sequence[str]) -> Iterator[CheckLine]:
    count = len(keys) - len(set(keys))
    if count:
        yield CheckLine("warn", name, f"{count} of {len(keys)} rows are there more than once", "remove them")


def _lengths(name: str, lengths: Sequence[int], limit: int, key: str, effect: str) -> CheckLine:
    over = sum(length > limit for length in lengths)
    shown = f"{over} of {len(lengths)} rows are over {key} = {limit} tokens"
    if over == len(lengths):
        return CheckLine("fail", f"{name} length", shown, f"raise {key} to {min(lengths)} or more")
    if over:
        return CheckLine("warn", f"{name} length", f"{shown} and will be {effect}", f"raise {key} or shorten")
    return CheckLine("pass", f"{name} length", f"at most {max(lengths)} tokens, limit {limit}")


def _pair_length(tokenizer: Any, pair: Pair, where: str) -> int:
    return max(map(len, encode_row(tokenizer, pair.prompt, pair.completion, where=where)))


def _shown(reply: Reply) -> str:
    return reply if isinstance(reply, str) else repr(reply)


def _key(messages: Sequence[Message]) -> str:
    return repr([sorted(message.items()) for message in messages])
