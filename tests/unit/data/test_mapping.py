"""`columns = { prompt = "question" }`: dotted paths, nearest names, from recipe, command line and Python."""

from __future__ import annotations

import json

import pytest

from trimtab.api import GRPOTrainer  # noqa: F401  (the names of R30 are there)
from trimtab.api import load_prompts as load_texts
from trimtab.config import build_recipe, load_recipe
from trimtab.data import Row, load_prompts, load_stepwise, map_columns
from trimtab.errors import ConfigError, DataError

ROW = {
    "question": "1+1?",
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "choices": [{"text": "two"}, {"text": "three"}],
    "input_output": '{"inputs": ["1"], "fn_name": "add"}',
    "a.b": "dotted",
    "a": {"b": "nested", "c.d": 3},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("question", "1+1?"),
        ("reward_model.ground_truth", "2"),
        ("choices.0.text", "two"),
        ("choices.-1.text", "three"),
        ("choices.1", {"text": "three"}),
        ("input_output.fn_name", "add"),
        ("input_output.inputs.0", "1"),
        ("a.b", "dotted"),
        ("a.c.d", 3),
    ],
)
def test_a_path_leads_through_structs_lists_and_json(path, value):
    """R33: what a dotted path finds; a name with a dot comes first."""
    (row,) = map_columns([Row("f:1", ROW)], {"found": path}, "f")
    assert row.values["found"] == value
    assert row.values["question"] == "1+1?"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"prompt": "questoin"}, r"'questoin' for 'prompt', but no row has it .did you mean 'question'"),
        ({"answer": "reward_model.groundtruth"}, r"did you mean 'reward_model.ground_truth'"),
        ({"answer": "ground_truth"}, r"did you mean 'reward_model.ground_truth'"),
        ({"answer": "choices.5.text"}, r"did you mean 'choices.0.text'"),
        ({"answer": "zzz"}, r"there are: question, reward_model, reward_model.style"),
        ({"promt": "question"}, r"'promt', which nothing reads; did you mean 'prompt'"),
    ],
)
def test_a_path_to_nothing_is_named_with_the_nearest(columns, words):
    """R33: one sentence with the nearest path that exists."""
    with pytest.raises(DataError, match=words):
        map_columns([Row("f:1", ROW)], columns, "f")


def test_rows_that_lack_a_path_have_null_and_an_empty_path_removes():
    """R33: a path that some rows lack is null there; `tools = ""` leaves a column out."""
    rows = [Row("f:1", {"a": {"b": 1}, "tools": 2}), Row("f:2", {"a": {}})]
    mapped = map_columns(rows, {"x": "a.b", "tools": ""}, "f")
    assert [row.values for row in mapped] == [{"a": {"b": 1}, "x": 1}, {"a": {}, "x": None}]


def write(folder, *rows, name="q.jsonl"):
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_the_mapping_decides_the_shape(tmp_path):
    """R33: what is mapped is read, whatever other shape the columns have."""
    path = write(tmp_path, {"prompt": "long", "question": "q", "messages": [], "gold": {"x": ["4"]}})
    (prompt,) = load_prompts(path, columns={"prompt": "question", "answer": "gold.x"})
    assert (prompt.text, prompt.columns["answer"]) == ("q", ["4"])
    path = write(tmp_path, {"q": "q", "steps": ["a", "b"], "ok": [True, False]})
    (row,) = load_stepwise(path, columns={"prompt": "q", "completions": "steps", "labels": "ok"})
    assert (row.steps, row.labels) == (("a", "b"), (1.0, 0.0))


def test_prompts_of_the_api_keep_their_row(tmp_path):
    """R30, R33: a text of `load_prompts` still has its earlier turns and its columns for the trainer."""
    from trimtab.api import _as_prompts

    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    texts = load_texts(
        str(write(tmp_path, {"ask": turns, "gold": "4"})), columns={"prompt": "ask", "answer": "gold"}
    )
    assert texts == ["q"]
    (prompt, plain) = _as_prompts([*texts, "other"])
    assert (prompt.messages, prompt.columns["answer"]) == (tuple(turns), "4")
    assert plain.messages == ({"role": "user", "content": "other"},)


def recipe(tmp_path, *overrides, rl='data = "q.jsonl"\n'):
    path = tmp_path / "r.toml"
    path.write_text(f'[rl]\n{rl}rewards = ["math"]\n', encoding="utf-8")
    return load_recipe(path, overrides)


def test_columns_in_a_recipe_and_on_the_command_line(tmp_path):
    """R33: a table of the recipe, one name, a whole table, and NAME=PATH pairs."""
    wanted = {"prompt": "question", "answer": "gold.0"}
    table = 'data = "q.jsonl"\ncolumns = { prompt = "question", answer = "gold.0" }\n'
    assert recipe(tmp_path, rl=table).rl.columns == wanted
    single = (("rl.columns.prompt", "question"), ("rl.columns.answer", "gold.0"))
    assert recipe(tmp_path, *single).rl.columns == wanted
    inline = '{ prompt = "question", answer = "gold.0" }'
    assert recipe(tmp_path, ("rl.columns", inline)).rl.columns == wanted
    assert recipe(tmp_path, ("rl.columns", "prompt=question, answer=gold.0")).rl.columns == wanted
    with pytest.raises(
        ConfigError, match=r"--rl.columns question is no table: write --rl.columns.NAME VALUE"
    ):
        recipe(tmp_path, ("rl.columns", "question"))
    with pytest.raises(ConfigError, match="columns maps nothing: the data are a task"):
        recipe(tmp_path, *single, rl='data = "task:arithmetic"\n')


def test_every_stage_reads_its_own_columns(tmp_path, monkeypatch):
    """R33: rl, its hidden data and the evaluation; each falls back to the one before."""
    from trimtab.pipeline.sources import held_out_prompts, train_prompts

    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"question": "train"})
    write(tmp_path, {"task": "hidden"}, name="h.jsonl")
    write(tmp_path, {"goal": "eval"}, name="e.jsonl")
    rl = {"data": "q.jsonl", "columns": {"prompt": "question"}, "rewards": ["math"]}
    hidden = {"hidden_data": "h.jsonl", "hidden_columns": {"prompt": "task"}}
    built = build_recipe({"rl": {**rl, **hidden}, "eval": {"data": "e.jsonl", "columns": {"prompt": "goal"}}})
    assert [prompt.text for prompt in train_prompts(built)] == ["train"]
    assert [prompt.text for prompt in held_out_prompts(built, "rl.hidden_data")] == ["hidden"]
    assert [prompt.text for prompt in held_out_prompts(built, "eval.data")] == ["eval"]
    built = build_recipe({"rl": {**rl, **hidden}, "eval": {}})
    assert [prompt.text for prompt in held_out_prompts(built, "eval.data")] == ["hidden"]
    built = build_recipe({"rl": {**rl, "hidden_data": "q.jsonl"}})
    assert [prompt.text for prompt in held_out_prompts(built, "rl.hidden_data")] == ["train"]
