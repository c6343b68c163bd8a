"""The house holds: import order, size budgets, and who may import what. There is no allow-list."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "trimtab"
ORDER = [
    *(
        "cores",
        "errors",
        "config",
        "types",
        "functional",
        "runs",
        "monitor",
        "data",
        "models",
        "rewards",
        "tasks",
    ),
    *("rollout", "evals", "distributed", "trainers", "pipeline", "api", "dashboard", "cli"),
]
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 400, 80, 6
FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc", "util", "helper"}
ONE_FILE_ONLY = {"ray": 1, "vllm": 1}
TRACKERS = {"tensorboard", "torch.utils.tensorboard", "wandb", "trackio", "mlflow"}
FILES = sorted(SOURCE.rglob("*.py"))
IDS = [str(path.relative_to(SOURCE)) for path in FILES]


def imported_modules(tree: ast.AST, path: Path) -> list[tuple[str, int]]:
    """Every module that the file imports, with the line; relative imports are resolved."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["trimtab", *path.relative_to(SOURCE).parts[:-1]]
                base = ".".join([*package[: len(package) - node.level + 1], base]).rstrip(".")
            found.append((base, node.lineno))
            if base == "trimtab":
                found += [(f"trimtab.{alias.name}", node.lineno) for alias in node.names]
    return found


def room_of(path: Path) -> str:
    """The package (or top-level module) of trimtab that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_import_order(path: Path) -> None:
    """Design: a package imports only those to its left, and itself; only the root package is lazy."""
    if path == SOURCE / "__init__.py":
        return
    room = room_of(path)
    assert room in ORDER, f"{room} has no place in the import order"
    for module, line in imported_modules(ast.parse(path.read_text()), path):
        parts = module.split(".")
        if parts[0] != "trimtab" or len(parts) == 1 or parts[1] == "__version__":
            continue
        assert ORDER.index(parts[1]) <= ORDER.index(room), f"{path}:{line} {room} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_budgets(path: Path) -> None:
    """Design: at most 400 lines a file, 80 lines and 6 parameters a function (self and spec names aside)."""
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES, f"{path} has {len(text.splitlines())} lines: split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{path}:{node.lineno} {node.name} has {length} lines"
            positional = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            count = len([name for name in positional if name not in ("self", "cls")])
            assert count <= MAX_PARAMETERS, f"{path}:{node.lineno} {node.name} has {count} parameters"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_names_and_seams(path: Path) -> None:
    """Design: no catch-all modules; trackers only in runs/sinks.py; monitor and dashboard without torch."""
    assert not {part.removesuffix(".py") for part in path.relative_to(SOURCE).parts} & FORBIDDEN_NAMES
    modules = {module for module, _ in imported_modules(ast.parse(path.read_text()), path)}
    if path != SOURCE / "runs" / "sinks.py":
        assert not modules & TRACKERS, f"{path} imports a tracker"
    if room_of(path) in ("monitor", "dashboard", "runs", "config", "errors"):
        assert not {m for m in modules if m.split(".")[0] == "torch"}, f"{path} imports torch"


def test_engines_are_imported_in_one_file() -> None:
    """Design: ray and vllm are imported in one file each."""
    for library, limit in ONE_FILE_ONLY.items():
        users = [
            path
            for path in FILES
            if any(m.split(".")[0] == library for m, _ in imported_modules(ast.parse(path.read_text()), path))
        ]
        assert len(users) <= limit, f"{library} is imported in {users}"


def test_no_unpickling() -> None:
    """Threats: safetensors and JSON only, no unpickling anywhere."""
    for path in FILES:
        modules = {module.split(".")[0] for module, _ in imported_modules(ast.parse(path.read_text()), path)}
        assert not modules & {"pickle", "dill", "joblib", "shelve", "marshal"}, path
        assert "torch.load" not in path.read_text(), path
