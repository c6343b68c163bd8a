"""Read a recipe: TOML, presets, overrides, and errors that name file, line, key and the nearest valid one."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trimtab.config.algorithms import ALGORITHMS, PRESETS
from trimtab.config.idle import doubtful_settings, idle_settings, written_keys
from trimtab.config.recipe import PathsConfig, Recipe
from trimtab.config.schema import field_type, key_names
from trimtab.config.sentence import sentence
from trimtab.config.user_text import read_user_text
from trimtab.errors import ConfigError, nearest


def load_recipe(
    path: str | Path, overrides: Sequence[tuple[str, str]] = (), output: str | Path | None = None
) -> Recipe:
    """Return the frozen recipe of ``path`` with ``overrides`` (dotted key, text) applied.

    Order, later wins: defaults, the preset of ``rl.algorithm``, the file, ``output``, the overrides.

    Raises:
        ConfigError: the file is missing or not TOML, a key is unknown, or a value does not fit.
    """
    source = Path(path)
    if not source.exists():
        raise ConfigError(
            f"There is no recipe at {source}: give the path of a TOML file, such as recipes/sales/demo.toml."
        )
    text = read_user_text(source, "the recipe")
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{source} is not valid TOML: {error}.") from None
    if output is not None:
        tree["paths"] = PathsConfig.under(output).model_dump()
    for key, value in overrides:
        _set(tree, key, _parse(key, value))
    return build_recipe(tree, where=str(source), text=text, overridden=[key for key, _ in overrides])


def build_recipe(
    tree: Mapping[str, Any], where: str = "recipe", text: str = "", overridden: Sequence[str] = ()
) -> Recipe:
    """Validate plain data into a Recipe, applying the preset of its algorithm.

    ``text`` is the TOML that the data came from, for line numbers; ``overridden`` are the keys that did not.

    Warns of settings that have no effect beside others (``idle.py``).

    Raises:
        ConfigError: with the first problem as one sentence.
    """
    data = _with_preset(dict(tree), where)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(sentence(error, where, text, overridden)) from None
    _say_what_is_idle(recipe, list(written_keys(tree)), overridden, where)
    return _with_algorithm_in_paths(recipe)


def _say_what_is_idle(recipe: Recipe, written: Sequence[str], overridden: Sequence[str], where: str) -> None:
    """Warn of settings that do nothing, or hardly what was meant.

    Raises:
        ConfigError: one that contradicts another.
    """
    for text, is_refused in idle_settings(recipe, written, overridden):
        if is_refused:
            raise ConfigError(f"{where}: {text}.")
        warnings.warn(f"{where}: {text}.", stacklevel=3)
    for text in doubtful_settings(recipe):
        warnings.warn(f"{where}: {text}.", stacklevel=3)


def _with_preset(tree: dict[str, Any], where: str) -> dict[str, Any]:
    rl = tree.get("rl")
    if not isinstance(rl, Mapping):
        return tree
    algorithm = rl.get("algorithm", "grpo")
    if algorithm not in PRESETS:
        raise ConfigError(
            f"{where}: rl.algorithm = {algorithm!r} is not known{nearest(str(algorithm), ALGORITHMS)}."
        )
    merged = _merge(PRESETS[algorithm], rl)
    clip = rl.get("clip")
    if isinstance(clip, Mapping) and {"low", "high"} & clip.keys() and "ratio" not in clip:
        # The preset's factor would hide the distances that are asked for.
        merged["clip"] = {key: value for key, value in merged["clip"].items() if key != "ratio"}
    for key in ("rewards", "hidden_rewards"):
        if isinstance(merged.get(key), (str, list)):
            merged[key] = _reward_specs(merged[key])
    return {**tree, "rl": merged}


def _reward_specs(rewards: str | list[Any]) -> list[Any]:
    """Accept `"sales, my.py:fn"`, a list of names, and a list of tables."""
    entries = rewards.split(",") if isinstance(rewards, str) else rewards
    return [{"name": entry.strip()} if isinstance(entry, str) else entry for entry in entries]


def _with_algorithm_in_paths(recipe: Recipe) -> Recipe:
    algorithm = recipe.rl.algorithm if recipe.rl else "policy"
    paths = {key: value.replace("{algorithm}", algorithm) for key, value in recipe.paths.model_dump().items()}
    return recipe.model_copy(update={"paths": PathsConfig(**paths)})


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--{key}: '{parent}' is a value, not a table; name one of its keys only.")
    node[last] = value


def _parse(key: str, text: str) -> Any:
    """Read the text of an override as the type of its key: strings stay strings, the rest is TOML."""
    annotation = field_type(Recipe, key)
    if annotation is None:
        raise ConfigError(f"--{key} is not a key of a recipe{nearest(key, key_names(Recipe))}.")
    if key in ("rl.rewards", "rl.hidden_rewards"):
        return text
    if "str" in annotation and "list" not in annotation and "dict" not in annotation:
        return text
    if "list[str]" in annotation and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    if annotation.startswith("dict[str, str]") and not text.lstrip().startswith("{"):
        return _pairs(key, text)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return {"True": True, "False": False}.get(text, text)


def _pairs(key: str, text: str) -> dict[str, str]:
    """``prompt=question, answer=gold.0`` as a table."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ConfigError(f"--{key} {text} is no table: write --{key}.NAME VALUE, or --{key} NAME=VALUE,….")
    return {name.strip(): value.strip() for name, _, value in pairs}
