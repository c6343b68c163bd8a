"""POST JSON to a server that may be dead, slow or lying: bounded in time, size, number and concurrency.

Every request ends in a checked value or in a :class:`Failure` that says why; nothing raises. One event loop
in a thread of its own serves all clients, so that a deadline cancels whatever is under way.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from trimtab.errors import RewardError
from trimtab.rewards.breaker import Breaker
from trimtab.runs.plain_text import one_line

T = TypeVar("T")
MAX_RESPONSE = 16 * 2**20  # bytes
CONNECT_SECONDS = 5.0
BACKOFF_SECONDS = 0.25  # before the first retry; doubled for each further one, times 0.5 to 1.5 at random
_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # what another try may mend
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask and for how long. Times in seconds; ``deadline_s`` bounds all requests of a call."""

    url: str
    token: str | None = None
    timeout_s: float = 30.0
    deadline_s: float = 120.0
    concurrency: int = 4
    retries: int = 2
    failures: int = 5
    pause_s: float = 15.0
    max_response: int = MAX_RESPONSE

    def check(self, name: str) -> Endpoint:
        """Return itself.

        Raises:
            RewardError: the address is none that can be asked, or a bound makes no sense.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RewardError(
                f"Reward {name}: url = '{self.url}' is no address: write http://HOST:PORT/PATH."
            )
        if parts.username or parts.password:
            raise RewardError(
                f"Reward {name}: the url holds a user name or password, which would be kept with the run; "
                "put the token into an environment variable and name it as token_env."
            )
        bounds = {
            "timeout_s": self.timeout_s > 0,
            "deadline_s": self.deadline_s > 0,
            "concurrency": 1 <= self.concurrency <= 256,
            "retries": 0 <= self.retries <= 20,
            "failures": self.failures >= 1,
            "pause_s": self.pause_s >= 0,
        }
        for bound, is_fine in bounds.items():
            if not is_fine:
                raise RewardError(f"Reward {name}: {bound} = {getattr(self, bound)} is out of range.")
        return self


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no value."""

    reason: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Clock, pause and chance; a test puts its own here."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = field(default_factory=lambda: random.Random().random)


class AskError(Exception):
    """A request that failed; ``again``: another try makes sense, ``after`` seconds at the soonest.

    ``blames_server`` is false where the request itself was refused (too large, not valid).
    """

    def __init__(
        self, reason: str, *, again: bool = False, after: float = 0.0, blames_server: bool = True
    ) -> None:
        super().__init__(reason)
        self.again, self.after, self.blames_server = again, after, blames_server


