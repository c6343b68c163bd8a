"""The pages are true: every path, function, key, default, command and link in them is that of the code."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from trimtab.cli.main import COMMANDS
from trimtab.cli.parser import Parser, parse
from trimtab.config import PRESETS, Recipe
from trimtab.config.schema import field_type, keys

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "trimtab"
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}

# What a run or a user makes, and what is in `make`'s own folder.
NOT_IN_THE_REPOSITORY = ("output/", "DIR/", "models/smollm2", "previous/", ".venv", "org/name", "group/name")
# Groups of metrics, explained in docs/metrics.md and tested there.
METRIC_GROUPS = {"loss", "reward", "rm", "sft", "kl", "policy", "completions", "critic", "train", "time"} | {
    "speed", "eval", "rewards", "clip_ratio", "stage", "constraint",
    "prm",
}  # fmt: skip
SECTIONS = ("sft", "reward_model", "process_reward", "rl", "eval", "monitor", "model", "paths")
KEYS = {key.name: key.default for key in keys(Recipe)}
TABLES = {name.rpartition(".")[0] for name in KEYS} | {f"{name}" for name in SECTIONS}


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def code_spans(text: str) -> list[str]:
    """Inline code outside of code blocks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", prose)


def find(path: str) -> Path | None:
    """The file or folder that a page means: from the root, from the package, or from the tests' folder."""
    return next((base / path for base in (ROOT, SOURCE, ROOT / "docs") if (base / path).exists()), None)


def names_in(tree: ast.Module) -> set[str]:
    """Top-level names of a module, and methods as ``Class.method``."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def places(text: str) -> Iterator[tuple[str, str]]:
    """Paths in inline code, with the name after the colon if there is one."""
    for span in code_spans(text):
        found = re.fullmatch(r"([\w./-]+\.py):([A-Za-z_][\w.]*)", span)
        if found:
            yield found[1], found[2]
        elif re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span) and ("/" in span or span.endswith(".py")):
            is_metric = span.split("/")[0] in METRIC_GROUPS and "." not in span
            if not is_metric and not span.startswith(NOT_IN_THE_REPOSITORY):
                yield span, ""


@pytest.mark.parametrize("page", TEXTS)
def test_paths_and_functions_exist(page: str) -> None:
    """Design (walk.md): every `path` and `module:function` of a page is there."""
    for path, name in places(TEXTS[page]):
        if path in ("mine.py", "FILE.py", "my_reward.py"):
            continue
        found = find(path)
        if found is None and "/" not in path:  # a bare file name, such as `grpo.py` beside its neighbours
            found = next(iter(sorted(SOURCE.rglob(path))), None)
        assert found is not None, f"{page}: there is no {path}"
        if name:
            assert name in names_in(ast.parse(found.read_text(encoding="utf-8"))), f"{page}: {path}:{name}"


def test_the_walk_names_enough() -> None:
    """Design: the walk goes through the whole house, not through a summary of it."""
    assert len([name for _, name in places(TEXTS["docs/walk.md"]) if name]) >= 40


@pytest.mark.parametrize("page", TEXTS)
def test_recipe_keys_exist(page: str) -> None:
    """Issue 2: every recipe key on a page is a key, or a table, of a recipe."""
    for span in code_spans(TEXTS[page]):
        found = re.match(rf"-{{0,2}}\[?((?:{'|'.join(SECTIONS)})\.[a-z_.]+?)\]?(?:$|[ =])", span)
        if found and not found[1].endswith((".json", ".toml", ".py")):
            assert found[1] in KEYS or found[1] in TABLES, f"{page}: {found[1]} is no key of a recipe"


@pytest.mark.parametrize("page", TEXTS)
def test_defaults_in_tables_are_those_of_the_code(page: str) -> None:
    """Style 10: a table that says a default says the right one."""
    for row in re.findall(r"^\| `([a-z_.]+)` \| ([^|]+) \|", TEXTS[page], re.MULTILINE):
        name, default = row[0], row[1].strip()
        if name in KEYS and page.startswith(("docs/algorithms", "docs/monitor")):
            assert default == KEYS[name], f"{page}: {name} is {KEYS[name]}, not {default}"


def leaves(tree: Mapping[str, Any], prefix: str = "rl.") -> Iterator[str]:
    """The entries of a preset as they are written on a page."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"`{prefix}{key} = {json.dumps(value)}`"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_those_of_the_code(preset: str) -> None:
    """R9, R10: the pages say of each preset exactly what it changes."""
    if preset == "ppo":
        text = re.search(r"preset `ppo` sets (.*?)\. The other", TEXTS["docs/algorithms/ppo.md"], re.DOTALL)
    else:
        text = re.search(rf"^\| `{preset}` \|[^|]*\|(.*)\|$", TEXTS["docs/algorithms/grpo.md"], re.MULTILINE)
    assert text is not None, f"{preset} is on no page"
    assert sorted(re.findall(r"`[^`]+`", text[1])) == sorted(leaves(PRESETS[preset]))


