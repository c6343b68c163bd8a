from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest

from trimtab.data import load_pairs, load_preferences, load_prompts, read_rows, recognise
from trimtab.errors import DataError

U = [{"role": "user", "content": "q"}]
A = [{"role": "assistant", "content": "good"}]
B = [{"role": "assistant", "content": "bad"}]


@pytest.fixture
def write(tmp_path):
    def _write(*rows, name="rows.jsonl"):
        path = tmp_path / name
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        elif path.suffix == ".json":
            path.write_text(json.dumps(list(rows)), encoding="utf-8")
        else:
            path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return path

    return _write


def test_a_json_list_of_strings_is_prompts(write):
    """R3, R31: `sales_prompts.json` is a list of strings; each becomes one user message."""
    prompts = load_prompts(write("价格?", "trial?", name="p.json"))
    assert [p.text for p in prompts] == ["价格?", "trial?"]
    assert [p.id for p in prompts] == ["0", "1"]
    assert prompts[0].messages == ({"role": "user", "content": "价格?"},)
    assert prompts[0].columns == {}
    assert not prompts[0].is_conversational
    assert load_prompts(write({"prompt": U}))[0].is_conversational


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.parquet"])
def test_verl_rows_keep_their_columns_in_every_format(write, name):
    """R31: verl's shape; the reward sees data_source, ability, reward_model and extra_info."""
    row = {
        "data_source": "gsm8k",
        "prompt": U,
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"index": 3},
    }
    (prompt,) = load_prompts(write(row, name=name))
    assert prompt.messages == tuple(U)
    assert prompt.columns["reward_model"]["ground_truth"] == "4"
    assert prompt.columns["extra_info"] == {"index": 3}
    assert "prompt" not in prompt.columns


def test_trl_shapes_are_recognised_by_their_columns():
    """R31: every shape of TRL, verl's and Alpaca's, whatever other columns there are."""
    cases = {
        "prompt": "prompt-only",
        "prompt completion": "prompt-completion",
        "text": "language modelling",
        "messages": "messages",
        "prompt chosen rejected": "preference",
        "chosen rejected": "implicit preference",
        "prompt completion label": "unpaired preference",
        "prompt completions labels": "stepwise supervision",
        "prompt data_source reward_model": "verl",
        "instruction input output": "Alpaca",
    }
    for columns, name in cases.items():
        assert recognise({*columns.split(), "other"}).name == name
    assert recognise({"goal", "result"}) is None


def test_pairs_of_every_shape(write):
    """R31: plain and conversational pairs, Alpaca, messages, text, and unpaired rows with a true label."""
    assert load_pairs(write({"prompt": "q", "completion": "good"}))[0].completion == "good"
    (pair,) = load_pairs(write({"prompt": U, "completion": A}))
    assert (pair.prompt, pair.completion) == (tuple(U), "good")
    (pair,) = load_pairs(write({"instruction": "sum", "input": "1 2", "output": "3"}))
    assert (pair.prompt[0]["content"], pair.completion) == ("sum\n\n1 2", "3")
    (pair,) = load_pairs(write({"messages": [*U, *A, *U, *B]}))
    assert pair.prompt == tuple(U)
    assert pair.completion == (*A, *U, *B)
    (pair,) = load_pairs(write({"text": "once upon"}))
    assert (pair.prompt, pair.completion) == ((), "once upon")
    rows = [{"prompt": "q", "completion": c, "label": c == "good"} for c in ("good", "bad")]
    assert [p.completion for p in load_pairs(write(*rows))] == ["good"]


def test_preferences_of_every_shape(write):
    """R31: explicit and implicit prompt, plain and conversational, and unpaired rows joined by prompt."""
    for row in (
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": U, "chosen": A, "rejected": B},
        {"chosen": [*U, *A], "rejected": [*U, *B]},
    ):
        (preference,) = load_preferences(write(row))
        assert preference.prompt == tuple(U)
        assert (preference.chosen, preference.rejected) == ("good", "bad")
    (preference,) = load_preferences(write({"chosen": "The sky is blue", "rejected": "The sky is black"}))
    assert preference.prompt[0]["content"] == "The sky is"
    assert (preference.chosen, preference.rejected) == ("blue", "black")
    rows = [{"prompt": "q", "completion": c, "label": c == "good"} for c in ("bad", "good", "bad")]
    rows.insert(0, {"prompt": "another", "completion": "fine", "label": True})
    (preference,) = load_preferences(write(*rows))
    assert (preference.chosen, preference.rejected) == ("good", "bad")


