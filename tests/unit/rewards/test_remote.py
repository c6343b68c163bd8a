"""The reward ``remote`` against servers that are well, dead, slow and lying."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from trimtab.errors import RewardError
from trimtab.rewards import build_reward
from trimtab.rewards.http_json import BACKOFF_SECONDS, Endpoint, Timing, token_from
from trimtab.rewards.remote import RemoteReward, remote_reward
from trimtab.types import Prompt, Sample

from .bad_server import BadServer, bad_server, dead_address
from .toy import sample, toy_tokenizer

pytest.importorskip("httpx2")
TEXTS = ("a", "abc", "")


class Pauses:
    """A clock that stands still but for the pauses, which take no time; chance says 0.5."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def timing(self) -> Timing:
        return Timing(lambda: self.now, self.sleep, lambda: 0.5)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def reward_at(url: str, pauses: Pauses | None = None, **bounds: Any) -> RemoteReward:
    """A remote reward with short times."""
    other = {
        key: bounds.pop(key) for key in ("batch_size", "protocol", "columns", "tokenizer") if key in bounds
    }
    endpoint = Endpoint(url, **{"timeout_s": 5.0, "deadline_s": 20.0, "retries": 2, **bounds})
    return RemoteReward(endpoint, timing=(pauses or Pauses()).timing(), **other)


def texts(count: int) -> list[Sample]:
    return [sample("x" * i, prompt=f"p{i}") for i in range(count)]


def test_values_and_what_is_sent() -> None:
    """R31: our schema carries messages, completion, columns, ids and step; values come back in order."""
    messages = ({"role": "system", "content": "s"}, {"role": "user", "content": "你好"})
    rich = Sample(Prompt("7", messages, {"answer": "4", "n": [1]}), "abc", (5, 6), "length")
    with bad_server() as server:
        reward = reward_at(f"{server.url}/score")
        reward.set_step(3)
        assert [r.value for r in reward.score([rich, sample("")])] == [3.0, 0.0]
        assert reward.score([]) == []
    assert len(server.bodies) == 1
    assert server.bodies[0]["step"] == 3
    assert server.bodies[0]["samples"][0] == {
        "id": "7",
        "messages": list(messages),
        "completion": "abc",
        "columns": {"answer": "4", "n": [1]},
        "token_ids": [5, 6],
        "finish_reason": "length",
        "is_conversational": False,
    }


def test_the_protocol_of_openrlhf() -> None:
    """R31: {"query", "prompts", "labels"} to the address as it is given, without or with a chat template."""
    rows = [sample("4", prompt="2+2=", label="4"), sample("55", prompt="3+3=", answer=6)]
    with bad_server() as server:
        plain = remote_reward(f"{server.url}/get_reward")
        assert [r.value for r in plain.score(rows)] == [5.0, 6.0]
        templated = reward_at(f"{server.url}/rm", protocol="openrlhf", tokenizer=toy_tokenizer())
        templated.score(rows[:1])
    prompts = ["2+2=", "3+3="]
    assert server.bodies[0] == {"query": ["2+2=4", "3+3=55"], "prompts": prompts, "labels": ["4", 6]}
    rendered = "<|im_start|>user\n2+2=<|im_end|>\n<|im_start|>assistant\n"
    assert server.bodies[1] == {"query": [rendered + "4"], "prompts": [rendered], "labels": ["4"]}


def test_batches_and_concurrency() -> None:
    """R31: at most batch_size rows a request and concurrency requests at once; order is kept."""
    with bad_server("slow", slow_s=0.05) as server:
        reward = reward_at(server.url, batch_size=3, concurrency=2)
        assert [r.value for r in reward.score(texts(20))] == [float(i) for i in range(20)]
        assert sorted(len(body["samples"]) for body in server.bodies) == [2, *[3] * 6]
        assert server.most_busy == 2


GARBAGE = {
    "html": "no JSON (text/html, 37 bytes: '<html><body>Bad Gateway</body></html>')",
    "empty": "no JSON",
    "deep": "no JSON",
    "nan": "returned nan, which is not a finite number",
    "infinite": "returned inf, which is not a finite number",
    "strings": "which is not a number",
    "nested": "which is not a number",
    "short": "2 values came back for 3 completions",
    "long": "4 values came back for 3 completions",
    "huge": "longer than 16777216 bytes",
    "bomb": "compressed (gzip), which was not asked for",
    "redirect": "redirects to http://169.254.169.254/latest/, which is not followed",
    "truncated": "without sending complete message body",
    "hang up": "(3 tries)",
    "500": "HTTP 500: not today (3 tries)",
    "429": "HTTP 429: not today (3 tries)",
    "html 502": "HTTP 502 (3 tries)",
    "403": "HTTP 403: not today",
}


