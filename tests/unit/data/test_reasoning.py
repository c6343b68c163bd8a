"""Chat templates that strip, open, add or change things, against rows with reasoning, calls and tools."""

from __future__ import annotations

import re
import warnings

import pytest

from trimtab.data import encode_pair, encode_prompt, encode_row, reply_text
from trimtab.errors import DataError
from trimtab.types import Conversation

from . import templates
from .toy_tokenizer import CHATML, PLAIN, TAGGED, build_tokenizer

USER = {"role": "user", "content": "ask alfa"}
AGAIN = {"role": "user", "content": "ask bravo"}
SYSTEM = {"role": "system", "content": "be kilo"}
THOUGHT = "<think>\nlima mike\n</think>\n\nnovember Oscar"
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "getit", "arguments": {"item": "quebec"}}}
TOOL = {
    "type": "function",
    "function": {"name": "getit", "description": "d", "parameters": {"type": "object"}},
}


def answer(content, **more):
    return {"role": "assistant", "content": content, **more}


# Every word of an assistant's turn stands in its row once, so that it can be counted in what is trained.
ROWS = {
    "plain": [USER, answer("november Oscar\nPapa  quebec")],
    "edges": [USER, answer(" november \n")],
    "thought": [USER, answer(THOUGHT)],
    "empty thought": [USER, answer("<think>\n\n</think>\n\nnovember")],
    "tight thought": [USER, answer("<think>lima</think>november")],
    "key": [USER, answer("november", reasoning_content="lima mike")],
    "other key": [USER, answer("november", thinking="lima mike")],
    "two turns": [USER, answer("november"), AGAIN, answer("oscar")],
    "two thoughts": [USER, answer(THOUGHT), AGAIN, answer("<think>\nromeo\n</think>\n\nsierra")],
    "two keys": [USER, answer("november", reasoning="lima"), AGAIN, answer("oscar", reasoning="mike")],
    "system": [SYSTEM, USER, answer("november")],
    "call": [USER, answer("", tool_calls=[CALL])],
    "call and words": [USER, answer("november", tool_calls=[CALL])],
    "call, result": [USER, answer("", tool_calls=[CALL]), {"role": "tool", "content": "42"}, answer("oscar")],
}
NAMES = [name for name, value in vars(templates).items() if name.isupper() and "for m in" in str(value)]
TEMPLATES = {
    **{name: getattr(templates, name) for name in NAMES},
    "CHATML": CHATML,
    "TAGGED": TAGGED,
    "PLAIN": PLAIN,
}


def decoded(tokenizer, ids):
    return tokenizer.decode(list(ids), skip_special_tokens=False)


def trained_of(tokenizer, pair):
    ids = [i for i, trained in zip(pair.token_ids, pair.completion_mask, strict=True) if trained]
    return decoded(tokenizer, ids)


def words_of(message):
    said = [
        message["content"],
        *(message.get(key, "") for key in ("reasoning_content", "reasoning", "thinking")),
    ]
    calls = message.get("tool_calls", ())
    said += [part for call in calls for part in ("getit", "quebec") if call]
    return re.findall(r"[A-Za-z]{3,}", re.sub(r"</?think>", " ", " ".join(said)))


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_row_says_is_trained_once_or_refused(name):
    """R33: of every row and template: each word once, after what a model would see, in no open block."""
    tokenizer = build_tokenizer(TEMPLATES[name])
    kept = 0
    for row in ROWS.values():
        start = next(i for i, message in enumerate(row) if message["role"] == "assistant")
        try:
            pairs = encode_row(tokenizer, row[:start], row[start:], where="row 7")
        except DataError as error:
            assert "row 7" in str(error)
            continue
        kept += 1
        trained = "".join(trained_of(tokenizer, pair) for pair in pairs)
        for message in row:
            for word in words_of(message) if message["role"] == "assistant" else ():
                assert len(re.findall(rf"\b{word}\b", trained)) == 1, (word, trained)
        assert not re.search(r"ask (alfa|bravo)|kilo", trained)
        for pair in pairs:
            last = re.split(r"assistant[\n\]]", decoded(tokenizer, pair.token_ids))[-1]
            assert last.count("<think>") == last.count("</think>") <= 1, last
            assert "None" not in last
    assert kept >= 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_mask_begins_where_the_generation_prompt_ends(name):
    """Trap 12: the ids before an answer are those that transformers makes of the turns before it."""
    tokenizer = build_tokenizer(TEMPLATES[name])
    for key in ("plain", "thought", "two turns", "two thoughts"):
        row = ROWS[key]
        if name == "PARTS":
            row = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in row]
        ends = [index for index, message in enumerate(row) if message["role"] == "assistant"]
        expected = [
            tokenizer.apply_chat_template(row[:end], add_generation_prompt=True, return_dict=False)
            for end in ends
        ]
        try:
            pairs = encode_row(tokenizer, ROWS[key][:1], ROWS[key][1:])
        except DataError:
            continue
        begins = [
            list(pair.token_ids[:index])
            for pair in pairs
            for index, trained in enumerate(pair.completion_mask)
            if trained and not pair.completion_mask[index - 1]
        ]
        assert begins == expected


