"""Serve a reward over HTTP, for `remote` of another run or for OpenRLHF."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(actions: Any) -> None:
    """Add `rewards serve`."""
    parser = actions.add_parser(
        "serve",
        help="score for other programs, over HTTP",
        description="POST /score (ours) and POST /get_reward (OpenRLHF's); see docs/rewards.md.",
    )
    parser.add_argument("reward", metavar="NAME|FILE.py:function", help="a reward's name, or your function")
    parser.add_argument("--port", type=int, default=8000, help="port (8000)")
    parser.add_argument("--host", default="127.0.0.1", help="address; another than this needs a token")
    parser.add_argument("--token-env", default="", metavar="VAR", help="environment variable with the token")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that requests may use for it",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that score (1)")
    parser.add_argument("--queue", type=int, default=64, help="requests that may wait for one (64)")
    parser.add_argument(
        "--deadline", type=float, default=60.0, help="seconds until a request is given up (60)"
    )
    parser.add_argument("--max-body", type=int, default=16, metavar="MIB", help="largest request (16)")
    parser.add_argument("--reward-model", metavar="DIR", help="a reward model, for rewards that use one")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="a keyword argument of the reward"
    )


def execute(args: argparse.Namespace) -> int:
    """Serve until the process is told to stop."""
    from trimtab.cli.rewards import read_options
    from trimtab.rewards.http_json import token_from
    from trimtab.rewards.serve_guard import ServeSettings
    from trimtab.rewards.serve_worker import ServedReward
    from trimtab.rewards.server import serve

    return serve(
        ServeSettings(
            reward=ServedReward(args.reward, read_options(args.option), args.reward_model),
            host=args.host,
            port=args.port,
            token=token_from("server", args.token_env),
            token_env=args.token_env,
            allowed_hosts=tuple(args.allow_host),
            num_workers=args.workers,
            queue=args.queue,
            deadline_s=args.deadline,
            max_body=args.max_body * 2**20,
        )
    )