@pytest.mark.parametrize("path", ["/score", "/get_reward"])
@pytest.mark.parametrize(("mode", "words"), GARBAGE.items())
def test_garbage_abstains_and_says_why(mode: str, words: str, path: str) -> None:
    """R31, R19: what comes back and is no number per completion is an abstention with its cause, not 0."""
    with bad_server(mode) as server:
        protocol = "trimtab" if path == "/score" else "openrlhf"
        reward = reward_at(server.url + path, protocol=protocol, failures=100)
        results = reward.score([sample(text) for text in TEXTS])
    assert [r.value for r in results] == [None] * 3
    assert all(words in str(r.error) and str(r.error).startswith("reward remote") for r in results), results
    tries = 3 if mode in ("truncated", "hang up", "500", "429", "html 502") else 1
    assert len(server.bodies) == tries


@pytest.mark.parametrize("mode", ["wrong keys", "errors"])
def test_our_schema_is_checked(mode: str) -> None:
    """R31: an answer of another shape, and a value that comes with an error, are no values."""
    with bad_server(mode) as server:
        result = reward_at(server.url).score([sample("a")])[0]
    words = "no list 'results' (it has result)" if mode == "wrong keys" else "the server says: no gold"
    assert result.value is None and words in str(result.error)
    assert "\x1b" not in str(result.error)


def test_null_does_not_apply() -> None:
    """R19: null without an error is "does not apply", which is no failure."""
    with bad_server("null") as server:
        assert [(r.value, r.error) for r in reward_at(server.url).score([sample("a")])] == [(None, None)]


def test_retries_back_off_and_then_succeed() -> None:
    """R31: two failures, two pauses that double, then the value; with chance 0.5 the jitter is exactly 1."""
    pauses = Pauses()
    with bad_server("500 once truncated once good") as server:
        assert [r.value for r in reward_at(server.url, pauses).score([sample("ab")])] == [2.0]
    assert pauses.slept == [BACKOFF_SECONDS, 2 * BACKOFF_SECONDS]
    assert len(server.bodies) == 3


@pytest.mark.parametrize("mode", ["slow", "drip", "drip_head"])
def test_a_slow_answer_is_cut_off(mode: str) -> None:
    """R31: also an answer of which every byte comes in time is bound as a whole."""
    with bad_server(mode, slow_s=20.0) as server:
        began = time.monotonic()
        result = reward_at(server.url, timeout_s=0.3, retries=0).score([sample("a")])[0]
        assert result.value is None
        assert result.error == "reward remote: no answer within 0.3 s"
        assert time.monotonic() - began < 15.0  # far below what the server would take


def test_the_deadline_bounds_the_whole_call() -> None:
    """R31: batches that did not get their turn say so."""
    with bad_server("slow", slow_s=20.0) as server:
        endpoint = Endpoint(server.url, timeout_s=0.3, deadline_s=0.5, concurrency=1, retries=0, failures=99)
        results = RemoteReward(endpoint, batch_size=1).score(texts(6))
    assert all(r.value is None for r in results)
    assert "no answer within 0.5 s for the whole call" in str(results[-1].error)


def test_a_dead_server_is_left_alone_until_the_pause_is_over() -> None:
    """R31: after some failures nothing is sent; after the pause one request finds out, then all are."""
    pauses = Pauses()
    with bad_server("500") as server:
        reward = reward_at(
            server.url, pauses, batch_size=1, concurrency=1, retries=0, failures=3, pause_s=10.0
        )
        errors = [str(r.error) for r in reward.score(texts(5))]
        assert len(server.bodies) == 3
        assert errors[2] == "reward remote: HTTP 500: not today"
        assert errors[3] == (
            "reward remote: not asked: 3 failures in a row, the last was: HTTP 500: not today; "
            "it is asked again in 10.0 s"
        )
        pauses.now += 10.0
        reward.score(texts(5))
        assert len(server.bodies) == 4  # one trial
        server.mode = "good"
        reward.score(texts(5))
        assert len(server.bodies) == 4
        pauses.now += 20.0
        assert [r.value for r in reward.score(texts(5))] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_after_the_pause_one_request_finds_out() -> None:
    """R31: of many batches only one is sent while nobody knows whether the server is back."""
    pauses = Pauses()
    with bad_server("slow", slow_s=0.2) as server:
        reward = reward_at(
            server.url, pauses, batch_size=1, concurrency=6, retries=0, failures=1, pause_s=9.0
        )
        reward.client.breaker.failed("gone")
        assert reward.score(texts(6))[5].value is None and not server.bodies
        pauses.now += 9.0
        server.mode = "500"
        reward.score(texts(6))
        assert len(server.bodies) == 1
        pauses.now += 18.0
        server.mode = "good"
        assert [r.value for r in reward.score(texts(6))] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert len(server.bodies) == 7


