"""Rows against the model that reads them, found by the check and before the first step of the first stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.unit.models.automaton import automaton, byte_tokenizer
from tests.unit.models.test_turn_ends import CHATML

from trimtab.cli.main import main
from trimtab.config import load_recipe
from trimtab.models.agreement import subject_at
from trimtab.models.load import load_tokenizer
from trimtab.pipeline.agreement import Models, companion_findings, start_of
from trimtab.pipeline.row_agreement import prompt_findings
from trimtab.runs import read_events
from trimtab.types import Prompt

SPECIALS = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<eos>")
LONG = "abcdefgh" * 9
CONTEXT = 64


def tokenizer_of(template: str = CHATML, specials: tuple[str, ...] = SPECIALS) -> Any:
    return byte_tokenizer(template, specials, eos_token="<eos>", pad_token="<|pad|>")


def make_model(folder: Path, family: str = "llama", template: str = CHATML) -> str:
    tokenizer = tokenizer_of(template)
    if family == "llama":
        model: Any = automaton({}, len(tokenizer), max_position_embeddings=CONTEXT, eos_token_id=3)
    else:
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=len(tokenizer),
            n_layer=1,
            n_embd=16,
            n_head=2,
            n_positions=CONTEXT,
            eos_token_id=3,
            bos_token_id=None,
        )
        model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows of which every second one is longer than 64 tokens."""
    monkeypatch.chdir(tmp_path)
    answers = ["short", LONG] * 3
    write(tmp_path / "sft.jsonl", [{"prompt": f"p{i}", "completion": a} for i, a in enumerate(answers)])
    write(
        tmp_path / "rm.jsonl",
        [{"prompt": f"p{i}", "chosen": a, "rejected": "no"} for i, a in enumerate(answers)],
    )
    write(
        tmp_path / "prm.jsonl",
        [
            {"prompt": f"p{i}", "completions": [a, "x"], "labels": [True, False]}
            for i, a in enumerate(answers)
        ],
    )
    write(tmp_path / "rl.jsonl", [{"prompt": text} for text in ("q", "qq", "q" * 30)])
    write(tmp_path / "hidden.jsonl", [{"prompt": "r" * 40}])
    return tmp_path


TABLES = {
    "sft": '[sft]\ndata = "sft.jsonl"\nsteps = 1\nbatch_size = 2\n',
    "reward_model": '[reward_model]\ndata = "rm.jsonl"\nsteps = 1\nbatch_size = 2\n',
    "process_reward": '[process_reward]\ndata = "prm.jsonl"\nsteps = 1\nbatch_size = 2\n',
    "rl": '[rl]\ndata = "rl.jsonl"\nrewards = ["length"]\nnum_prompts = 2\nsteps = 1\nmax_new_tokens = 20\n',
}
EVAL = '[eval]\ndata = "hidden.jsonl"\n'