class JsonClient(Generic[T]):
    """Asks one address.

    Args:
        endpoint: where, and the bounds.
        read: turns the parsed JSON of an answer and the number of its request into a value; a ValueError
            says what is wrong with it.

    Example:
        >>> client = JsonClient(Endpoint("http://127.0.0.1:8000/score"), lambda answer, number: answer)
        >>> client.post_all([b"{}"])   # [{"results": [...]}] or [Failure("ConnectError: …")]
    """

    def __init__(
        self, endpoint: Endpoint, read: Callable[[Any, int], T], timing: Timing | None = None
    ) -> None:
        self.endpoint, self.read, self.timing = endpoint, read, timing or Timing()
        self.breaker = Breaker(endpoint.failures, endpoint.pause_s, self.timing.clock)
        self.http = _library()
        self._connection: Any = None
        self._pid = 0

    def post_all(self, bodies: Sequence[bytes]) -> list[T | Failure]:
        """Send every body, at most ``concurrency`` at a time; one value or Failure for each, in order."""
        if not bodies:
            return []
        future = asyncio.run_coroutine_threadsafe(self._post_all(bodies), _loop())
        try:
            return future.result()
        except BaseException:  # Ctrl-C: the requests must not go on behind the user's back
            future.cancel()
            raise

    async def _post_all(self, bodies: Sequence[bytes]) -> list[T | Failure]:
        deadline = self.timing.clock() + self.endpoint.deadline_s
        places = asyncio.Semaphore(self.endpoint.concurrency)

        async def one(number: int) -> T | Failure:
            async with places:
                return await self._persist(bodies[number], number, deadline)

        # After a pause one request finds out whether the server is back; the others wait for it.
        first = [await one(0)] if self.breaker.is_trial else []
        return [*first, *await asyncio.gather(*(one(number) for number in range(len(first), len(bodies))))]

    async def _persist(self, body: bytes, number: int, deadline: float) -> T | Failure:
        """Ask until there is a value, or no reason to go on."""
        reason = ""
        for attempt in range(self.endpoint.retries + 1):
            refusal = self.breaker.refusal()
            if refusal is not None:
                return Failure(refusal)
            left = deadline - self.timing.clock()
            if left <= 0:
                last = f"; the last failure was: {reason}" if reason else ""
                return Failure(f"no answer within {self.endpoint.deadline_s:g} s for the whole call{last}")
            try:
                value = await self._ask(body, number, min(left, self.endpoint.timeout_s))
            except AskError as error:
                reason = str(error)
                if error.blames_server:
                    self.breaker.failed(reason)
                if not error.again or attempt == self.endpoint.retries:
                    break
                pause = BACKOFF_SECONDS * 2**attempt * (0.5 + self.timing.chance())
                await self.timing.sleep(
                    min(max(pause, error.after), max(0.0, deadline - self.timing.clock()))
                )
            else:
                self.breaker.succeeded()
                return value
        tries = f" ({attempt + 1} tries)" if attempt else ""
        return Failure(f"{reason}{tries}")

    async def _ask(self, body: bytes, number: int, seconds: float) -> T:
        """One request.

        Raises:
            AskError: there is no usable answer.
        """
        try:
            async with asyncio.timeout(seconds):
                status, headers, text = await self._exchange(body)
        except TimeoutError:
            raise AskError(f"no answer within {seconds:.3g} s", again=True) from None
        except (self.http.TransportError, OSError) as error:
            # The address is left out: the message says what kind of failure it was.
            raise AskError(f"{type(error).__name__}: {one_line(str(error), 160)}", again=True) from None
        if 300 <= status < 400:
            to = one_line(headers.get("location", "nowhere"), 100)
            raise AskError(f"it redirects to {to}, which is not followed: give that address as url")
        if status != 200:
            raise _refused(status, headers, text)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            kind = one_line(headers.get("content-type", "no content type"), 40)
            shown = one_line(text.decode("utf-8", "replace"), 60)
            raise AskError(f"the answer is no JSON ({kind}, {len(text)} bytes: {shown!r})") from None
        try:
            return self.read(answer, number)
        except ValueError as error:
            raise AskError(one_line(str(error), 200)) from None

    async def _exchange(self, body: bytes) -> tuple[int, Any, bytes]:
        """Send the body and read what comes back, as far as it may be."""
        limit = self.endpoint.max_response
        # Other hosts are never asked: neither redirects nor proxies of the environment are followed.
        async with self._client().stream("POST", self.endpoint.url, content=body) as response:
            coding = response.headers.get("content-encoding", "identity").lower()
            if coding != "identity":
                raise AskError(f"the answer is compressed ({one_line(coding, 20)}), which was not asked for")
            text = bytearray()
            async for piece in response.aiter_raw():
                text += piece
                if len(text) > limit:
                    raise AskError(f"the answer is longer than {limit} bytes")
            return response.status_code, response.headers, bytes(text)

    def _client(self) -> Any:
        if self._connection is None or self._pid != os.getpid():
            headers = {"content-type": "application/json", "accept": "application/json"}
            headers |= {"accept-encoding": "identity", "user-agent": "trimtab"}
            if self.endpoint.token:
                headers["authorization"] = f"Bearer {self.endpoint.token}"
            seconds = self.endpoint.timeout_s
            self._connection = self.http.AsyncClient(
                headers=headers,
                timeout=self.http.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
                limits=self.http.Limits(max_connections=self.endpoint.concurrency),
                follow_redirects=False,
                trust_env=False,
            )
            self._pid = os.getpid()
        return self._connection


def token_from(name: str, variable: str) -> str | None:
    """The token in the environment variable that ``token_env`` names; None when it names none.

    Raises:
        RewardError: there is no such variable, or it looks as if the token itself had been given.
    """
    if not variable:
        return None
    # What is no name is not shown: it may be the secret.
    if not _ENV_NAME.fullmatch(variable):
        raise RewardError(f"Reward {name}: token_env is the name of an environment variable, not the token.")
    token = os.environ.get(variable, "").strip()
    if not token:
        shown = variable if variable.isupper() else "that token_env names"
        raise RewardError(f"Reward {name}: the environment variable {shown} is not set.")
    if not (token.isascii() and token.isprintable()):
        raise RewardError(f"Reward {name}: the token in {variable} holds characters that no header may have.")
    return token


def _refused(status: int, headers: Any, text: bytes) -> AskError:
    try:
        told = json.loads(text)
        told = told["error"] if isinstance(told, dict) else None
        told = told.get("message") if isinstance(told, dict) else told
    except (ValueError, RecursionError, KeyError):
        told = None
    why = f": {one_line(told, 160)}" if isinstance(told, str) else ""
    after = headers.get("retry-after", "")
    seconds = min(float(after), 60.0) if after.isascii() and after.isdigit() else 0.0
    is_ours = status in (400, 413, 415, 422)
    return AskError(f"HTTP {status}{why}", again=status in _AGAIN, after=seconds, blames_server=not is_ours)


def _library() -> Any:
    try:
        import httpx2
    except ImportError:
        raise RewardError(
            "Rewards over the network need httpx2: pip install 'trimtab[remote]', or pip install httpx2."
        ) from None
    return httpx2


_shared: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    """The running event loop of this process; a fork has no thread and so gets its own."""
    with _lock:
        loop = _shared.get(os.getpid())
        if loop is None:
            loop = asyncio.new_event_loop()
            _shared.clear()
            _shared[os.getpid()] = loop
            threading.Thread(target=loop.run_forever, name="trimtab-http", daemon=True).start()
        return loop
