"""The reward server: what it refuses, what it survives, and that its client understands it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.remote_runs import served

from trimtab.cli.main import main
from trimtab.errors import ConfigError
from trimtab.rewards.remote import remote_reward
from trimtab.rewards.serve_guard import ServeSettings, host_is_allowed
from trimtab.rewards.serve_pool import Refused, WorkerPool
from trimtab.rewards.serve_worker import ServedReward
from trimtab.rewards.server import create_app

from .toy import sample

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")
SALES = ServedReward("sales", {})
TOKEN = "0123456789abcdef-token"
BODY = {"samples": [{"messages": [{"role": "user", "content": "hi"}], "completion": "abc"}]}
REWARDS = """
import os, re, time

def f(prompts, completions, **kwargs):
    print("noise on stdout 7 7")
    for text in completions:
        if text == "sleep":
            time.sleep(60)
        if text == "regex":  # a loop in C that never lets another thread run
            re.match(r"(a+)+$", "a" * 64 + "b")
        if text == "exit":
            os._exit(3)
        if text == "raise":
            raise RuntimeError("the gold answer is /root/secret.txt")
    return [float("nan") if text == "nan" else float(len(text)) for text in completions]
"""


class FakePool(WorkerPool):
    """Answers at once, or as it is told, without processes."""

    refusal: Refused | None = None
    bug = False

    async def start(self) -> None:
        """Nothing to start."""

    async def score(self, kind: str, body: bytes) -> bytes:
        """What was asked."""
        if self.bug:
            raise KeyError("/root/secret")
        if self.refusal is not None:
            raise self.refusal
        return json.dumps({"kind": kind, "length": len(body)}).encode()


def client(pool: FakePool | None = None, **settings: Any) -> Any:
    """A client of the application; its Host header is 127.0.0.1."""
    from fastapi.testclient import TestClient

    app = create_app(ServeSettings(SALES, **settings), pool or FakePool(SALES))
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


def sentence(response: Any) -> str:
    """The error of a response, which is one sentence in JSON."""
    said = response.json()
    assert set(said) == {"error"}
    assert said["error"].endswith(".") and "\n" not in said["error"] and "Traceback" not in said["error"]
    return str(said["error"])


def test_both_endpoints_and_health() -> None:
    """R31: /score, /get_reward and /health; nothing else, no pages about itself."""
    with client() as http:
        assert http.post("/score", json=BODY).json()["kind"] == "score"
        assert http.post("/get_reward", json={"query": ["a"], "extra": 1}).json()["kind"] == "get_reward"
        assert http.get("/health").json()["status"] == "ok"
        for path in ("/", "/docs", "/openapi.json", "/redoc", "/score/"):
            assert http.get(path, follow_redirects=False).status_code in (404, 405, 307)
        assert sentence(http.get("/score")) and http.get("/score").status_code == 405


BAD_BODIES: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "Invalid JSON"),
    "a list": (b"[]", "not valid"),
    "nothing": (b"", "not valid"),
    "no samples": (b'{"samples": []}', "samples"),
    "another key": (json.dumps({**BODY, "model": "x"}).encode(), "model"),
    "a number": (b'{"samples":[{"messages":[{"role":"user","content":"a"}],"completion":3}]}', "completion"),
    "deep": (b'{"samples":' + b"[" * 100_000, "not valid"),
    "half a surrogate": (json.dumps(BODY).replace("abc", "\\ud800").encode(), "not valid"),
    "too many": (json.dumps({"samples": BODY["samples"] * 4097}).encode(), "samples"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_bodies_that_are_not_valid(case: str) -> None:
    """Threats: a body of another form is 422 with one sentence that names the place."""
    body, words = BAD_BODIES[case]
    with client() as http:
        response = http.post("/score", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422 and words in sentence(response)


def test_lists_of_different_length() -> None:
    """Threats: as many prompts and labels as queries."""
    with client() as http:
        response = http.post("/get_reward", json={"query": ["a", "b"], "labels": [1]})
    assert response.status_code == 422 and sentence(response) == "The body has 2 queries and 1 labels."


def test_long_bodies_are_cut_off_also_without_a_length() -> None:
    """Threats: the limit counts what comes in, not only what Content-Length says."""
    headers = {"content-type": "application/json"}
    with client(max_body=1000) as http:
        assert http.post("/score", content=b" " * 1001, headers=headers).status_code == 413

        def pieces() -> Iterator[bytes]:
            yield from [b" " * 100] * 11

        response = http.post("/score", content=pieces(), headers=headers)
        assert response.status_code == 413 and "1000 bytes" in sentence(response)
        lying = http.post("/score", content=b"{}", headers={**headers, "content-length": "9" * 30})
        assert lying.status_code in (400, 413)


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": "application/json", "content-encoding": "gzip"}, {}],
)
def test_only_plain_json(headers: dict[str, str]) -> None:
    """Threats: a web page can send text/plain without asking, and gzip can hide gigabytes."""
    with client() as http:
        assert http.post("/score", content=b"{}", headers=headers).status_code == 415


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", ""]
)
def test_other_hosts_are_refused(host: str) -> None:
    """Threats: a page that has its own name point at this machine is refused (DNS rebinding)."""
    with client() as http:
        response = http.post("/score", json=BODY, headers={"host": host})
        assert response.status_code == 421 and sentence(response)
        assert http.get("/health", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "rewards.lan"]
)
def test_own_names_are_served(host: str) -> None:
    """R31: this machine by its loopback names, and by what --allow-host adds."""
    with client(allowed_hosts=("rewards.lan",)) as http:
        assert http.post("/score", json=BODY, headers={"host": host}).status_code == 200


def test_an_open_address_takes_addresses_and_its_own_name() -> None:
    """Threats: on 0.0.0.0 a request may name any address, which is no page's own name, but no other name."""
    settings = ServeSettings(SALES, host="0.0.0.0", token=TOKEN)
    assert host_is_allowed("10.1.2.3:8000", settings) and host_is_allowed("[fe80::1]:8000", settings)
    assert not host_is_allowed("evil.example:8000", settings)


