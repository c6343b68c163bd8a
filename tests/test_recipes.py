"""Every recipe loads and names things that exist; every public name and key says what it is."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest

import trimtab
from trimtab.config import Recipe, load_recipe
from trimtab.config.schema import keys
from trimtab.data import load_pairs, load_preferences, load_prompts, load_stepwise
from trimtab.pipeline.leaks import refuse_leaks
from trimtab.pipeline.sources import TASK
from trimtab.pipeline.training import check_batches
from trimtab.rewards.registry import build_reward, uses_process_reward, uses_reward_model
from trimtab.rewards.user_file import is_user_file
from trimtab.tasks.registry import JUDGES, TASKS

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
IDS = [str(path.relative_to(ROOT)) for path in RECIPES]
SOURCES = sorted((ROOT / "src" / "trimtab").rglob("*.py"))
each_recipe = pytest.mark.parametrize("path", RECIPES, ids=IDS)


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in recipes are from the repository's root."""
    monkeypatch.chdir(ROOT)


def files_of(recipe: Recipe) -> dict[str, str]:
    """Data sources that are files, by key."""
    found = {
        "sft.data": recipe.sft and recipe.sft.data,
        "reward_model.data": recipe.reward_model and recipe.reward_model.data,
        "process_reward.data": recipe.process_reward and recipe.process_reward.data,
        "rl.data": recipe.rl and recipe.rl.data,
        "rl.hidden_data": recipe.rl and recipe.rl.hidden_data,
        "eval.data": recipe.eval and recipe.eval.data,
    }
    return {key: source for key, source in found.items() if source and not source.startswith(TASK)}


def tasks_of(recipe: Recipe) -> set[str]:
    """Procedural tasks that the recipe draws prompts from."""
    sources = [recipe.rl.data, recipe.rl.hidden_data] if recipe.rl else []
    sources += [recipe.process_reward.data] if recipe.process_reward else []
    return {s.removeprefix(TASK).partition("?")[0] for s in sources if s and s.startswith(TASK)}


@each_recipe
def test_recipe_loads(path: Path) -> None:
    """Style 10: every recipe is valid, has a stage, and its counts fit together."""
    recipe = load_recipe(path)
    assert recipe.stages
    if recipe.rl:
        check_batches(recipe.rl, num_prompts=10_000)
    for algorithm in ("ppo", "grpo"):
        assert load_recipe(path, [("rl.algorithm", algorithm)]).rl


@each_recipe
def test_data_files_are_there(path: Path) -> None:
    """Issue 2: what a recipe reads is in the repository, and has rows."""
    recipe = load_recipe(path)
    readers = {
        "sft.data": load_pairs,
        "reward_model.data": load_preferences,
        "process_reward.data": load_stepwise,
    }
    for key, source in files_of(recipe).items():
        assert (ROOT / source).is_file(), f"{path.name}: {key} = {source}"
        assert len(readers.get(key, load_prompts)(source)) >= 8
    assert tasks_of(recipe) <= TASKS.keys()


@each_recipe
def test_enough_prompts(path: Path) -> None:
    """Issue 2: a step's prompts, and those of the evaluation, exist."""
    recipe = load_recipe(path)
    rl = recipe.rl
    if rl and not rl.data.startswith(TASK):
        check_batches(rl, len(load_prompts(rl.data)))
    if recipe.eval and "rl.hidden_data" in files_of(recipe):
        assert len(load_prompts(files_of(recipe)["rl.hidden_data"])) >= recipe.eval.num_prompts


@each_recipe
def test_hidden_prompts_are_hidden(path: Path) -> None:
    """R20: the recipe is not refused: nothing hidden is trained on in any stage, not even nearly."""
    refuse_leaks(load_recipe(path))


@each_recipe
def test_rewards_and_judges_exist(path: Path) -> None:
    """Issue 2, R27: rewards and their options are known; the judge is known and is no training reward."""
    recipe = load_recipe(path)
    rest = [spec for spec in recipe.rl.rewards if spec.name != "process_reward"] if recipe.rl else []
    if recipe.rl and uses_process_reward(recipe.rl.rewards):
        assert recipe.process_reward, "a reward asks for a process reward model"
    if recipe.rl and not uses_reward_model(recipe.rl.rewards):
        assert not rest or build_reward(rest).names
    elif recipe.rl:
        assert recipe.reward_model or recipe.rl.reward_model, "a reward asks for a reward model"
    if recipe.eval and recipe.eval.judge:
        assert is_user_file(recipe.eval.judge) or recipe.eval.judge in JUDGES
        assert recipe.rl
        assert recipe.eval.judge not in [spec.name for spec in recipe.rl.rewards]


@each_recipe
def test_recipes_do_not_overwrite_one_another(path: Path) -> None:
    """R3: the records of two recipes are kept apart."""
    run = load_recipe(path).paths.run
    others = [load_recipe(other).paths.run for other in RECIPES if other != path]
    assert run not in others
    assert run.startswith("output/")


@each_recipe
def test_commands_in_comments_are_true(path: Path) -> None:
    """Style: a `trimtab run` in a recipe's comment names a file and keys that exist."""
    known = {key.name for key in keys(Recipe)} | {"stage", "output", "resume"}
    comments = " ".join(line.strip("# ") for line in path.read_text("utf-8").splitlines() if line[:1] == "#")
    for command in re.findall(r"trimtab run (\S+\.toml(?:\s+--\S+\s+[^-\s]\S*)*)", comments):
        recipe, *rest = shlex.split(command)
        assert (ROOT / recipe).is_file(), recipe
        assert {word[2:] for word in rest if word.startswith("--")} <= known
    for option in re.findall(r"--([a-z_.]+\.[a-z_.]+)", comments):
        assert option in known, option


def test_the_default_locations() -> None:
    """R3: the sales recipes write to output/sales_sft, sales_rm, sales_grpo and sales_ppo."""
    demo = ROOT / "recipes" / "sales" / "demo.toml"
    for algorithm in ("grpo", "ppo"):
        paths = load_recipe(demo, [("rl.algorithm", algorithm)]).paths
        assert (paths.sft, paths.reward_model) == ("output/sales_sft", "output/sales_rm")
        assert paths.policy == f"output/sales_{algorithm}"
        assert paths.summary == "output/sales_demo/summary.json"


@pytest.mark.parametrize("name", [name for name in trimtab.__all__ if not name.startswith("__")])
def test_public_names_are_documented(name: str) -> None:
    """Style 8: every name of the package says what it is, and so do its public methods."""
    found = getattr(trimtab, name)
    assert inspect.getdoc(found), name
    methods = inspect.getmembers(found, inspect.isfunction) if inspect.isclass(found) else []
    assert not [f"{name}.{key}" for key, value in methods if not key.startswith("_") and not value.__doc__]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src" / "trimtab")))
def test_public_functions_and_classes_have_docstrings(path: Path) -> None:
    """Style: every module, public function, class and method has a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    missing = [] if ast.get_docstring(tree) or not tree.body else [path.name]
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        inner = node.body if isinstance(node, ast.ClassDef) else []
        methods = [n for n in inner if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
        missing += [n.name for n in (node, *methods) if not ast.get_docstring(n)]
    assert not missing