def command_lines(text: str) -> Iterator[list[str]]:
    """The commands in a page's shell blocks, split into words."""
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                yield shlex.split(line)


def parsed(words: list[str]) -> argparse.Namespace:
    """Parse a command line of trimtab as its command would."""
    assert words[1] in COMMANDS, f"{words[1]} is no command"
    module = importlib.import_module(COMMANDS[words[1]][0])
    parser = Parser(prog=f"trimtab {words[1]}")
    module.add_arguments(parser)
    split = getattr(module, "split", None)
    return parse(parser, words[2:]) if split is None else split(parser, words[2:])


@pytest.mark.parametrize("page", TEXTS)
def test_commands_parse(page: str) -> None:
    """Issue 2 (front door): every command, flag and override of a page exists, and so do its recipes."""
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for words in command_lines(TEXTS[page]):
        if words[0] == "make":
            assert words[1] in targets, f"{page}: make {words[1]}"
        elif words[0].rpartition("/")[2] == "trimtab":
            with contextlib.redirect_stdout(io.StringIO()):
                found = parsed(words)
            for key, value in getattr(found, "overrides", ()):
                # Below a table of free names (`rl.columns`) every name is a key.
                assert field_type(Recipe, key) is not None, f"{page}: --{key} {value}"
            for word in words:
                if re.match(r"(recipes|data|examples)/", word):
                    assert (ROOT / word.split(":")[0]).exists(), f"{page}: {word}"


def test_every_command_is_in_the_readme() -> None:
    """Issue 2 (front door): the table of commands is complete."""
    for page in ("README.md", "README.zh-CN.md"):
        found = set(re.findall(r"^\| `trimtab (\w+)` \|", TEXTS[page], re.MULTILINE))
        assert found == set(COMMANDS), page


@pytest.mark.parametrize("page", TEXTS)
def test_python_blocks_import_what_exists(page: str) -> None:
    """R30: Python on a page compiles, and the names that it imports are there."""
    for block in blocks(TEXTS[page], "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "trimtab":
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page}: {node.module}.{alias.name}"


@pytest.mark.parametrize("page", TEXTS)
def test_toml_blocks_have_known_keys(page: str) -> None:
    """R31: a recipe on a page would load."""
    for block in blocks(TEXTS[page], "toml"):
        for table, content in tomllib.loads(block).items():
            assert table in TABLES or table in KEYS, f"{page}: [{table}]"
            for key in content if isinstance(content, dict) else ():
                assert f"{table}.{key}" in {*KEYS, *TABLES}, f"{page}: {table}.{key}"


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_links_resolve(page: str) -> None:
    """Design: a link from page to page arrives."""
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page}: {target}"


def test_both_readmes_have_the_same_code() -> None:
    """Issue 2: the Chinese README has the commands and the code of the English one."""
    english, chinese = (page.read_text(encoding="utf-8") for page in READMES)
    for language in ("bash", "python"):
        assert blocks(english, language) == blocks(chinese, language)


def test_both_readmes_have_the_same_sections() -> None:
    """Issue 2: neither README leaves something out."""
    counts = []
    for page in READMES:
        text = page.read_text(encoding="utf-8")
        counts.append(
            [len(re.findall(pattern, text, re.MULTILINE)) for pattern in (r"^#+ ", r"^- ", r"^\| ")]
        )
        assert text.count("<!-- results:begin -->") == text.count("<!-- results:end -->") == 1
    assert counts[0] == counts[1]


def test_counts_in_the_readme_are_those_of_the_data() -> None:
    """Issue 2 (front door): the sizes that the README gives are right."""
    data = ROOT / "data"
    counts = [
        len((data / "sales" / name).read_text(encoding="utf-8").splitlines())
        for name in ("sft.jsonl", "preferences.jsonl")
    ]
    counts.append(len(json.loads((data / "prompts" / "sales_prompts.json").read_text(encoding="utf-8"))))
    for page in ("README.md", "README.zh-CN.md"):
        head = TEXTS[page].split("<!-- results:begin -->")[0]
        found = [int(number.replace(",", "")) for number in re.findall(r"\b\d,\d{3}\b|\b400\b", head)]
        assert found == counts, page
