"""What users get wrong: each case is one sentence on stderr, exit code 2, and no traceback.

``python tests/test_malformed.py`` prints every sentence.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import shlex
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trimtab.cli.main import main

RL = '[rl]\ndata = "prompts.json"\nrewards = ["list_format"]\nmax_new_tokens = 4\nsteps = 1\n'
SFT = '[sft]\ndata = "pairs.jsonl"\nsteps = 1\nmax_length = 64\n'
RM = '[reward_model]\ndata = "pairs.jsonl"\nsteps = 1\n'
MODEL = '[model]\npath = "good"\n'
RUN = "run r.toml --output out"


@dataclass(frozen=True)
class Case:
    """A command line, the files it finds, and words that its sentence must contain."""

    name: str
    argv: str
    words: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)


def recipe_case(name: str, recipe: str, *words: str, argv: str = RUN, **files: str | bytes) -> Case:
    """A case of ``trimtab run r.toml``; a file's name has ``_`` for ``.``."""
    named = {key.replace("_", "."): content for key, content in files.items()}
    return Case(name, argv, words, {"r.toml": recipe, **named})


def row_case(name: str, content: str | bytes, *words: str, stage: str = "sft") -> Case:
    """A case of a supervised stage whose data file is ``content``."""
    return recipe_case(name, MODEL + {"sft": SFT, "rm": RM}[stage], *words, pairs_jsonl=content)


def prompt_case(name: str, content: str | bytes, *words: str, rl: str = RL) -> Case:
    """A case of the RL stage whose prompts are ``content``."""
    return recipe_case(name, MODEL + rl, *words, prompts_json=content)


def model_case(name: str, model: str, *words: str, extra: str = "") -> Case:
    """A case of the RL stage that starts from ``model``, a directory that ``make_models`` wrote."""
    recipe = f'[model]\npath = "{model}"\n{extra}{RL}'
    return recipe_case(name, recipe, *words, prompts_json='["a", "b", "c", "d"]')


def reward_case(name: str, reward: str, *words: str, code: str = "") -> Case:
    """A case of ``trimtab rewards score``."""
    rows = '{"prompt": "a", "completion": "b"}'
    argv = f"rewards score {reward} --data rows.jsonl"
    return Case(name, argv, words, {"rows.jsonl": rows, "mine.py": code})


