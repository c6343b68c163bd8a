"""Data as it is published (R33): every shape, and sentences that name the mapping to write."""

from __future__ import annotations

import json

import pytest

from trimtab.data import load_pairs, load_preferences, load_prompts, load_stepwise, recognise
from trimtab.errors import DataError

U = {"role": "user", "content": "q"}
A = {"role": "assistant", "content": "good"}
B = {"role": "assistant", "content": "bad"}
S = {"role": "system", "content": "be brief"}
CALL = {"type": "function", "function": {"name": "get", "arguments": {"a": 1}}}


@pytest.fixture
def write(tmp_path):
    def _write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return path

    return _write


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"question": "q", "answer": "1+1\n#### 2"}, (U,), "1+1\n#### 2"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "good"}]}, (U,), (A,)),
        ({"conversations": [U, A], "system": "be brief"}, (S, U), (A,)),
        ({"prompt": "q", "prompt_id": "7", "messages": [U, A]}, (U,), (A,)),
        ({"instruction": "q", "input": None, "output": "good"}, (U,), "good"),
        ({"instruction": "q", "input": "", "output": "good", "text": "all"}, (U,), "good"),
        ({"instruction": "q", "context": "", "response": "good", "category": "c"}, (U,), "good"),
        ({"instruction": "q", "output": "good", "history": [["q", "bad"]]}, (U, B, U), "good"),
        (
            {"query": "q", "response": "good", "history": [["q", "bad"]], "system": "be brief"},
            (S, U, B, U),
            "good",
        ),
        ({"prompt": [S, U], "completion": "good", "history": [U, B]}, (S, U, B, U), "good"),
        ({"input": "q", "output": "good"}, (U,), "good"),
        ({"prompt": "q", "response": "good", "reasoning": "why"}, (U,), ({**A, "reasoning": "why"},)),
        ({"instruction": "q", "output": "good", "thinking": "why"}, (U,), ({**A, "thinking": "why"},)),
        (
            {"question": "q", "answer": "<think>why</think>good", "reasoning_content": "why"},
            (U,),
            "<think>why</think>good",
        ),
        ({"input": [S, U], "output": "good"}, (S, U), "good"),
        ({"problem": "q", "solution": "good", "answer": "4"}, (U,), "good"),
        ({"prompt": "q", "response": [A]}, (U,), "good"),
        ({"prompt": "q", "completion": [U, A]}, (U,), "good"),
        ({"system_prompt": "be brief", "question": "q", "response": "good"}, (S, U), "good"),
        ({"messages": json.dumps([U, A])}, (U,), (A,)),
        ({"prompt": json.dumps([S, U]), "completion": "good"}, (S, U), "good"),
        ({"text": "q", "code": "good", "test_list": ["assert 1"]}, (U,), "good"),
    ],
)
def test_pairs_as_they_are_published(write, row, prompt, completion):
    """R33: GSM8K, ShareGPT, UltraChat, Alpaca, Dolly, OpenRLHF, MATH, Orca, MBPP, messages as JSON text."""
    (pair,) = load_pairs(write(row))
    assert (pair.prompt, pair.completion) == (prompt, completion)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": [U, A], "rejected": [U, B], "score_chosen": 8.0, "messages": [U, A]},
        {"prompt": [U], "chosen": [U, A], "rejected": [U, B]},
        {"prompt": "q", "chosen": A, "rejected": B},
        {"question": "q", "chosen": "good", "rejected": "bad"},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "good", "rejected": "bad"},
    ],
)
def test_preferences_as_they_are_published(write, row):
    """R33: UltraFeedback's whole conversations, Orca, LLaMA-Factory, HH-RLHF with and without a prompt."""
    (pair,) = load_preferences(write(row))
    assert (pair.prompt, pair.chosen, pair.rejected) == ((U,), "good", "bad")
    assert "prompt" not in pair.columns and pair.columns.get("score_chosen", 8.0) == 8.0


def test_a_whole_conversation_brings_its_own_context(write):
    """R33: a system turn and earlier turns of `chosen` are not lost beside a plain `prompt`."""
    (pair,) = load_preferences(write({"prompt": "q", "chosen": [S, U, A, U, A], "rejected": [S, U, A, U, B]}))
    assert (pair.prompt, pair.chosen, pair.rejected) == ((S, U, A, U), "good", "bad")
    (prompt,) = load_prompts(write({"prompt": "q", "messages": [S, U, A]}))
    assert prompt.messages == (S, U)


