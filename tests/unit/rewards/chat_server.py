"""A chat endpoint whose replies are a function of what it is asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Rules (system), data (user), the nonce: the text of the reply.
Says = Callable[[str, str, str], str]


class ChatServer(ThreadingHTTPServer):
    """``requests`` are the bodies that came."""

    daemon_threads = True

    def __init__(self, says: Says) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.says = says
        self.requests: list[Any] = []
        self.finish_reason = "stop"

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
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

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def chat_server(says: Says) -> Iterator[ChatServer]:
    """A running ChatServer."""
    server = ChatServer(says)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