def test_nobody_there() -> None:
    """R31: a refused connection is an abstention that names it."""
    result = reward_at(dead_address(), retries=1).score([sample("a")])[0]
    assert result.value is None
    assert str(result.error).startswith("reward remote: ConnectError") and "(2 tries)" in str(result.error)


def test_a_row_that_cannot_be_sent_costs_one_row() -> None:
    """R19: columns that are no JSON, and half surrogates, abstain by row; the rest is scored."""
    rows = [sample("a", when=object()), sample("\ud800"), sample("abc", when=float("nan")), sample("ab")]
    with bad_server() as server:
        results = reward_at(server.url).score(rows)
        assert [r.value for r in results] == [None, None, None, 2.0]
        assert "column 'when' cannot be sent" in str(results[0].error)
        assert "surrogate" in str(results[1].error)
        assert "column 'when'" in str(results[2].error)
        only = reward_at(server.url, columns=["answer"])
        assert [r.value for r in only.score([sample("a", when=object(), answer="4")])] == [1.0]
    assert server.bodies[-1]["samples"][0]["columns"] == {"answer": "4"}


def test_the_token_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threats: the token is read from the environment, and not in errors, options or the object's text."""
    monkeypatch.setenv("MY_REWARD_TOKEN", "s3cret-token")
    with bad_server("403") as server:
        reward = remote_reward(server.url, token_env="MY_REWARD_TOKEN", retries=0)
        result = reward.score([sample("a")])[0]
    assert server.heads[0]["authorization"] == "Bearer s3cret-token"
    assert "s3cret" not in str(result.error)


@pytest.mark.parametrize("variable", ["sk-live-abc", "lowercase_missing", "NOT_SET_ANYWHERE"])
def test_a_missing_token_is_one_sentence(variable: str) -> None:
    """Threats: a token written where its variable's name belongs is not repeated."""
    with pytest.raises(RewardError) as caught:
        token_from("remote", variable)
    assert ("NOT_SET" in str(caught.value)) == (variable == "NOT_SET_ANYWHERE")
    assert variable not in str(caught.value) or variable.isupper()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "ftp://x/y"}, "is no address"),
        ({"url": "nonsense"}, "is no address"),
        ({"url": "http://user:pw@host/score"}, "token_env"),
        ({"url": "http://h", "timeout_s": 0}, "timeout_s = 0.0 is out of range"),
        ({"url": "http://h", "retries": 100}, "retries"),
        ({"url": "http://h", "batch_size": 0}, "batch_size"),
        ({"url": "http://h", "protocol": "openrlhff"}, "did you mean 'openrlhf'?"),
        ({"url": "http://h", "timeout_s": "soon"}, "wrong type"),
        ({}, "needs the option 'url'"),
        ({"url": "http://h", "timeout": 3}, "did you mean 'timeout_s'?"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], words: str) -> None:
    """R31: a mistake in a recipe is told before anything runs."""
    from trimtab.config import RewardSpec

    with pytest.raises(RewardError) as caught:
        build_reward([RewardSpec(name="remote", options=options)])
    assert words in str(caught.value)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "wanted", "protocol"),
    [
        ("http://h:1", "http://h:1/score", "trimtab"),
        ("http://h:1/", "http://h:1/score", "trimtab"),
        ("http://h/a/score", "http://h/a/score", "trimtab"),
        ("http://h/get_reward", "http://h/get_reward", "openrlhf"),
        ("http://h/rm", "http://h/rm", "openrlhf"),
    ],
)
def test_the_protocol_is_read_from_the_address(url: str, wanted: str, protocol: str) -> None:
    """R31: OpenRLHF posts to exactly the address that it is given."""
    reward = remote_reward(url)
    assert (reward.client.endpoint.url, reward.protocol) == (wanted, protocol)


def test_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threats: no other host is asked, whatever the environment says."""
    monkeypatch.setenv("HTTP_PROXY", dead_address())
    monkeypatch.setenv("ALL_PROXY", dead_address())
    with bad_server() as server:
        assert [r.value for r in reward_at(server.url).score([sample("ab")])] == [2.0]


def test_inside_a_running_loop() -> None:
    """R31: notebooks have an event loop of their own."""

    async def inside(server: BadServer) -> list[float | None]:
        return [r.value for r in reward_at(server.url).score([sample("ab")])]

    with bad_server() as server:
        assert asyncio.run(inside(server)) == [2.0]