@pytest.mark.parametrize(
    ("row", "load", "words"),
    [
        (
            {"prompt": "else", "chosen": [U, A], "rejected": [U, B]},
            load_preferences,
            r'columns = { prompt = "" }',
        ),
        (
            {"prompt": "q", "chosen": [U, A], "rejected": [S, U, B]},
            load_preferences,
            "different turns before",
        ),
        (
            {"prompt": "else", "messages": [U, A]},
            load_pairs,
            r"'prompt' is not among the turns of 'messages'",
        ),
        ({"chosen": [U, A], "rejected": [U, B]}, load_pairs, r'columns = { messages = "chosen" }'),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, load_pairs, r'columns = { completion = "chosen" }'),
        ({"goal": "q", "x": 1}, load_prompts, r'columns = { prompt = "goal" }'),
        (
            {"goal": "q", "better": "a", "worse": "b"},
            load_preferences,
            r'chosen = "better", rejected = "worse"',
        ),
        ({"x": "q"}, load_stepwise, r'columns = { prompt = "x" }'),
        ({"messages": [U, {"role": "assistant", "content": None}]}, load_pairs, r"no `content`; mend"),
        (
            {"messages": [U, {"role": "assistant", "tool_calls": ["get"]}]},
            load_pairs,
            "no function with a `name`",
        ),
        ({"messages": [U, {"role": "assistant", "tool_calls": "get()"}]}, load_pairs, "are not valid JSON"),
        ({"messages": [{**U, "tool_calls": [CALL]}, A]}, load_pairs, "only the assistant calls"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]},
            load_prompts,
            "a part of the type 'image_url', which is not text",
        ),
        ({"messages": [{**U, "images": ["u"]}, A]}, load_pairs, "has 'images', which is not text"),
        ({"prompt": "q", "image": "u.png"}, load_prompts, r'columns = { image = "" }'),
        ({"messages": [{"from": "hooman", "value": "q"}]}, load_pairs, "the role 'hooman'"),
        ({"messages": [S, U, A], "system": "be long"}, load_pairs, r'columns = { system = "" }'),
        ({"prompt": "q", "tools": ["search"]}, load_prompts, r'columns = { tools = "" }'),
        (
            {"prompt": "q", "chat_template_kwargs": [1]},
            load_prompts,
            "'chat_template_kwargs' must be an object",
        ),
        (
            {"instruction": "q", "input": 3, "output": "a"},
            load_pairs,
            "'input' is a int, but must be text or null",
        ),
        ({"instruction": "q", "output": "a", "history": ["x"]}, load_pairs, r"'history\[0\]' must be"),
        ({"prompt": "q", "history": "x"}, load_prompts, r'columns = { history = "" }'),
        (
            {"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: c\n\nAssistant: d"},
            load_preferences,
            "share no",
        ),
    ],
)
def test_what_would_lose_something_is_refused_with_the_fix(write, row, load, words):
    """R33: one sentence with the place, and the mapping to write where there is one."""
    with pytest.raises(DataError, match=words) as caught:
        load(write(row))
    assert "\n" not in str(caught.value) and "rows.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": [{"id": None, **CALL}]},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL["function"]])},
        {"role": "assistant", "content": [], "function_call": {"name": "get", "arguments": '{"a": 1}'}},
        {"from": "function_call", "value": '{"name": "get", "arguments": {"a": 1}}'},
    ],
)
def test_tool_calls_in_every_form_are_one_form(write, given):
    """R33: `content: null`, absent content, calls as JSON text, OpenAI's older call, LLaMA-Factory's role."""
    (pair,) = load_pairs(write({"messages": [U, given, {"role": "tool", "content": "4"}, A]}))
    assert pair.completion[0] == {"role": "assistant", "content": "", "tool_calls": [CALL]}


def test_an_answer_that_is_more_than_text_stays_a_message(write):
    """R33: reasoning and calls in `completion`, `chosen` and `rejected` are kept."""
    reasoned = {**A, "reasoning_content": "so"}
    (pair,) = load_pairs(write({"prompt": [U], "completion": [reasoned]}))
    assert pair.completion == (reasoned,)
    called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    (preference,) = load_preferences(write({"prompt": [U], "chosen": [called], "rejected": [B]}))
    assert (preference.chosen, preference.rejected) == ((called,), "bad")


def test_tools_and_switches_go_to_the_template(write):
    """R33: the columns `tools` (also as JSON text) and `chat_template_kwargs` travel with the prompt."""
    tools = [{"type": "function", "function": {"name": "get"}}]
    (prompt,) = load_prompts(
        write({"prompt": "q", "tools": json.dumps(tools), "chat_template_kwargs": {"x": 1}})
    )
    assert prompt.messages.variables == {"tools": tools, "x": 1}
    assert prompt.columns["tools"] == tools
    (pair,) = load_pairs(write({"messages": [U, A], "tools": []}))
    assert pair.prompt.variables == {}


def test_two_prompts_are_one_only_if_they_are_one_row(write):
    """Issue 14, A.9: the same text twice, and an id that several rows share, are different prompts."""
    rows = [{"prompt": "q"}, {"prompt": "q"}, {"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}]
    ids = [prompt.id for prompt in load_prompts(write(*rows, {"prompt": "c", "id": 7}))]
    assert ids == ["0", "1", "x (row 2)", "x (row 3)", "7"]


def test_unpaired_rows_without_a_partner_are_said(write):
    """R33: KTO's rows that no pair can be made of are not dropped without a word."""
    rows = [{"prompt": "q", "completion": c, "label": c != "bad"} for c in ("good", "bad", "fine")]
    with pytest.warns(UserWarning, match="1 of 3 rows have no row of the other `label`"):
        (pair,) = load_preferences(write(*rows))
    assert (pair.chosen, pair.rejected) == ("good", "bad")


def test_the_use_decides_between_shapes():
    """R33: UltraFeedback has columns of three shapes; what is asked for is taken."""
    columns = {"prompt", "prompt_id", "chosen", "rejected", "messages", "score_chosen"}
    assert recognise(columns, "preferences").name == "preference"
    assert recognise(columns, "pairs").name == "UltraChat"
    assert (
        recognise({"question", "answer", "prompt", "completion"}, "pairs", ["prompt"]).name
        == "prompt-completion"
    )
