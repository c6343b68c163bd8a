"""The rows of a stage against the model that will read them (R37): rows beyond its context, and rows of which
the chat template loses something.

Every length is that of the very tokens that the stage would make; the words are compared by decoding those.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.config import ProcessRewardConfig, Recipe, RewardModelConfig, Stage
from trimtab.data import (
    EncodedPair,
    Pair,
    encode_prompt,
    encode_row,
    load_pairs,
    load_preferences,
    render,
    reply_text,
    turn_end,
)
from trimtab.data.messages import is_trained
from trimtab.data.spoken import (
    decoded,
    find_difference,
    find_open_block,
    open_tag,
    round_trip,
    stretches,
    texts_of,
)
from trimtab.errors import ModelError, TrimtabError
from trimtab.models.agreement import Finding, Subject
from trimtab.pipeline.sources import TASK, held_out_prompts, hidden_source, solutions_for, train_prompts
from trimtab.rewards.conversation import encode_for_reward
from trimtab.rewards.steps import encode_steps
from trimtab.types import Message, Prompt

SAMPLED_ROWS = 64  # rows whose tokens are decoded and compared with what the row says
TASK_PROMPTS = 256  # of a procedural task, whose prompts are alike
_ROOM = 64  # bytes that a template may write around one message, beside what it writes once


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a stage: what it is called, an upper bound of its tokens, and how to count them."""

    where: str
    bound: int
    encode: Callable[[], Sequence[int]]


def data_findings(recipe: Recipe, stage: Stage, subject: Subject, tokenizer: Any) -> Iterator[Finding]:
    """What the rows of one stage say against the model's context and the chat template."""
    if stage == "sft":
        yield from _sft(recipe, subject, tokenizer)
    elif stage == "reward_model" and recipe.reward_model is not None:
        yield from _preferences(recipe.reward_model, subject, tokenizer)
    elif stage == "process_reward" and recipe.process_reward is not None:
        yield from _solutions(recipe, recipe.process_reward, subject, tokenizer)
    elif recipe.rl is not None:
        yield from _prompts(recipe, stage, subject, tokenizer)


def _sft(recipe: Recipe, subject: Subject, tokenizer: Any) -> Iterator[Finding]:
    config = recipe.sft
    assert config is not None
    pairs, limit = load_pairs(config.data, columns=config.columns), subject.context
    overhead = _overhead(tokenizer)

    def row(number: int, pair: Pair) -> Row:
        where = f"{config.data}, row {number}"
        bound = overhead + _bytes([*pair.prompt, *_answer(pair)])
        return Row(
            where, bound, lambda: _longest(encode_row(tokenizer, pair.prompt, pair.completion, where=where))
        )

    if limit is not None and config.max_length > limit:
        fix = f"set sft.max_length = {limit} to leave longer rows out, or shorten them"
        rows = (row(number, pair) for number, pair in enumerate(pairs))
        yield _within("sft.data", rows, subject, (limit, config.max_length), fix)
    lost = []
    for number in _sampled(len(pairs)):
        pair, where = pairs[number], f"{config.data}, row {number}"
        try:
            encoded = encode_row(tokenizer, pair.prompt, pair.completion, where=where)
        except TrimtabError as error:
            yield Finding("fail", "sft.data", str(error))
            return
        if found := pair_difference(tokenizer, pair, encoded):
            lost.append((where, found))
    yield _losses("sft.data", lost, min(len(pairs), SAMPLED_ROWS), "what is trained")
    said = ((f"{config.data}, row {n}", texts_of(_answer(pairs[n])[0])) for n in _sampled(len(pairs)))
    yield from _unwritable("sft.data", tokenizer, said)


def _longest(sequences: Sequence[EncodedPair]) -> Sequence[int]:
    return max((sequence.token_ids for sequence in sequences), key=len)