PAIR = '{"prompt": "a", "completion": "b"}\n'
GOOD = '["a", "b", "c", "d"]'
CASES = (
    Case("unknown command", "rnu r.toml", ("no command 'rnu'", "did you mean 'run'")),
    Case("no recipe given", "run", ("No recipe is given", "--keys")),
    Case("two recipes", "run a.toml b.toml", ("'b.toml' is one argument too many",)),
    Case("option misspelt", "run a.toml --ouput x", ("--ouput", "did you mean 'output'")),
    Case("option unknown", "chat m --tempature 1", ("--tempature", "did you mean '--temperature'")),
    Case("option without value", "chat m --seed", ("--seed", "expected one argument")),
    Case("option not a number", "chat m --seed x", ("--seed", "invalid int value: 'x'")),
    Case("argument missing", "eval", ("RECIPE", "trimtab eval --help")),
    Case("unknown action", "models fetch", ("invalid choice: 'fetch'", "get")),
    Case("unknown model to fetch", "models get smollm3", ("no model 'smollm3'", "smollm2-135m-instruct")),
    Case("chat with nothing", "chat good --once ''", ("--once is empty",)),
    Case("chat below zero", "chat good --once a --temperature -1", ("temperature", "-1")),
    Case("report of nothing", "report nowhere", ("no summary.json in nowhere", "--output DIR")),
    Case("summary broken", "report s.json", ("not readable JSON",), {"s.json": "{"}),
    Case("summary is a list", "compare s.json s.json", ("not the summary of a run",), {"s.json": "[]"}),
    Case("summary without figures", "compare s.json s.json", ("Neither summary holds",), {"s.json": "{}"}),
    Case("models without a judge", "compare good good", ("--data and --judge",)),
    Case("judge unknown", "compare good good --data p.json --judge qualty", ("'qualty'",), {"p.json": GOOD}),
    # Recipes and overrides.
    Case("recipe missing", "run nowhere.toml", ("no recipe at nowhere.toml", "TOML")),
    recipe_case("recipe not TOML", "[rl\n", "not valid TOML"),
    recipe_case("recipe not text", b"\xff\xfe\x00", "r.toml"),
    recipe_case("recipe empty", "", "no stage", "[sft]"),
    recipe_case("unknown key", RL + "learning_rte = 1\n", "r.toml:6", "learning_rte", "'learning_rate'"),
    recipe_case("unknown table", "[rll]\n", "'rll' is not a known key", "'rl'"),
    recipe_case("key missing", '[rl]\nrewards = ["sales"]\n', "'rl.data' is missing", "[rl]"),
    recipe_case("wrong type", RL + 'num_prompts = "many"\n', "rl.num_prompts", "integer", "'many'"),
    recipe_case("out of range", RL + "temperature = -1.0\n", "rl.temperature", "greater than 0"),
    recipe_case("algorithm unknown", RL + 'algorithm = "grppo"\n', "'grppo'", "'grpo'"),
    recipe_case("group of one", RL + "num_generations = 1\n", "num_generations = 1", "at least 2"),
    recipe_case("KL of the wrong sign", RL + '[rl.kl]\nestimator = "k1"\n', "wrong gradient", "'k3'"),
    recipe_case("no reward", '[rl]\ndata = "p"\nrewards = []\n', "rewards is empty"),
    recipe_case("stage not there", RL, "no [sft] table", argv=f"{RUN} --stage sft"),
    recipe_case("stage unknown", RL, "invalid choice: 'slf'", "'sft'", argv=f"{RUN} --stage slf"),
    recipe_case("override unknown", RL, "--rl.stps", "'rl.steps'", argv=f"{RUN} --rl.stps 3"),
    recipe_case("override without value", RL, "--rl.steps has no value", argv=f"{RUN} --rl.steps"),
    recipe_case("override of nothing", RL, "--zzz", "--keys", argv=f"{RUN} --zzz 3"),
    recipe_case("override of a wrong type", RL, "rl.steps", "'x'", argv=f"{RUN} --rl.steps x"),
    recipe_case("override of a table", RL, "--rl is a table", "such as --rl.", argv=f"{RUN} --rl 3"),
    # Data.
    recipe_case("data missing", MODEL + SFT, "no data at pairs.jsonl", ".jsonl"),
    row_case("data empty", "\n", "pairs.jsonl holds no rows"),
    row_case("row cut off", PAIR + '{"prompt": "a", ', "pairs.jsonl:2", "not valid JSON"),
    row_case("row a number", "17\n", "pairs.jsonl:1", "not a number"),
    row_case("row of another shape", PAIR + '{"prompt": "a"}\n', ":2", "'completion' is missing"),
    row_case(
        "column misspelt",
        '{"prompt": "a", "completon": "b"}',
        "does not hold pairs",
        "rename 'completon'",
        "'completion'",
    ),
    row_case("columns unknown", '{"question": "a", "textt": "b"}', "rename 'textt'", "'text'"),
    row_case("completion empty", '{"prompt": "a", "completion": " "}', ":1", "'completion' is empty"),
    row_case("completion null", '{"prompt": "a", "completion": null}', ":1", "'completion' is missing"),
    row_case("prompt a number", '{"prompt": 3, "completion": "b"}', ":1", "'prompt' must be text"),
    row_case("role unknown", '{"messages": [{"role": "usr", "content": "a"}]}', "'usr'", "'user'"),
    row_case("dialogue without answer", '{"messages": [{"role": "user", "content": "a"}]}', "assistant turn"),
    row_case("half a character", '{"prompt": "\\ud800", "completion": "b"}', "lone surrogate"),
    row_case("file not UTF-8", b'{"prompt": "\xff"}', "not UTF-8"),
    row_case("every row too long", PAIR.replace("b", "b" * 99), "longer than sft.max_length = 64"),
    row_case("steps instead of pairs", '{"prompt": "a", "completions": [], "labels": []}', "stepwise"),
    row_case("pairs as preferences", PAIR, "does not hold preference pairs", "chosen", stage="rm"),
    row_case(
        "preferences without prompt",
        '{"chosen": "x", "rejected": "y"}',
        "add the column `prompt`",
        stage="rm",
    ),
    row_case("one preference", '{"prompt": "a", "chosen": "b", "rejected": "c"}', "at least 2", stage="rm"),
    prompt_case("JSON not a list", '{"prompt": "a"}', "must hold a JSON list", "[ ]"),
    prompt_case("prompt empty", '["a", ""]', "prompts.json item 2", "'prompt' is empty"),
    prompt_case(
        "prompt ends with the assistant", '[{"prompt": [{"role": "assistant", "content": "a"}]}]', "ends"
    ),
    prompt_case(
        "prompt over the limit", f'["{"a" * 600}", "b", "c", "d"]', "over the limit of 512", "prompt 0"
    ),
    prompt_case("too few prompts", '["a"]', "rl.num_prompts = 4", "1 prompts", "--rl.num_prompts 1"),
    prompt_case(
        "hidden prompts trained on", GOOD, "also in rl.data", rl=RL + 'hidden_data = "prompts.json"\n'
    ),
    prompt_case("file of another kind", GOOD, "'.txt'", rl=RL.replace("prompts.json", "r.txt")),
    prompt_case(
        "task unknown", GOOD, "'arithmtic'", "'arithmetic'", rl=RL.replace("prompts.json", "task:arithmtic")
    ),
    prompt_case("hub data not there", GOOD, "no file org/name", rl=RL.replace("prompts.json", "org/name")),
    # Models.
    model_case("model missing", "./nowhere", "no model directory ./nowhere"),
    model_case("model empty", "empty", "no config.json"),
    model_case("model broken", "broken", "cannot be loaded"),
    model_case("model pickled", "pickled", "safetensors"),
    model_case("built-in model unknown", "builtin:tiny-xx", "'tiny-xx'", "tiny-zh"),
    model_case("no chat template", "plain", "no chat template", "model.chat_template"),
    model_case(
        "template not there", "plain", "no chat template t.jinja", extra='chat_template = "t.jinja"\n'
    ),
    model_case("no end token", "endless", "no end token", "eos_token"),
    model_case("pad is EOS", "padless", "pad", "end token"),
    # Rewards.
    reward_case("reward unknown", "sale", "'sale' is not known", "'sales'"),
    reward_case("reward file missing", "mine2.py:f", "no file mine2.py", "mine.py"),
    reward_case(
        "reward function missing", "mine.py:polit", "'polit'", "'polite'", code="def polite(): ...\n"
    ),
    reward_case("reward of no known form", "mine.py:f", "f(prompts, completions", code="def f(x): ...\n"),
    reward_case("reward file broken", "mine.py:f", "cannot be imported", "line 1", code="def f(:\n"),
    reward_case(
        "reward file exits", "mine.py:f", "cannot be loaded", "exit code 3", code="import os\nos._exit(3)\n"
    ),
    reward_case("reward timeout", "mine.py:f --option timeout_s=0", "timeout_s = 0", "above 0"),
    reward_case("reward option missing", "regex", "needs the option 'pattern'"),
    reward_case("reward option unknown", "length --option hgh=3", "no option 'hgh'", "'high'"),
    reward_case("reward option not a pair", "length --option high", "KEY=VALUE"),
    reward_case("reward model missing", "reward_model", "needs a reward model"),
    reward_case("results not writable", "sales --json no/where.json", "--json no/where.json", "No such file"),
    Case("rows missing", "rewards score sales --data no.jsonl", ("no data at no.jsonl",)),
    Case("no rows given", "rewards score sales", ("--data",)),
    Case(
        "row without completion", "rewards score sales --data a.json", ("'completion'",), {"a.json": '["a"]'}
    ),
    recipe_case("check that fails", MODEL + RL, "1 of", "failed", argv="check r.toml"),
    recipe_case("evaluation without table", MODEL + RL, "no table [eval]", argv="eval r.toml"),
)


