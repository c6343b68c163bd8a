from __future__ import annotations

import subprocess
import sys

import pytest

from trimtab.cli import main as entry
from trimtab.cli.main import COMMANDS, main
from trimtab.cli.parser import Parser, split_overrides
from trimtab.errors import ConfigError, DivergedError


def test_help_imports_nothing_heavy():
    """Design: `trimtab --help` < 0.5 s: only the standard library and errors are imported before parsing."""
    code = (
        "import sys; from trimtab.cli.main import main; main(['--help']); "
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'torch', 'pydantic', 'transformers', 'rich', 'numpy', 'pyarrow', 'jinja2'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name, capsys):
    """Issue 2: each command explains its options."""
    if name == "run":
        assert main([name, "--help"]) == 0
    else:
        with pytest.raises(SystemExit) as left:
            main([name, "--help"])
        assert left.value.code == 0
    assert f"usage: trimtab {name}" in capsys.readouterr().out


def test_run_lists_every_key(capsys, tmp_path):
    """Style 10: every knob has one sentence, which is its help."""
    from trimtab.config import Recipe
    from trimtab.config.schema import keys

    assert main(["run", "--keys"]) == 0
    listed = capsys.readouterr().out
    assert main(["run", str(tmp_path / "any.toml"), "--help"]) == 0
    assert capsys.readouterr().out == listed
    squeezed = " ".join(listed.split())
    for key in keys(Recipe):
        assert f"  {key.name}  (" in listed
        assert key.description in squeezed


def test_exit_codes(monkeypatch, capsys):
    """Design: 0 done, 1 a bug, 2 the user can mend it, 3 diverged, 130 interrupted; one line each."""

    def fail(error):
        def dispatch(arguments):
            raise error

        monkeypatch.setattr(entry, "_dispatch", dispatch)
        monkeypatch.delenv("TRIMTAB_DEBUG", raising=False)
        code = main(["x"])
        return code, capsys.readouterr().err

    assert fail(ConfigError("a\n  b")) == (2, "trimtab: error: a b.\n")
    assert fail(DivergedError("it went bad.")) == (3, "trimtab: error: it went bad.\n")
    assert fail(KeyboardInterrupt()) == (130, "trimtab: error: interrupted.\n")
    code, shown = fail(ZeroDivisionError("division by zero"))
    assert (code, shown.count("\n")) == (1, 1)
    assert "ZeroDivisionError: division by zero" in shown
    assert "TRIMTAB_DEBUG=1" in shown


def test_debug_keeps_the_traceback(monkeypatch):
    """Issue 2: unexpected exceptions keep their traceback with TRIMTAB_DEBUG=1."""

    def dispatch(arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(entry, "_dispatch", dispatch)
    monkeypatch.setenv("TRIMTAB_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["x"])


def test_overrides_are_divided_from_options():
    """Issue 2: --key value and --key=value anywhere, negative numbers and equal signs in values."""
    parser = Parser(prog="trimtab run")
    parser.add_argument("recipe")
    parser.add_argument("--output")
    parser.add_argument("--resume", action="store_true")
    words = "--rl.kl.coef 0.01 r.toml --output out --rl.reward_clip -1 --resume --name=a=b --seed 7"
    rest, overrides = split_overrides(parser, words.split())
    assert rest == ["r.toml", "--output", "out", "--resume"]
    assert overrides == [("rl.kl.coef", "0.01"), ("rl.reward_clip", "-1"), ("name", "a=b"), ("seed", "7")]


def test_run_hands_over_recipe_stage_and_resume(monkeypatch, tmp_path, capsys):
    """Issue 2: `trimtab run RECIPE --stage rl --output DIR --resume --key value` reaches the pipeline."""
    import trimtab.pipeline

    seen = {}

    def run_pipeline(recipe, stage, resume, stop):
        seen.update(recipe=recipe, stage=stage, resume=resume)
        return {"stages": {"rl": 1.0}}

    monkeypatch.setattr(trimtab.pipeline, "run_pipeline", run_pipeline)
    recipe = tmp_path / "r.toml"
    recipe.write_text('[rl]\ndata = "p"\nrewards = "sales"\n')
    out = tmp_path / "out"
    argv = ["run", str(recipe), "--stage", "rl", "--output", str(out), "--resume", "--rl.kl.coef", "0.02"]
    assert main([*argv, "--rl.rewards", "sales,length"]) == 0
    assert (seen["stage"], seen["resume"]) == ("rl", True)
    assert seen["recipe"].rl.kl.coef == 0.02
    assert [spec.name for spec in seen["recipe"].rl.rewards] == ["sales", "length"]
    assert seen["recipe"].paths.policy == str(out / "policy")
    assert str(out / "summary.json") in capsys.readouterr().out
