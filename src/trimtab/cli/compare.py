"""Put two runs side by side by their figures, or two models by their answers and a judge."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trimtab.cli.figures import figures_of, table
from trimtab.cli.parser import Parser
from trimtab.cli.report import read_summary
from trimtab.errors import ConfigError, DataError


def add_arguments(parser: Parser) -> None:
    """Add the options of `trimtab compare`."""
    parser.add_argument("a", metavar="A", help="a run's DIR or summary.json; or a model")
    parser.add_argument("b", metavar="B", help="the same of the other")
    models = parser.add_argument_group("to compare two models")
    models.add_argument("--data", metavar="FILE", help="prompts that both answer")
    models.add_argument("--judge", metavar="NAME", help="sales_quality, a reward model, or FILE.py:function")
    models.add_argument("--num-prompts", type=int, default=128, metavar="N", help="prompts used (128)")
    models.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (256)")
    models.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0 is greedy (1.0)")
    models.add_argument("--top-p", type=float, default=0.9, metavar="P", help="nucleus sampling (0.9)")
    models.add_argument("--tie-margin", type=float, default=0.02, metavar="X", help="closer is a tie (0.02)")
    models.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda or cuda:N (auto)")
    models.add_argument("--seed", type=int, default=42, metavar="N", help="of sampling and interval (42)")


def execute(args: argparse.Namespace) -> int:
    """Print the table; return the exit code."""
    if args.data or args.judge or (_is_model(args.a) and _is_model(args.b)):
        print(compare_models(args))
        return 0
    figures = [figures_of(read_summary(Path(source))) for source in (args.a, args.b)]
    print(compare_figures(*figures))
    return 0


def compare_figures(a: dict[str, float], b: dict[str, float]) -> str:
    """Return a table of every figure of either run, with B − A where both have it.

    Raises:
        DataError: neither has a figure.
    """
    names = list(dict.fromkeys([*a, *b]))
    if not names:
        raise DataError("Neither summary holds a figure: give two runs that have finished a stage.")
    rows = [[name, _shown(a.get(name)), _shown(b.get(name)), _difference(a, b, name)] for name in names]
    return table(["figure", "A", "B", "B − A"], rows)


def compare_models(args: argparse.Namespace) -> str:
    """Sample both models on the prompts and return the win rate of B against A, with its 95 % interval.

    Raises:
        ConfigError: --data or --judge is missing.
    """
    missing = [f"--{name}" for name in ("data", "judge") if not getattr(args, name)]
    if missing:
        raise ConfigError(
            f"To compare two models, {' and '.join(missing)} must be given: prompts that both answer, and "
            "who judges the answers."
        )
    if args.num_prompts < 1:
        raise ConfigError(f"--num-prompts {args.num_prompts} must be at least 1.")
    from trimtab.evals.win_rate import build_judge, win_rate
    from trimtab.functional.text_stats import distinct_n
    from trimtab.pipeline.sources import prompts_for

    judge = build_judge(args.judge, tie_margin=args.tie_margin, device=args.device)
    prompts = prompts_for(args.data, "hidden", args.seed, args.num_prompts)
    answers: dict[str, list[Any]] = {name: sample(path, prompts, args) for name, path in _sides(args)}
    won = win_rate(prompts, answers["B"], answers["A"], judge, seed=args.seed)
    rows = []
    for name, path in _sides(args):
        found = answers[name]
        length = sum(len(completion.token_ids) for completion in found) / len(found)
        cut = sum(completion.finish_reason == "length" for completion in found) / len(found)
        variety = distinct_n([completion.token_ids for completion in found], 2)
        rows.append([f"{name} {path}", f"{length:.1f}", f"{cut:.1%}", f"{variety:.3f}"])
    verdict = f"B wins {won.value:.1%} against A (95 % interval {won.low:.1%} to {won.high:.1%})"
    counts = f"{won.wins} wins, {won.ties} ties, {won.losses} losses on {won.n} prompts, by {args.judge}"
    header = ["model", "tokens", "cut at limit", "distinct-2"]
    return f"{table(header, rows)}\n\n{verdict}: {counts}"


def sample(path: str, prompts: list[Any], args: argparse.Namespace) -> list[Any]:
    """Return one completion of each prompt by the model at ``path``."""
    from trimtab.data import encode_prompt
    from trimtab.models.load import load_causal_lm, load_tokenizer
    from trimtab.rollout.engine import SamplingParams, build_engine

    params = SamplingParams(
        max_new_tokens=args.max_new_tokens, temperature=args.temperature, top_p=args.top_p, seed=args.seed
    )
    tokenizer = load_tokenizer(path)
    encoded = [encode_prompt(tokenizer, prompt.messages, where=f"prompt {prompt.id}") for prompt in prompts]
    engine = build_engine(load_causal_lm(path, device=args.device), tokenizer)
    return [group[0] for group in engine.generate(encoded, 1, params)]


def _sides(args: argparse.Namespace) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("A", args.a), ("B", args.b)


def _is_model(source: str) -> bool:
    return source.startswith("builtin:") or (Path(source) / "config.json").is_file()


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _difference(a: dict[str, float], b: dict[str, float], name: str) -> str:
    return f"{b[name] - a[name]:+.4g}" if name in a and name in b else ""
