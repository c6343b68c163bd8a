"""Talk with a model: a dialogue in the terminal, or one answer with --once."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from trimtab.cli.parser import Parser
from trimtab.errors import ConfigError, DataError


def add_arguments(parser: Parser) -> None:
    """Add the options of `trimtab chat`."""
    parser.add_argument("model", metavar="MODEL", help="a directory, a hub name, or builtin:tiny-zh")
    parser.add_argument("--once", metavar="TEXT", help="answer this and leave")
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (256)")
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0 is greedy (0.8)")
    parser.add_argument("--top-p", type=float, default=0.9, metavar="P", help="nucleus sampling (0.9)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed, the same answers (0)"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda or cuda:N (auto)")
    parser.add_argument(
        "--chat-template", metavar="FILE", help="a Jinja file, where the model has no template"
    )


def execute(args: argparse.Namespace) -> int:
    """Answer once or hold a dialogue; return the exit code."""
    if args.once is not None and not args.once.strip():
        raise ConfigError("--once is empty: write what the model should answer.")
    speaker = Speaker(args)
    if args.once is not None:
        print(speaker.answer(args.once))
        return 0
    print("Write a message and press Enter. /new starts over, Ctrl-D ends.")
    for line in _lines():
        if line.strip() == "/new":
            speaker.start_over()
        elif line.strip():
            try:
                print(f"{speaker.answer(line.strip())}\n")
            except DataError as error:
                print(f"trimtab: {' '.join(str(error).split())}", file=sys.stderr)
    return 0


class Speaker:
    """A model, and the dialogue with it so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        from trimtab.models.context import context_length
        from trimtab.models.load import load_causal_lm, load_tokenizer
        from trimtab.rollout.engine import SamplingParams, build_engine

        self.params = SamplingParams(
            max_new_tokens=args.max_new_tokens,
            temperature=args.temperature,
            top_p=args.top_p,
            seed=args.seed,
        )
        self.tokenizer = load_tokenizer(args.model, args.chat_template)
        model = load_causal_lm(args.model, device=args.device)
        self.room = context_length(model)
        self.engine = build_engine(model, self.tokenizer)
        self.system = [{"role": "system", "content": args.system}] if args.system else []
        self.start_over()

    def start_over(self) -> None:
        """Forget the dialogue."""
        self.messages: list[dict[str, str]] = list(self.system)

    def answer(self, text: str) -> str:
        """Return the model's answer to ``text`` in this dialogue, shorter where its context is full.

        Raises:
            DataError: the dialogue leaves no room for an answer, or the template refuses it; it is as it was.
        """
        from dataclasses import replace

        from trimtab.data import encode_prompt

        messages = [*self.messages, {"role": "user", "content": text}]
        ids = encode_prompt(self.tokenizer, messages, where="this dialogue")
        longest = self.params.max_new_tokens
        if self.room is not None:
            longest = min(longest, self.room - len(ids))
        if longest < 1:
            raise DataError(
                f"This dialogue has {len(ids)} tokens and the model reads {self.room}: there is no room for "
                "an answer: write less, or start over with /new."
            )
        # Another seed each turn, or the same question would always be answered with the same words.
        params = replace(self.params, seed=self.params.seed + len(messages), max_new_tokens=longest)
        completion = self.engine.generate([ids], 1, params)[0][0]
        self.messages = [*messages, {"role": "assistant", "content": completion.text}]
        limit = self.params.max_new_tokens
        if completion.finish_reason == "length":
            fix = (
                f"(cut off: the model reads {self.room} tokens; start over with /new)"
                if longest < limit
                else f"(cut off after {limit} tokens; --max-new-tokens {2 * limit} allows more)"
            )
            print(fix, file=sys.stderr)
        return printable(completion.text)


def printable(text: str) -> str:
    """Leave out control characters: what a model writes must not steer the terminal."""
    from trimtab.runs.plain_text import sanitise

    return sanitise(text)


def _lines() -> Any:
    while True:
        try:
            # input() writes its prompt to stdout only where a person is looking.
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
