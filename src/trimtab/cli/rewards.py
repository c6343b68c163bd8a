"""List the rewards there are, score completions with one, attack one, or serve one."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.cli import rewards_serve
from trimtab.cli.figures import table
from trimtab.cli.parser import Parser
from trimtab.cli.rewards_control import add_control, execute_control
from trimtab.errors import ConfigError, DataError

# The columns that hold the text to be scored, not something that the reward is told.
_SCORED = ("prompt", "completion")
_PROMPTS = ("prompt", "question", "problem", "input")


def add_arguments(parser: Parser) -> None:
    """Add `rewards list`, `score`, `audit`, `serve` and `control`."""
    names = "list|score|audit|serve|control"
    actions = parser.add_subparsers(dest="action", metavar=names, required=True)
    actions.add_parser("list", help="the rewards that have a name")
    scoring = actions.add_parser(
        "score",
        help="score the rows of a file",
        description="Write one {value, parts, error} per row. value null: the reward abstained.",
    )
    scoring.add_argument(
        "--data", required=True, metavar="FILE", help="rows with prompt, completion and the reward's columns"
    )
    scoring.add_argument(
        "--gold", action="store_true", help="score each row's own answer or solution, not its completion"
    )
    auditing = actions.add_parser(
        "audit",
        help="attack a reward: what does it pay for?",
        description="Score texts that answer nothing; exit code 1 when one is paid too well.",
    )
    auditing.add_argument("--data", metavar="FILE", help="rows with a prompt and a good completion (sales)")
    auditing.add_argument("--rounds", type=int, default=20, help="generations of the search (20)")
    auditing.add_argument("--seed", type=int, default=0, help="seed of the search (0)")
    auditing.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="largest share of an honest reward that is accepted (0.5)",
    )
    auditing.add_argument(
        "--forbidden",
        action="append",
        default=[],
        metavar="WORD",
        help="a word that must cost as much hidden as plain, repeatable (without --data: those of sales)",
    )
    rewards_serve.add_parser(actions)
    add_control(actions)
    for action in (scoring, auditing):
        action.add_argument(
            "reward", metavar="NAME|FILE.py:function", help="a reward's name, or your function"
        )
        action.add_argument("--json", metavar="FILE", help="where to write the results (the terminal)")
        action.add_argument("--reward-model", metavar="DIR", help="a reward model, for rewards that use one")
        action.add_argument(
            "--option",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="a keyword argument of the reward",
        )
        action.add_argument(
            "--columns",
            action="append",
            default=[],
            metavar="NAME=PATH",
            help="what a column is called in the data, such as answer=reward_model.ground_truth",
        )


def execute(args: argparse.Namespace) -> int:
    """List, score, audit, serve or control; return the exit code."""
    does = {"list": lambda _: _list(), "score": _score, "audit": _audit}
    return {**does, "serve": rewards_serve.execute, "control": execute_control}[args.action](args)


def _list() -> int:
    from trimtab.rewards.registry import REWARDS

    rows = [[name, ", ".join(_options_of(REWARDS[name])) or "none"] for name in sorted(REWARDS)]
    print(table(["name", "options"], rows, right=False))
    print("Your own: FILE.py:function, f(prompts, completions, **columns) -> list of numbers.")
    return 0


def _options_of(builder: Any) -> list[str]:
    parameters = [p for name, p in inspect.signature(builder).parameters.items() if name != "context"]
    return [p.name if p.default is p.empty else f"{p.name} = {p.default!r}" for p in parameters]


def _score(args: argparse.Namespace) -> int:
    samples = load_samples(args.data, read_columns(args.columns), needs_completion=not args.gold)
    reward = build_one(args.reward, read_options(args.option), args.reward_model)
    from trimtab.rewards.base import call_reward

    if args.gold:
        samples = _gold_samples(reward, samples, args.data)

    scored = call_reward(reward, samples)
    results = [{"value": one.value, "parts": dict(one.parts), "error": one.error} for one in scored]
    if args.json is None:
        print(_as_json(results))
        return 0
    _write(args.json, results)
    values = [result.value for result in scored if result.value is not None]
    mean = f"mean {sum(values) / len(values):.4g}, " if values else ""
    print(f"{len(results)} rows: {mean}{len(results) - len(values)} abstained; written to {args.json}")
    return 0


def _gold_samples(reward: Any, samples: Sequence[Any], path: str) -> list[Any]:
    """The rows with their own answers as completions."""
    from dataclasses import replace

    from trimtab.rewards.gold import HasGold

    if not isinstance(reward, HasGold):
        raise ConfigError(f"--gold: the reward {reward.name} knows no answers of rows; leave --gold out.")
    answered = []
    for sample in samples:
        text = reward.gold_completion(sample.prompt)
        if text is None:
            raise DataError(f"{path}: row {sample.prompt.id} has no answer of its own; leave --gold out.")
        answered.append(replace(sample, completion=text))
    return answered


def _as_json(what: Any) -> str:
    return json.dumps(what, ensure_ascii=False, indent=2, allow_nan=False)


def _write(path: str, what: Any) -> None:
    try:
        Path(path).write_text(_as_json(what) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {path} cannot be written: {error.strerror or error}.") from None


def _audit(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from trimtab.rewards.audit import audit_reward
    from trimtab.rewards.sales import FORBIDDEN

    samples = load_samples(args.data, read_columns(args.columns)) if args.data else _honest_sales(args.seed)
    reward = build_one(args.reward, read_options(args.option), args.reward_model)
    forbidden = args.forbidden or (() if args.data else FORBIDDEN)
    report = audit_reward(reward, samples, rounds=args.rounds, seed=args.seed, forbidden=forbidden)
    rows = [["honest answers", f"{report.honest:.3f}", "", ""]]
    for attack in report.attacks:
        share = report.share(attack.mean)
        shown = "" if share is None else f"{share:.2f}"
        rows.append([attack.name, f"{attack.mean:.3f}", shown, " ".join(attack.example.split())[:48]])
    print(table(["what was scored", "reward", "share", "for example"], rows, right=False))
    if args.json is not None:
        _write(args.json, asdict(report))
    if report.exploit is None:
        print("Honest answers earn no more than an empty one: this reward cannot tell them apart.")
        return 1
    is_fine = report.exploit <= args.threshold
    verdict = "within" if is_fine else "above"
    print(f"Exploit score {report.exploit:.2f}, {verdict} the threshold of {args.threshold:g}.")
    if report.evasion is not None:
        print(f"A hidden forbidden word wins back {report.evasion:.2f} of what it costs when it is plain.")
        is_fine = is_fine and report.evasion <= args.threshold
    return 0 if is_fine else 1


def _honest_sales(seed: int, count: int = 56) -> list[Any]:
    """Prompts of the sales task with good answers to them, every situation four times."""
    from trimtab.tasks.sales import generate_good_answers
    from trimtab.types import Prompt, Sample

    return [
        Sample(Prompt(str(number), ({"role": "user", "content": row["prompt"]},)), row["completion"])
        for number, row in enumerate(generate_good_answers(count, seed))
    ]


def build_one(name: str, options: dict[str, Any], reward_model: str | None) -> Any:
    """Return one reward by its name or `FILE.py:function`, without the weighted sum around it.

    Raises:
        RewardError: it is unknown, cannot be loaded, or needs a reward model.
    """
    from trimtab.config import RewardSpec
    from trimtab.rewards.registry import build_reward

    combined = build_reward([RewardSpec(name=name, options=options)], reward_model=reward_model)
    return combined.components[0][0]


def load_samples(
    path: str, columns: dict[str, str] | None = None, *, needs_completion: bool = True
) -> list[Any]:
    """Return the rows of a file as samples: ``prompt`` (text or messages, may be missing) and ``completion``.

    ``columns`` maps names to paths. Without a prompt, ``question``, ``problem`` or ``input`` is taken for it.
    Without ``needs_completion`` a row may leave out its completion.

    Raises:
        DataError: the file cannot be read, or a row has no completion.
    """
    from trimtab.data import map_columns, read_rows
    from trimtab.data.messages import as_prompt, as_reply
    from trimtab.data.system import with_system
    from trimtab.errors import nearest
    from trimtab.types import Prompt, Sample

    samples = []
    for number, row in enumerate(map_columns(read_rows(path), columns, path)):
        if needs_completion and "completion" not in row.values:
            raise DataError(
                f"{row.where}: the column 'completion' is missing{nearest('completion', row.values)}; "
                "each row needs the text to be scored."
            )
        given = next((row.values[name] for name in _PROMPTS if row.values.get(name)), None)
        # Many rewards judge the completion alone, so a row may leave out its prompt.
        messages = as_prompt(given, row.where) if given else ({"role": "user", "content": ""},)
        completion = row.values.get("completion")
        reply = as_reply(completion, row.where, "completion") if needs_completion or completion else ""
        if not isinstance(reply, str):
            raise DataError(
                f"{row.where}: 'completion' has reasoning or tool calls beside its text, which no reward "
                "sees; write it as the one text that the model wrote."
            )
        prompt = Prompt(
            id=str(row.values.get("id", number)),
            messages=with_system(messages, row),
            columns={name: value for name, value in row.values.items() if name not in _SCORED},
            is_conversational=isinstance(given, list),
        )
        samples.append(Sample(prompt, reply))
    return samples


def read_columns(words: Sequence[str]) -> dict[str, str]:
    """Read NAME=PATH.

    Raises:
        ConfigError: a word is not of this form.
    """
    columns: dict[str, str] = {}
    for word in words:
        name, equals, path = (part.strip() for part in word.partition("="))
        if not equals or not name:
            raise ConfigError(
                f"--columns {word} is not NAME=PATH: write for example --columns answer=gold.0."
            )
        columns[name] = path
    return columns


def read_options(words: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE, the value as TOML where it is, else as text.

    Raises:
        ConfigError: a word is not of this form.
    """
    import tomllib

    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option {word} is not KEY=VALUE: write for example --option pattern='^ok'.")
        try:
            options[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            options[key] = text
    return options