def recipe_file(folder: Path, model: str, *tables: str) -> str:
    (folder / "r.toml").write_text(f'[model]\npath = "{model}"\ndevice = "cpu"\n' + "".join(tables))
    return "r.toml"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("sft", "sft.jsonl, row 1 has 94 tokens and exceeds the 64 positions of the model (3 rows do); set "),
        ("reward_model", "rm.jsonl, row 1 (chosen) has 95 tokens and exceeds the 64 positions"),
        ("process_reward", "prm.jsonl, row 1 has 96 tokens and exceeds the 64 positions"),
        ("rl", "prompt 2 has 49 tokens and with rl.max_new_tokens = 20 exceeds the 64 positions"),
    ],
)
def test_rows_beyond_the_context(
    family: str, stage: str, words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R37, case context-overflow: one sentence for learned and for rotary positions, by check and run."""
    file = recipe_file(here, make_model(here / "m", family), TABLES[stage])
    assert main(["check", file]) == 2
    assert words in capsys.readouterr().out
    assert main(["run", file, "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert words in error and "bug" not in error
    assert not (here / "out").exists()  # nothing was begun
    if stage != "rl":
        assert f"set {stage}.max_length = 64" in error
    else:
        assert "lower rl.max_new_tokens to 15" in error


@pytest.mark.parametrize("stage", ["reward_model", "process_reward"])
def test_what_the_fix_does(stage: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R37: with the limit that the sentence names the run goes through, and says what it left out."""
    family = "gpt2" if stage == "reward_model" else "llama"  # GPT-2 has no head for steps
    file = recipe_file(here, make_model(here / "m", family), TABLES[stage])
    assert main(["run", file, "--output", "out", f"--{stage}.max_length", "64"]) == 0
    said = "3 of 6 rows have an answer that is longer than the 64 tokens that the model reads: left out"
    assert said in capsys.readouterr().out
    warnings = [event.data["text"] for event in read_events("out/run", kind="warning")]
    assert said in warnings and any("they are left out" in text for text in warnings)


def test_a_later_stage_is_looked_at_before_the_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R37: prompts of RL and of the evaluation are too long: told before SFT trains."""
    write(here / "sft.jsonl", [{"prompt": f"p{i}", "completion": "short"} for i in range(4)])
    file = recipe_file(here, make_model(here / "m"), TABLES["sft"], TABLES["rl"], EVAL)
    assert main(["run", file, "--output", "out"]) == 2
    assert "of rl.data (rl.jsonl) do); lower rl.max_new_tokens to 15" in capsys.readouterr().err
    options = ["--rl.max_new_tokens", "10"]
    assert main(["run", file, "--output", "out", *options]) == 2
    assert "of hidden data (hidden.jsonl) do); lower rl.max_new_tokens to 5" in capsys.readouterr().err
    assert not (here / "out").exists()
    assert main(["run", file, "--output", "out", "--rl.max_new_tokens", "4"]) == 0


def test_a_template_that_loses_words_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R37: what a template leaves out and no encoding can put back is refused, with the row."""
    deaf = CHATML.replace("messages %}", "messages if m['role'] != 'system' %}")
    talk = [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "1+1?"}]
    write(here / "sft.jsonl", [{"prompt": talk, "completion": "2"}] * 3)
    file = recipe_file(here, make_model(here / "m", template=deaf), TABLES["sft"])
    assert main(["check", file]) == 2
    assert "sft.jsonl, row 0" in capsys.readouterr().out
    assert main(["run", file, "--output", "out"]) == 2
    assert "sft.jsonl, row 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("template", "generation"),
    [
        (CHATML.replace("{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] }}"), ""),
        (CHATML.replace("{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] }}"), "<think>\n"),
        (CHATML, "<think>\n"),
    ],
)
def test_reasoning_that_a_template_strips_or_opens_is_trained(
    template: str, generation: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R37, case think-template: trained once, the opening tag by the generation prompt; the check agrees."""
    template = template.replace("assistant\n{% endif %}", f"assistant\n{generation}{{% endif %}}")
    rows = [{"prompt": f"{n}+1?", "completion": f"<think>\n{n} and 1\n</think>\n\n{n + 1}"} for n in range(3)]
    write(here / "sft.jsonl", rows)
    file = recipe_file(here, make_model(here / "m", template=template), TABLES["sft"])
    assert main(["check", file, "--sft.max_length", "64"]) == 0
    assert "pass  sft.data words: 3 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CHATML, None),
        (CHATML.replace("m['content']", "m['content'] | replace('not', '')"), "'not?' is missing"),
    ],
)
def test_prompts_keep_their_words(template: str, message: str | None, here: Path) -> None:
    """R33, R37: a template that leaves out the system turn, or rewrites words, is named with the row."""
    folder = make_model(here / "m", template=template)
    talk = ({"role": "system", "content": "Be kind"}, {"role": "user", "content": "why not?"})
    subject, tokenizer = subject_at(folder, "model"), load_tokenizer(folder)
    found = {f.what: f for f in prompt_findings("p", [Prompt("7", talk)], subject, tokenizer, (64, 4))}
    assert found["p words"].status == ("fail" if message else "pass")
    if message:
        assert f"in prompt 7, {message}" in found["p words"].text


def test_companions_share_the_policys_tokens(here: Path) -> None:
    """R37: a reference or a critic with another vocabulary would read other words."""
    policy = make_model(here / "m")
    other = tokenizer_of(specials=(*SPECIALS[:3], "<x>", "<eos>"))
    automaton({}, len(other)).save_pretrained(here / "other")
    other.save_pretrained(here / "other")
    ppo = '[rl.ppo]\ncritic = "separate"\n'
    table = TABLES["rl"].replace(
        "[rl]", '[rl]\nalgorithm = "ppo"\nreference = "other"\nreward_model = "other"'
    )
    recipe = load_recipe(recipe_file(here, policy, table, ppo), [], None)
    models = Models(recipe)
    found = list(companion_findings(models, *models.at(policy)))
    assert [(f.what, f.status) for f in found] == [("reference", "fail"), ("critic", "fail")]
    assert "rl.ppo.critic_init = 'policy'" in found[1].text
    same = load_recipe("r.toml", [("rl.reference", policy), ("rl.reward_model", policy)], None)
    assert not list(companion_findings(Models(same), *models.at(policy)))


def test_what_stands_in_for_a_model_that_is_not_there_yet(here: Path) -> None:
    """R37: later stages are looked at with the model that SFT starts from, or with its output."""
    policy = make_model(here / "m")
    recipe = load_recipe(recipe_file(here, policy, TABLES["sft"], TABLES["rl"]), [], "out")
    assert start_of(recipe, "rl", recipe.stages) == policy
    assert start_of(recipe, "rl", ["rl"]) == policy
    make_model(here / "out" / "sft")
    assert start_of(recipe, "rl", ["rl"]) == "out/sft"
    assert start_of(recipe, "rl", recipe.stages) == policy  # it will be made again