def _answer(pair: Pair) -> Sequence[Message]:
    """The turns that follow the prompt."""
    if isinstance(pair.completion, str):
        return ({"role": "assistant", "content": pair.completion},)
    return pair.completion


def pair_difference(tokenizer: Any, pair: Pair, sequences: Sequence[EncodedPair]) -> str | None:
    """How the tokens of a pair differ from what it says: None where trained tokens hold every answer once
    and the others hold every other turn. A tag that the generation prompt opens counts as the answer's."""
    turns = _answer(pair)
    said = [turn for turn in turns if turn["role"] == "assistant" and is_trained(turn)]
    answers = _written(tokenizer, [text for turn in said for text in texts_of(turn)])
    others = [*pair.prompt, *(turn for turn in turns if turn["role"] != "assistant")]
    end = tokenizer.decode(list(turn_end(tokenizer)), skip_special_tokens=False)
    trained, context = [], []
    for sequence in sequences:
        ids, mask = sequence.token_ids, sequence.completion_mask
        context.append(decoded(tokenizer, ids, mask, trained=False))
        for before, answer in stretches(tokenizer, ids, mask):
            if found := find_open_block(before, answer):
                return found
            trained.append(open_tag(before) + answer.removesuffix(end))
    if found := find_difference(answers, "\n".join(trained)):
        return found
    return context_difference(tokenizer, others, "\n".join(context))


def context_difference(tokenizer: Any, messages: Sequence[Message], text: str) -> str | None:
    """What ``text`` lacks of ``messages``. Templates may drop the reasoning of earlier turns on purpose."""
    said = [
        words
        for message in messages
        if message["role"] != "assistant"
        for words in texts_of(message, with_reasoning=False)
    ]
    return find_missing(_written(tokenizer, said), text)