def test_web_pages_are_refused() -> None:
    """Threats: whoever sends an Origin is a browser; no page has business here."""
    with client() as http:
        for origin in ("http://evil.example", "http://127.0.0.1:8000", "null"):
            response = http.post("/score", json=BODY, headers={"origin": origin})
            assert response.status_code == 403 and sentence(response)


def test_the_token() -> None:
    """Threats: without the right bearer token nothing is scored; health alone may be asked."""
    with client(token=TOKEN) as http:
        for given in (None, "", TOKEN, f"Bearer {TOKEN}x", f"bearer {TOKEN}", "Bearer ", f"Basic {TOKEN}"):
            headers = {} if given is None else {"authorization": given}
            response = http.post("/score", json=BODY, headers=headers)
            assert response.status_code == 401 and TOKEN not in sentence(response)
        right = {"authorization": f"Bearer {TOKEN}"}
        assert http.post("/score", json=BODY, headers=right).status_code == 200
        assert http.get("/health").status_code == 200


def test_refusals_of_the_pool_and_bugs() -> None:
    """Threats: 429 says when to come again; a bug says nothing of the inside."""
    pool = FakePool(SALES)
    with client(pool) as http:
        pool.refusal = Refused(429, "Too many.", after=7)
        response = http.post("/score", json=BODY)
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")
        pool.refusal, pool.bug = None, True
        response = http.post("/score", json=BODY)
        assert response.status_code == 500 and "secret" not in sentence(response)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_machines_need_a_token(host: str) -> None:
    """Threats: another address than this machine's own is refused without a token, in one sentence."""
    with pytest.raises(ConfigError, match="--token-env"):
        ServeSettings(SALES, host=host).check()
    with pytest.raises(ConfigError, match="16 characters"):
        ServeSettings(SALES, host=host, token="short").check()
    assert ServeSettings(SALES, host=host, token=TOKEN).check()


