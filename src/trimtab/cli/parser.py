"""Argument parsing whose mistakes are sentences, and recipe overrides: ``--any.dotted.key value``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from trimtab.errors import ConfigError, nearest

Override = tuple[str, str]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises a ConfigError instead of printing its usage and leaving."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Raise ``message`` as one sentence.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{message[0].upper()}{message[1:].rstrip('.')}; see `{self.prog} --help`.")


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments.

    Raises:
        ConfigError: an option is unknown (the nearest one is named), missing, or has a wrong value.
    """
    found, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        word = unknown[0].split("=")[0]
        if word.startswith("-"):
            what = f"there is no option {word}{nearest(word, known)}"
        else:
            what = f"'{word}' is one argument too many"
        parser.error(what)
    return found


def split_overrides(parser: Parser, arguments: Sequence[str]) -> tuple[list[str], list[Override]]:
    """Divide a command line into the command's own arguments and overrides of recipe keys.

    Every ``--option`` that the command does not know is an override, as ``--key value`` or ``--key=value``.

    Raises:
        ConfigError: an override has no value, or is neither an option nor a key of a recipe.
    """
    own = {option: action for action in parser._actions for option in action.option_strings}
    rest: list[str] = []
    overrides: list[Override] = []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if not word.startswith("--") or word == "--" or option in own:
            rest.append(word)
            if option in own and not equals and own[option].nargs != 0:
                rest.extend(value for value in [next(words, None)] if value is not None)
            continue
        key = option.removeprefix("--")
        _refuse_unknown(parser, key, own)
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise ConfigError(f"The override --{key} has no value: write --{key} VALUE or --{key}=VALUE.")
            value = following
        overrides.append((key, value))
    return rest, overrides


def _refuse_unknown(parser: Parser, key: str, own: dict[str, argparse.Action]) -> None:
    """A word that is no key but near an option (``--ouput``) or a table (``--rl``) is a slip of the pen."""
    from trimtab.config import Recipe
    from trimtab.config.schema import field_type, key_names

    names = key_names(Recipe)
    if key in names or field_type(Recipe, key) is not None:
        return
    below = next((name for name in names if name.startswith(f"{key}.")), None)
    if below is not None:
        raise ConfigError(f"--{key} is a table of the recipe: name one of its keys, such as --{below}.")
    known = [*names, *(option.removeprefix("--") for option in own if option.startswith("--"))]
    guess = nearest(key, known)
    hint = guess if "did you mean" in guess else "; `trimtab run --keys` lists them"
    raise ConfigError(f"--{key} is neither an option of `{parser.prog}` nor a key of a recipe{hint}.")