def make_models(root: Path) -> None:
    """Write tiny models: one that is good, and one for each way of being wrong."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    build_tokenizer = runpy.run_path(str(Path(__file__).parent / "unit/data/toy_tokenizer.py"))[
        "build_tokenizer"
    ]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
    )
    model = LlamaForCausalLM(config)
    tokenizers = {
        name: build_tokenizer() for name in ("good", "plain", "endless", "padless", "broken", "pickled")
    }
    tokenizers["plain"].chat_template = None
    tokenizers["endless"].eos_token = None
    tokenizers["padless"] = build_tokenizer(pad_token="<|im_end|>")
    for name, tokenizer in tokenizers.items():
        if name in ("broken", "pickled"):
            config.save_pretrained(root / name)
        else:
            model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    (root / "broken" / "model.safetensors").write_bytes(b"\x00" * 64)
    (root / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    (root / "empty").mkdir()


def run_case(case: Case, root: Path) -> tuple[int, str]:
    """Run a case in a directory of its own, beside the models; return exit code and stderr."""
    folder = Path(tempfile.mkdtemp(dir=root))
    for path in root.iterdir():
        if (path / "config.json").is_file() or path.name == "empty":
            (folder / path.name).symlink_to(path)
    for name, content in case.files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (folder / "r.txt").write_text("a")
    before = Path.cwd()
    stderr = io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            code = main(shlex.split(case.argv))
    finally:
        os.chdir(before)
    return code, stderr.getvalue()


@pytest.fixture(scope="module")
def models(tmp_path_factory: Any) -> Path:
    """The directory that holds the models."""
    root: Path = tmp_path_factory.mktemp("malformed")
    make_models(root)
    return root


@pytest.fixture(autouse=True)
def without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No case may wait for a network; `datasets` is an optional package, here not installed."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_one_sentence_and_exit_code_2(case: Case, models: Path) -> None:
    """Issue 2: unknown key, missing file, malformed row, empty data, …: one sentence, no traceback."""
    code, stderr = run_case(case, models)
    assert code == 2, stderr
    assert "Traceback" not in stderr
    (line,) = stderr.splitlines()
    assert line.startswith("trimtab: error: ")
    assert line.endswith(".")
    assert len(line) < 700
    missing = [words for words in case.words if words not in line]
    assert not missing, line


def test_there_are_enough_cases() -> None:
    """Issue 2: at least 40 different mistakes, and no case twice."""
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)


if __name__ == "__main__":
    sys.modules["datasets"] = None  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as directory:
        make_models(Path(directory))
        for case in CASES:
            code, stderr = run_case(case, Path(directory))
            print(json.dumps({"case": case.name, "exit": code, "stderr": stderr.strip()}, ensure_ascii=False))
