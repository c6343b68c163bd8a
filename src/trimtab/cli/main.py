"""The entry of ``trimtab``: find the command, run it, and turn every failure into one sentence.

Exit codes: 0 done, 1 a bug, 2 something that the user can mend, 3 the run diverged, 75 the run stalled,
130 or 143 stopped by SIGINT or SIGTERM.
Nothing but the standard library is imported before the command line is parsed.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import TextIO

from trimtab import __version__
from trimtab.cli.foreign import foreign_sentence
from trimtab.cli.parser import Parser, parse
from trimtab.errors import ConfigError, StoppedError, TrimtabError, nearest

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("trimtab.cli.run", "run the stages of a recipe: SFT, reward model, RL, evaluation"),
    "check": ("trimtab.cli.check", "look for mistakes in a recipe before it costs time"),
    "eval": ("trimtab.cli.evaluate", "evaluate a policy on the hidden prompts of a recipe"),
    "compare": ("trimtab.cli.compare", "put two runs, or two models, side by side"),
    "report": ("trimtab.cli.report", "print the report of a run"),
    "rollouts": ("trimtab.cli.rollouts", "print what was sampled and what it earned, step by step"),
    "chat": ("trimtab.cli.chat", "talk with a model"),
    "rewards": ("trimtab.cli.rewards", "list rewards, or score completions with one"),
    "models": ("trimtab.cli.models", "list or fetch models to start from"),
    "bench": ("trimtab.cli.bench", "measure a model's speed, and estimate the time of a recipe"),
    "doctor": ("trimtab.cli.doctor", "show versions, cores and what this machine can do"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; see the module for the codes."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Libraries talk on stderr unless told otherwise; what a user reads there should be ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            return _dispatch(arguments)
    except StoppedError as error:
        print(f"trimtab: {error}.", file=sys.stderr)
        return error.exit_code
    except TrimtabError as error:
        return _say(f"{' '.join(str(error).split()).rstrip('.')}.", error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted.", 130)
    except BrokenPipeError:
        # The reader (`| head`) has gone; point stdout elsewhere so that closing it does not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("TRIMTAB_DEBUG"):
            raise
        if (sentence := foreign_sentence(error)) is not None:
            return _say(f"{sentence}.", 2)
        shown = " ".join(f"{type(error).__name__}: {error}".split())[:400].rstrip(": .")
        return _say(f"{shown}; this is a bug in trimtab, set TRIMTAB_DEBUG=1 to see where.", 1)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"trimtab {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise ConfigError(f"There is no command '{name}'{nearest(name, COMMANDS)}; see `trimtab --help`.")
    module = import_module(COMMANDS[name][0])
    parser = Parser(prog=f"trimtab {name}", description=module.__doc__)
    module.add_arguments(parser)
    split = getattr(module, "split", None)
    return int(module.execute(parse(parser, rest) if split is None else split(parser, rest)))


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {sentence}" for name, (_, sentence) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: trimtab COMMAND [options]",
            "",
            "Align a language model with reinforcement learning: SFT, reward model, PPO or GRPO, evaluation.",
            "",
            "commands:",
            *lines,
            "",
            "`trimtab COMMAND --help` shows the options of a command, `trimtab run --keys` every recipe key.",
        ]
    )


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as one line; those of other packages are for their own developers."""
    if "trimtab" in filename:
        print(f"trimtab: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _say(sentence: str, exit_code: int) -> int:
    print(f"trimtab: error: {sentence}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    raise SystemExit(main())