def test_prompts_of_longer_rows(write):
    """R31: preference and dialogue rows can be used as prompts; their answers stay columns or are dropped."""
    (prompt,) = load_prompts(write({"chosen": [*U, *A], "rejected": [*U, *B], "id": "x7"}))
    assert (prompt.messages, prompt.id) == (tuple(U), "x7")
    (prompt,) = load_prompts(write({"messages": [*U, *A, *U, *B]}))
    assert prompt.messages == (*U, *A, *U)
    (prompt,) = load_prompts(write({"prompt": "q", "answer": "4"}))
    assert prompt.columns == {"answer": "4"}


def test_a_directory_is_read_in_the_order_of_names_and_limit_stops(write, tmp_path):
    """R31: several files as one data set; each row knows its file and line."""
    write("b1", "b2", name="b.jsonl")
    write("a1", name="a.json")
    assert [row.values["prompt"] for row in read_rows(tmp_path)] == ["a1", "b1", "b2"]
    assert [row.where.rsplit("/")[-1] for row in read_rows(tmp_path)] == [
        "a.json item 1",
        "b.jsonl:1",
        "b.jsonl:2",
    ]
    assert len(read_rows(tmp_path, limit=2)) == 2


@pytest.mark.parametrize(
    ("rows", "load", "message"),
    [
        ([{"prompt": "q"}, {"prompt": ""}], load_prompts, ":2: 'prompt' is empty"),
        ([{"promt": "q"}], load_prompts, r"rename 'promt' \(did you mean 'prompt'"),
        ([{"prompt": "q"}], load_pairs, r"shape prompt-only \(prompt\), which does not hold pairs for SFT"),
        (
            [{"prompt": "q", "completion": "a"}, {"prompt": "q"}],
            load_pairs,
            ":2: the column 'completion' is missing",
        ),
        ([{"prompt": "q", "completion": None}], load_pairs, ":1: 'completion' is missing"),
        ([{"prompt": [*U, *A]}], load_prompts, ":1: 'prompt' ends with a turn of 'assistant'"),
        ([{"prompt": [{"role": "usr", "content": "x"}]}], load_prompts, "role 'usr' .did you mean 'user'"),
        (
            [{"prompt": [{"role": "user", "contents": "x"}]}],
            load_prompts,
            "no `content` .did you mean 'contents'",
        ),
        ([{"prompt": 3}], load_prompts, ":1: 'prompt' must be text or a non-empty list of messages"),
        ([{"prompt": "\ud800"}], load_prompts, "lone surrogate"),
        ([{"chosen": A, "rejected": B}], load_preferences, "share no first turn; add the column `prompt`"),
        (
            [{"prompt": "q", "completion": "a", "label": "yes"}],
            load_preferences,
            "must be true or false, not 'yes'",
        ),
        ([{"prompt": "q", "completion": "a", "label": True}], load_preferences, "no prompt has both"),
        ([{"prompt": "q", "completions": ["a"], "labels": [True]}], load_pairs, "stepwise supervision"),
        ([4], load_prompts, ":1: a row must be a string or an object with columns, not a number"),
    ],
)
def test_a_bad_row_is_named_with_a_fix(write, rows, load, message):
    """R31: FILE:LINE, what is wrong, the nearest valid name."""
    with pytest.raises(DataError, match=message):
        load(write(*rows))


def test_unreadable_files_are_one_sentence(tmp_path):
    """R31: missing, empty, not JSON, not UTF-8, not Parquet, wrong ending."""
    cases = {
        "a.jsonl": b"",
        "b.jsonl": b'{"prompt": "x"}\n{"prompt": ',
        "c.json": b'"x"',
        "d.jsonl": b'"\xff"',
    }
    cases |= {"e.parquet": b"PAR0", "f.txt": b"x", "g.json": b"[" * 100_000}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    for name in [*cases, "missing.jsonl"]:
        with pytest.raises(DataError) as caught:
            load_prompts(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"no data at .*bb\.jsonl .did you mean '.*b\.jsonl'"):
        load_prompts(tmp_path / "bb.jsonl")
    with pytest.raises(DataError, match=r"b\.jsonl:2: not valid JSON"):
        load_prompts(tmp_path / "b.jsonl")