def test_the_command_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    """R31, threats: the same from the command line."""
    assert main(["rewards", "serve", "sales", "--host", "0.0.0.0"]) == 2
    assert "--token-env" in capsys.readouterr().err
    assert main(["rewards", "serve", "sales", "--token-env", "NOT_SET_ANYWHERE"]) == 2
    assert "NOT_SET_ANYWHERE is not set" in capsys.readouterr().err


class StuckWorker:
    """A worker that answers when it is allowed to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.starts = self.kills = 0

    async def start(self) -> None:
        self.starts += 1

    async def kill(self) -> None:
        self.kills += 1

    async def ask(self, kind: str, body: bytes) -> tuple[str, bytes]:
        await self.go.wait()
        return "done", b"{}"


async def outcome(pool: WorkerPool) -> int:
    """The status that a request gets."""
    try:
        await pool.score("score", b"{}")
    except Refused as refused:
        return refused.status
    return 200


def test_the_queue_is_bounded_and_a_stuck_worker_replaced() -> None:
    """R31: one runs, two wait, the rest is told 429 at once; at the deadline the worker is started anew."""

    async def run() -> tuple[list[int], int, int, list[int]]:
        pool = WorkerPool(SALES, queue=2, deadline_s=0.3)
        worker = StuckWorker()
        pool._idle.put_nowait(worker)  # type: ignore[arg-type]
        first = asyncio.gather(*(outcome(pool) for _ in range(5)))
        statuses = await first
        worker.go.set()
        after = [await outcome(pool) for _ in range(2)]
        return statuses, worker.starts, worker.kills, after

    statuses, starts, kills, after = asyncio.run(run())
    assert statuses.count(429) == 2 and 504 in statuses and 200 not in statuses
    assert starts >= 1 and kills >= 1
    assert after == [200, 200]


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_reward_that_hangs_dies_or_raises(tmp_path: Path) -> None:
    """R31, threats: each costs its own request; the next one is answered; nothing of the inside is told."""
    (tmp_path / "mine.py").write_text(REWARDS)
    with served(f"{tmp_path}/mine.py:f", "--deadline", "3", "--workers", "2") as (url, process):
        reward = remote_reward(url, retries=0, batch_size=1, concurrency=1, failures=99)
        told = ("sleep", "abc", "regex", "abc", "exit", "abc", "raise", "nan")
        results = reward.score([sample(text) for text in told])
        assert [r.value for r in results] == [None, 3.0, None, 3.0, None, 3.0, None, None]
        errors = [str(r.error) for r in results]
        assert "HTTP 504: The reward did not answer within 3 s" in errors[0] and "504" in errors[2]
        # A user's function runs in a process of its own below the server's worker, which outlives it.
        assert "f failed: its process ended with exit code 3" in errors[4]
        assert "RuntimeError" in errors[6]  # what the function said is the reward's own message
        assert "not a finite number" in errors[7]
        openrlhf = remote_reward(f"{url}/get_reward")
        assert [r.value for r in openrlhf.score([sample("abcd", prompt="q")])] == [4.0]
        workers = children_of(process.pid)
        assert len(workers) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_other_requests_go_on_while_one_hangs(tmp_path: Path) -> None:
    """R31: with two workers a hanging request does not hold up the next."""
    (tmp_path / "mine.py").write_text(REWARDS)
    with served(f"{tmp_path}/mine.py:f", "--deadline", "30", "--workers", "2") as (url, _):
        reward = remote_reward(url, retries=0, batch_size=1, concurrency=2, timeout_s=8.0)
        results = reward.score([sample("sleep"), *(sample("ab") for _ in range(20))])
    assert results[0].value is None
    assert [r.value for r in results[1:]] == [2.0] * 20


@pytest.mark.slow
def test_a_reward_that_cannot_be_built_ends_the_command() -> None:
    """R31: one sentence and exit code 2, no traceback."""
    command = [sys.executable, "-m", "trimtab.cli", "rewards", "serve", "sale", "--port", "0"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and time.monotonic() - began < 120
    assert "did you mean 'sales'?" in done.stderr and "Traceback" not in done.stderr
