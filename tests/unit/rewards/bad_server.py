"""A server of rewards that answers well, badly, late or not at all, as it is told."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.unit.rewards.local_server import LocalServer, QuietHandler, running

HTML = b"<html><body>Bad Gateway</body></html>"
PLAIN = {"content-type": "application/json"}
Reply = tuple[int, dict[str, str], bytes]


class BadServer(LocalServer):
    """``mode`` may be changed while it runs; ``bodies`` and ``heads`` are of the requests that came."""

    def __init__(self, mode: str = "good", slow_s: float = 30.0) -> None:
        super().__init__(_Handler)
        self.mode, self.slow_s = mode, slow_s
        self.bodies: list[Any] = []
        self.heads: list[dict[str, str]] = []
        self.busy = self.most_busy = 0  # requests at once
        self.lock = threading.Lock()


class _Handler(QuietHandler):
    server: BadServer

    def do_POST(self) -> None:
        body = self.body()
        server = self.server
        with server.lock:
            server.bodies.append(body)
            server.heads.append({key.lower(): value for key, value in self.headers.items()})
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            self._answer(body)
        finally:
            with server.lock:
                server.busy -= 1

    def _answer(self, body: Any) -> None:
        mode, _, once = self.server.mode.partition(" once ")
        if once:  # "500 once good": the next requests get the second mode
            self.server.mode = once
        if mode == "slow":
            time.sleep(self.server.slow_s)
        if mode in ("drip", "drip_head"):
            self._drip(mode)
            return
        if mode == "hang up":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers, text = reply(mode, body)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        length = len(text) + (100 if mode == "truncated" else 0)
        self.send_header("content-length", str(length))
        self.end_headers()
        self.wfile.write(text)
        if mode == "truncated":
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def _drip(self, mode: str) -> None:
        """One byte at a time: every single read is in time, the whole never is."""
        if mode == "drip":
            self.send_response(200)
            self.send_header("content-length", "100000")
            self.end_headers()
        for _ in range(600):
            self.wfile.write(b" " if mode == "drip" else b"H")
            self.wfile.flush()
            time.sleep(0.05)


def reply(mode: str, body: Any) -> Reply:
    """Status, headers and body of an answer; "good" scores by the length of the completion."""
    is_ours = "samples" in body
    texts = [s["completion"] for s in body["samples"]] if is_ours else body["query"]
    values: Any = [float(len(text)) for text in texts]
    bad = {
        "nan": [float("nan")] * len(values),
        "infinite": [1e999] * len(values),
        "strings": [str(value) for value in values],
        "short": values[:-1],
        "long": [*values, 1.0],
        "nested": [[value] for value in values],
        "null": [None] * len(values),
    }
    if mode in bad:
        values = bad[mode]
    answer = {"results": [{"value": value} for value in values]} if is_ours else {"rewards": values}
    text = json.dumps(answer).encode()
    if mode == "html":
        return 200, {"content-type": "text/html"}, HTML
    if mode == "html 502":
        return 502, {"content-type": "text/html"}, HTML
    if mode == "empty":
        return 200, PLAIN, b""
    if mode == "deep":
        return 200, PLAIN, b"[" * 100_000
    if mode == "huge":
        return 200, PLAIN, text + b" " * 20_000_000
    if mode == "bomb":
        return 200, PLAIN | {"content-encoding": "gzip"}, gzip.compress(b" " * 50_000_000 + text)
    if mode == "redirect":
        return 307, {"location": "http://169.254.169.254/latest/"}, b""
    if mode == "wrong keys":
        return 200, PLAIN, b'{"result": [1.0]}'
    if mode == "errors":
        return (
            200,
            PLAIN,
            json.dumps({"results": [{"value": 9, "error": "no\x1b[31m gold"}] * len(values)}).encode(),
        )
    if mode.isdigit():
        return int(mode), PLAIN | {"retry-after": "0"}, b'{"error": "not today"}'
    return 200, PLAIN, text


@contextmanager
def bad_server(mode: str = "good", slow_s: float = 30.0) -> Iterator[BadServer]:
    """A running BadServer."""
    with running(BadServer(mode, slow_s)) as server:
        yield server


def dead_address() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