@pytest.mark.parametrize(
    ("name", "row", "trained"),
    [
        ("STRIPS", "thought", ["<think>\nlima mike\n</think>\n\nnovember Oscar"]),
        ("STRIPS_OPEN", "thought", ["lima mike\n</think>\n\nnovember Oscar"]),
        ("STRIPS_OPEN", "tight thought", ["lima</think>november"]),
        ("STRIPS_OPEN", "empty thought", ["\n</think>\n\nnovember"]),
        ("PLAIN_EMPTY", "empty thought", ["november"]),
        ("PLAIN_EMPTY", "plain", ["november Oscar\nPapa  quebec"]),
        ("EMPTY_EACH", "plain", ["<think>\n\n</think>\n\nnovember Oscar\nPapa  quebec"]),
        ("EMPTY_EACH", "thought", ["<think>\nlima mike\n</think>\n\nnovember Oscar"]),
        ("LAST_ONLY", "key", ["<think>\nlima mike\n</think>\n\nnovember"]),
        ("LAST_ONLY", "other key", ["<think>\nlima mike\n</think>\n\nnovember"]),
        (
            "LAST_ONLY",
            "two keys",
            ["<think>\nlima\n</think>\n\nnovember", "<think>\nmike\n</think>\n\noscar"],
        ),
        ("CHANNELS", "key", ["<|channel|>analysis<|message|>lima mike<|end|>november"]),
        ("CLOSES_AT_ONCE", "plain", ["</think>november Oscar\nPapa  quebec"]),
        ("CLOSES_AT_ONCE", "thought", ["lima mike\n</think>\n\nnovember Oscar"]),
        ("CLOSES_AT_ONCE", "call", ['</think><call>getit {"item": "quebec"}</call>']),
        ("PARTS", "two turns", ["november<|im_end|>oscar"]),
        ("TRIMS", "edges", ["november"]),
        ("LOWERS", "plain", ["november Oscar\nPapa  quebec"]),
        ("REPLACES", "plain", ["november Oscar\nPapa  quebec"]),
        ("TWICE", "plain", ["november Oscar\nPapa  quebec"]),
        ("MARKED", "plain", ["november Oscar\nPapa  quebec"]),
        ("CALLS_OBJECT", "call", ['<call>getit {"item": "quebec"}</call>']),
        ("CALLS_TEXT", "call", ['<call>getit {"item": "quebec"}</call>']),
        ("CALLS_NULL", "call", ['<call>getit {"item": "quebec"}</call>']),
        ("CALLS_OBJECT", "call and words", ['november<call>getit {"item": "quebec"}</call>']),
    ],
)
def test_what_is_trained_by_template(name, row, trained):
    """R33: the trained text of each kind of template, by hand."""
    tokenizer = build_tokenizer(TEMPLATES[name])
    messages = ROWS[row]
    pairs = encode_row(tokenizer, messages[:1], messages[1:])
    assert [trained_of(tokenizer, pair) for pair in pairs] == [f"{text}<|im_end|>" for text in trained]


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        (
            "STRIPS_OPEN",
            "plain",
            r"opens a reasoning block .<think>., which the answer of row 7",
        ),
        (
            "PLAIN_EMPTY",
            "thought",
            "writes a whole reasoning block .* and the answer of row 7 brings its own",
        ),
        ("PLAIN_OPEN", "call", r"opens a reasoning block .<think>."),
        ("PLAIN_EMPTY", "key", "writes a whole reasoning block .* and the answer of row 7 brings its own"),
        ("CHATML", "key", "does not write `reasoning_content` in an assistant turn of row 7"),
        ("CHATML", "call", "does not write `tool_calls` in an assistant turn of row 7"),
        ("CALLS_INSTEAD", "call and words", "does not write 'november' of its content"),
        ("CALLS_NULL", "call and words", "does not write `tool_calls`"),
        ("NO_SYSTEM", "system", "refuses row 7 .System role not supported"),
        ("DROPS_SYSTEM", "system", "leaves out the words of a 'system' turn of row 7"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(name, row, words):
    """R33: refused by a sentence that names the row and what would be lost."""
    start = 2 if row == "system" else 1
    with pytest.raises(DataError, match=words):
        encode_pair(build_tokenizer(TEMPLATES[name]), ROWS[row][:start], ROWS[row][start:], where="row 7")


def test_calls_and_reasoning_are_as_transformers_renders_them():
    """R33: the same ids as apply_chat_template gives for the same messages."""
    tokenizer = build_tokenizer(templates.LAST_ONLY)
    messages = [USER, answer("november", reasoning_content="lima", tool_calls=[CALL])]
    (pair,) = encode_row(tokenizer, messages[:1], messages[1:])
    whole = tokenizer.apply_chat_template(messages, return_dict=False)
    assert list(pair.token_ids) == whole[: len(pair)]
    assert decoded(tokenizer, whole[len(pair) :]) == "\n"


def test_a_preference_between_calls_is_between_the_templates_texts():
    """R33: what a reward model learns from is what a policy writes of a tool call."""
    tokenizer = build_tokenizer(templates.CALLS_OBJECT)
    chosen = (answer("", tool_calls=[CALL]),)
    assert reply_text(tokenizer, [USER], chosen) == '<call>getit {"item": "quebec"}</call>'
    assert reply_text(tokenizer, [USER], "as it is <|im_end|>") == "as it is <|im_end|>"
    with pytest.raises(DataError, match="does not write `tool_calls`"):
        reply_text(build_tokenizer(CHATML), [USER], chosen)


def test_tools_are_in_the_prompt_or_it_is_refused():
    """R33: the column `tools` is rendered as transformers does, in prompts and in pairs."""
    prompt = Conversation((USER,), {"tools": [TOOL]})
    tokenizer = build_tokenizer(templates.TOOLS)
    expected = tokenizer.apply_chat_template(
        [USER], tools=[TOOL], add_generation_prompt=True, return_dict=False
    )
    assert list(encode_prompt(tokenizer, prompt)) == expected
    pair = encode_pair(tokenizer, prompt, "november")
    assert list(pair.token_ids[: len(expected)]) == expected
    with pytest.raises(DataError, match=r"does not write the column `tools` of row 7: .*tools = \"\""):
        encode_prompt(build_tokenizer(CHATML), prompt, where="row 7")


def test_a_name_that_is_not_written_is_said():
    """R33: who speaks is lost in most templates, and that is said; a tool's name is its call's."""
    tokenizer = build_tokenizer(CHATML)
    with pytest.warns(UserWarning, match="does not write the `name` of a turn"):
        encode_prompt(tokenizer, [{**USER, "name": "Zoe"}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_prompt(tokenizer, [USER, answer("so"), {"role": "tool", "content": "4", "name": "Zoe"}])


def test_a_switch_of_the_template_is_a_column():
    """R33: `chat_template_kwargs` reach the template, so a row can ask for no thinking."""
    tokenizer = build_tokenizer(templates.LAST_ONLY)
    off = Conversation((USER,), {"enable_thinking": False})
    (pair,) = encode_row(tokenizer, off, "november")
    assert decoded(tokenizer, pair.token_ids).endswith("assistant\n<think>\n\n</think>\n\nnovember<|im_end|>")
    assert trained_of(tokenizer, pair) == "november<|im_end|>"


def test_a_template_that_drops_turns_of_a_prompt_is_refused():
    """R33: for prompts of RL as well, no turn is lost without a word; changed words are let be."""
    drops = build_tokenizer(templates.DROPS_SYSTEM)
    with pytest.raises(DataError, match="leaves out the words of a 'system' turn"):
        encode_prompt(drops, [SYSTEM, USER])
    shouts = {"role": "user", "content": "ASK"}
    assert "ask" in decoded(drops, encode_prompt(build_tokenizer(templates.LOWERS), [shouts]))
    past = [USER, answer(THOUGHT), AGAIN]  # reasoning of the past is left out by design
    assert "lima" not in decoded(drops, encode_prompt(build_tokenizer(templates.STRIPS), past))
