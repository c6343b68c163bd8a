"""A chat endpoint whose replies are a function of what it is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.unit.rewards.local_server import LocalServer, QuietHandler, running

# Rules (system), data (user), the nonce: the text of the reply.
Says = Callable[[str, str, str], str]


class ChatServer(LocalServer):
    """``requests`` are the bodies that came."""

    def __init__(self, says: Says) -> None:
        super().__init__(_Handler)
        self.says = says
        self.requests: list[Any] = []
        self.finish_reason = "stop"

    @property
    def url(self) -> str:
        """The base address."""
        return f"{super().url}/v1"


class _Handler(QuietHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = self.body()
        self.server.requests.append({**body, "path": self.path})
        rules, data = (message["content"] for message in body["messages"])
        text = self.server.says(rules, data, re.findall(r'"nonce": "(\w+)"', rules)[-1])
        choice = {
            "message": {"role": "assistant", "content": text},
            "finish_reason": self.server.finish_reason,
        }
        answer = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@contextmanager
def chat_server(says: Says) -> Iterator[ChatServer]:
    """A running ChatServer."""
    with running(ChatServer(says)) as server:
        yield server


def answers_in(data: str, nonce: str) -> list[str]:
    """The answers between the marks, as an honest judge reads them."""
    return re.findall(rf"<{nonce} answer[^>]*>\n(.*?)\n</{nonce}>", data, re.DOTALL)


def honest_score(rules: str, data: str, nonce: str) -> str:
    """Scores by length, at most 10."""
    return json.dumps({"nonce": nonce, "score": min(10, len(answers_in(data, nonce)[0]))})


def honest_choice(rules: str, data: str, nonce: str) -> str:
    """Prefers the longer answer."""
    first, second = (len(text) for text in answers_in(data, nonce))
    winner = "tie" if first == second else ("A" if first > second else "B")
    return json.dumps({"nonce": nonce, "winner": winner})