def _written(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Texts as far as the tokenizer can write them, so that what differs is the template's doing."""
    return [round_trip(tokenizer, text) for text in texts]


def _unwritable(name: str, tokenizer: Any, rows: Iterable[tuple[str, Sequence[str]]]) -> Iterator[Finding]:
    """Warn of the first row with words that the tokenizer has no tokens for."""
    for where, texts in rows:
        for text in texts:
            if found := find_missing([text], round_trip(tokenizer, text)):
                said = f"the tokenizer cannot write all of {where}: {found} from its tokens"
                yield Finding("warn", f"{name} words", f"{said}; take a model whose tokenizer has them")
                return


def _preferences(config: RewardModelConfig, subject: Subject, tokenizer: Any) -> Iterator[Finding]:
    rows = load_preferences(config.data, columns=config.columns)
    sides = [
        (
            f"{config.data}, row {number} ({name})",
            row.prompt,
            reply_text(tokenizer, row.prompt, getattr(row, name)),
        )
        for number, row in enumerate(rows)
        for name in ("chosen", "rejected")
    ]
    overhead = _overhead(tokenizer)

    def encode(prompt: Sequence[Message], answer: str) -> Callable[[], Sequence[int]]:
        return lambda: encode_for_reward(tokenizer, prompt, answer, config.max_length)

    encoded = (
        Row(where, overhead + _bytes([*prompt, {"content": answer}]), encode(prompt, answer))
        for where, prompt, answer in sides
    )
    yield from _cut(encoded, "reward_model", config.max_length, subject)
    lost = []
    for number in _sampled(len(sides)):
        where, prompt, answer = sides[number]
        ids = encode_for_reward(tokenizer, prompt, answer, 10**9)
        text = decoded(tokenizer, ids, [True] * len(ids), trained=True)
        if found := find_missing(_written(tokenizer, [answer]), text) or context_difference(
            tokenizer, prompt, text
        ):
            lost.append((where, found))
    yield _losses("reward_model.data", lost, min(len(sides), SAMPLED_ROWS), "what is scored")
    said = ((where, [answer]) for where, _, answer in (sides[n] for n in _sampled(len(sides))))
    yield from _unwritable("reward_model.data", tokenizer, said)


def find_missing(texts: Sequence[str], text: str) -> str | None:
    """What ``text`` lacks of ``texts``, where it may also hold more."""
    found = find_difference(texts, text)
    return found if found is not None and found.endswith("missing") else None


def _solutions(
    recipe: Recipe, config: ProcessRewardConfig, subject: Subject, tokenizer: Any
) -> Iterator[Finding]:
    rows = solutions_for(config, recipe.seed)
    overhead = _overhead(tokenizer)

    def encode(index: int) -> Callable[[], Sequence[int]]:
        row = rows[index]
        return lambda: (
            encode_steps(tokenizer, row.prompt, row.steps, config.separator, config.max_length).token_ids
        )

    encoded = (
        Row(
            f"{config.data}, row {number}",
            overhead + _bytes([*row.prompt, {"content": row.steps}]),
            encode(number),
        )
        for number, row in enumerate(rows)
    )
    yield from _cut(encoded, "process_reward", config.max_length, subject)


def _cut(rows: Iterable[Row], stage: str, max_length: int, subject: Subject) -> Iterator[Finding]:
    """Rows whose prompt is cut at ``max_length``: refused beyond the context where that limit is the larger
    one, and otherwise left out where the answer alone is beyond it."""
    limit, name = subject.context, f"{stage}.data"
    if limit is None:
        return
    if max_length > limit:
        fix = (
            f"set {stage}.max_length = {limit}: prompts are then cut from the left, and rows whose answer "
            "alone is longer are left out"
        )
        yield _within(name, rows, subject, (limit, 10**9), fix)
        return
    over = [row.where for row in rows if row.bound > limit and len(row.encode()) > limit]
    if over:
        text = (
            f"{len(over)} rows of {name} have an answer that is longer than the {limit} tokens that the "
            f"{subject.name} reads (first: {over[0]}); they are left out"
        )
        yield Finding("warn", f"{name} context", text)


def _prompts(recipe: Recipe, stage: Stage, subject: Subject, tokenizer: Any) -> Iterator[Finding]:
    rl = recipe.rl
    assert rl is not None
    sources: list[tuple[str, str, list[Prompt], int | None]]
    sources = [("rl.data", rl.data, train_prompts(recipe), rl.max_prompt_tokens)]
    if stage == "rl" and rl.hidden_data and rl.eval_every:
        sources.append(("rl.hidden_data", rl.hidden_data, held_out_prompts(recipe, "rl.hidden_data"), None))
    if stage == "eval":
        sources = [("hidden data", hidden_source(recipe), held_out_prompts(recipe, "eval.data"), None)]
    for name, source, prompts, most in sources:
        if source.startswith(TASK):
            prompts = prompts[:TASK_PROMPTS]
        named = f"{name} ({source})"
        for finding in prompt_findings(named, prompts, subject, tokenizer, (most, rl.max_new_tokens)):
            yield Finding(finding.status, finding.what.replace(named, name), finding.text)


def prompt_findings(
    name: str, prompts: Sequence[Prompt], subject: Subject, tokenizer: Any, limits: tuple[int | None, int]
) -> Iterator[Finding]:
    """Prompts: within ``limits`` (the most tokens of a prompt or None, those of an answer) and the context,
    and nothing of them lost."""
    most, new = limits
    overhead, room = _overhead(tokenizer), subject.context

    def row(prompt: Prompt) -> Row:
        where = f"prompt {prompt.id}"
        return Row(
            where,
            overhead + _bytes(prompt.messages),
            lambda: encode_prompt(tokenizer, prompt.messages, where=where),
        )

    rows = [row(prompt) for prompt in prompts]
    if most is not None:
        long = _lengths(rows, most)
        if long:
            where, length = long[0]
            text = (
                f"{where} has {length} tokens, over the limit of {most}: shorten or remove it, or raise "
                f"rl.max_prompt_tokens ({len(long)} of {len(rows)} prompts of {name} are over)"
            )
            yield Finding("fail", f"{name} length", text)
    if room is not None:
        yield _with_answer(name, rows, subject, new)
    lost = []
    for number in _sampled(len(prompts)):
        prompt = prompts[number]
        try:
            ids = encode_prompt(tokenizer, prompt.messages, where=rows[number].where)
        except TrimtabError as error:
            yield Finding("fail", name, str(error))
            return
        text = decoded(tokenizer, ids, [True] * len(ids), trained=True)
        if found := context_difference(tokenizer, prompt.messages, text):
            lost.append((rows[number].where, found))
    yield _losses(name, lost, min(len(prompts), SAMPLED_ROWS), "what the model reads")
    said = ((rows[n].where, texts_of(prompts[n].messages[-1])) for n in _sampled(len(prompts)))
    yield from _unwritable(name, tokenizer, said)


def _with_answer(name: str, rows: Sequence[Row], subject: Subject, new: int) -> Finding:
    """Prompt and answer within the context."""
    room = subject.context
    assert room is not None
    long = _lengths(rows, room - new)
    what = f"{name} context"
    if not long:
        return Finding("pass", what, f"prompts with {new} new tokens fit into {room} positions")
    where, length = max(long, key=lambda item: item[1])
    text = f"{where} has {length} tokens and with rl.max_new_tokens = {new} exceeds the {room} positions"
    left = room - length
    fix = f"lower rl.max_new_tokens to {left}" if left > 0 else "shorten or remove it"
    count = f" ({len(long)} of {len(rows)} prompts of {name} do)"
    return Finding(
        "fail", what, f"{text} of the {subject.name}{count}; {fix}, or take a model that reads more"
    )


def _within(name: str, rows: Iterable[Row], subject: Subject, limits: tuple[int, int], fix: str) -> Finding:
    """Fail where a row is longer than the context and within what the stage would take of it."""
    limit, most = limits
    kept = [(where, length) for where, length in _lengths(rows, limit) if length <= most]
    if not kept:
        return Finding("pass", f"{name} context", f"every row fits into {limit} positions")
    where, length = kept[0]
    more = f" ({len(kept)} rows do)" if len(kept) > 1 else ""
    text = f"{where} has {length} tokens and exceeds the {limit} positions of the {subject.name}{more}"
    return Finding("fail", f"{name} context", f"{text}; {fix}")


def _lengths(rows: Iterable[Row], limit: int) -> list[tuple[str, int]]:
    """The rows that are longer than ``limit`` tokens; those that cannot be are not encoded."""
    found = ((row.where, len(row.encode())) for row in rows if row.bound > limit)
    return [(where, length) for where, length in found if length > limit]


def _losses(name: str, lost: Sequence[tuple[str, str]], tried: int, where: str) -> Finding:
    what = f"{name} words"
    if not lost:
        return Finding("pass", what, f"{tried} rows, encoded and decoded again, say what they said")
    row, found = lost[0]
    text = f"{where} differs from what the row says in {len(lost)} of {tried} rows; in {row}, {found}"
    return Finding("fail", what, f"{text}; give a template that writes it, with model.chat_template")


def _overhead(tokenizer: Any) -> int:
    """Bytes that the template writes whatever the messages are."""
    try:
        probe = render(tokenizer, ({"role": "user", "content": "a"},), add_generation_prompt=True)
    except ModelError:
        raise
    except TrimtabError:
        return 4096
    return len(probe.encode())


def _bytes(messages: Iterable[Any]) -> int:
    """No tokenizer makes more tokens than bytes, except where it rewrites letters: twice is safe."""
    return sum(
        _ROOM + 2 * len(json.dumps(dict(m), ensure_ascii=False, default=str).encode()) for m in messages
    )


def _sampled(count: int) -> list[int]:
    """Rows spread over a data set, the first among them."""
    step = max(1, -(-count // SAMPLED_ROWS))
    return list(range(0, count, step))
