"""A reward behind HTTP: ``POST /score`` (ours), ``POST /get_reward`` (OpenRLHF's), ``GET /health`` (R31).

What does not come from a program that knows the address and the token is refused before anything is read.
Every refusal is one sentence in JSON, ``{"error": …}``.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from trimtab.errors import ConfigError, RewardError
from trimtab.rewards import wire
from trimtab.rewards.serve_pool import Refused, WorkerPool
from trimtab.rewards.serve_worker import ServedReward

_PATHS = {"/score": "score", "/get_reward": "get_reward"}
READ_SECONDS = 30.0  # in which a body must have arrived
MAX_CONNECTIONS = 256


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Where a reward is served and how much is accepted. ``token`` None: only programs of this machine."""

    reward: ServedReward
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    token_env: str = ""
    allowed_hosts: tuple[str, ...] = ()  # further names that a request may call this machine
    num_workers: int = 1
    queue: int = 64
    deadline_s: float = 60.0
    max_body: int = 16 * 2**20

    def check(self) -> ServeSettings:
        """Return itself.

        Raises:
            ConfigError: another address than this machine's own without a token, or a bound makes no sense.
        """
        if not is_loopback(self.host) and self.token is None:
            raise ConfigError(
                f"--host {self.host} lets other machines in: put a token into an environment variable and "
                "name it with --token-env, or leave out --host."
            )
        if self.token is not None and len(self.token) < 16:
            raise ConfigError(
                f"The token in {self.token_env} is shorter than 16 characters: make one with "
                "`python -c 'import secrets; print(secrets.token_urlsafe())'`."
            )
        if not (
            0 <= self.port <= 65535 and self.num_workers >= 1 and self.queue >= 1 and self.deadline_s > 0
        ):
            raise ConfigError("--port, --workers, --queue or --deadline is out of range.")
        return self


class Guard:
    """The outermost layer: host, origin and token are checked before a byte of the body is read."""

    def __init__(self, app: Callable[..., Awaitable[None]], settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self.token = None if settings.token is None else f"Bearer {settings.token}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket: closing it before it is accepted is a 403
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self._refusal(scope)
        if refused is not None:
            await answer(send, *refused)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        headers: dict[bytes, list[bytes]] = {}
        for key, value in scope["headers"]:
            headers.setdefault(key.lower(), []).append(value)
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not host_is_allowed(hosts[0].decode("latin-1"), self.settings):
            return 421, "The Host header does not name this server; add it with --allow-host."
        if b"origin" in headers:
            return 403, "Web pages may not ask this server."
        if self.token is not None and scope["path"] != "/health":
            given = headers.get(b"authorization", [b""])
            if len(given) != 1 or not hmac.compare_digest(given[0], self.token):
                return 401, "The bearer token is missing or wrong."
        return None


def create_app(
    settings: ServeSettings, pool: WorkerPool, on_failure: Callable[[RewardError], None] | None = None
) -> Any:
    """The ASGI application around a pool of workers; ``on_failure`` is told why they do not start."""
    fastapi = _library("fastapi")

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            await pool.start()
        except RewardError as error:
            if on_failure is None:
                raise
            on_failure(error)
        else:
            print(f"trimtab: reward {settings.reward.name} is ready", file=sys.stderr, flush=True)
        try:
            yield
        finally:
            await pool.stop()

    app = fastapi.FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    async def scoring(request: Any) -> Any:
        try:
            body = await read_body(request, settings.max_body)
            # Parsing megabytes takes a while, and other requests should not wait for it.
            wrong = await asyncio.to_thread(wire.check_body, request.url.path, body)
            if wrong is not None:
                raise Refused(422, wrong)
            text = await pool.score(_PATHS[request.url.path], body)
        except Refused as refused:
            return _response(refused)
        except Exception as error:  # a bug: the client learns no more than that
            print(f"trimtab: {type(error).__name__} while answering a request", file=sys.stderr, flush=True)
            return _response(Refused(500, "The server failed on this request."))
        return fastapi.Response(text, media_type="application/json")

    async def health(_: Any) -> Any:
        state = {"status": "ok", "idle": pool.num_idle, "running": pool.running, "waiting": pool.waiting}
        return fastapi.Response(json.dumps(state), media_type="application/json")

    async def not_found(_: Any, error: Any) -> Any:
        sentence = "There are POST /score, POST /get_reward and GET /health here."
        return _response(Refused(error.status_code, sentence))

    for path in _PATHS:
        app.add_route(path, scoring, methods=["POST"])
    app.add_route("/health", health, methods=["GET"])
    for status in (404, 405):
        app.add_exception_handler(status, not_found)
    return Guard(app, settings)


async def read_body(request: Any, limit: int) -> bytes:
    """The body of a request, counted while it comes in.

    Raises:
        Refused: it is no plain JSON (415), longer than ``limit`` (413), or does not arrive (408).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if kind != "application/json" or coding != "identity":
        raise Refused(415, "Send Content-Type: application/json, not compressed.")
    too_long = Refused(413, f"The body is longer than {limit} bytes: send smaller batches.")
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or int(length[:19]) > limit:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise too_long
    except TimeoutError:
        raise Refused(408, f"The body did not arrive within {READ_SECONDS:g} s.") from None
    return bytes(body)


def serve(settings: ServeSettings) -> int:
    """Serve until SIGTERM or Ctrl-C; requests under way get a few seconds to end. Returns the exit code.

    Raises:
        ConfigError: the settings are not allowed, or the port is taken.
        RewardError: the reward cannot be built, or FastAPI and uvicorn are not installed.
    """
    uvicorn = _library("uvicorn")
    settings.check()
    pool = WorkerPool(
        settings.reward,
        num_workers=settings.num_workers,
        queue=settings.queue,
        deadline_s=settings.deadline_s,
        hide=(settings.token_env,),
    )
    failures: list[RewardError] = []

    def give_up(error: RewardError) -> None:
        failures.append(error)
        server.should_exit = True

    config = uvicorn.Config(
        create_app(settings, pool, give_up),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=5,
        ws="none",
        lifespan="on",
    )
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"trimtab: serving {settings.reward.name} at http://{shown}:{port}", file=sys.stderr, flush=True)
    # uvicorn hands the signal on when it has shut down: then this ends the process with exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = uvicorn.Server(config)
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
    if failures:
        raise failures[0]
    return 0


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can reach ``host``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_is_allowed(header: str, settings: ServeSettings) -> bool:
    """Whether a Host header may be answered: a web page that has its own name point at this machine sends
    that name. Addresses cannot be such names; on a loopback address only loopback ones are accepted.

    Example:
        >>> host_is_allowed("evil.example:8000", ServeSettings(ServedReward("sales", {})))
        False
    """
    name = header.rsplit(":", 1)[0] if not header.endswith("]") and ":" in header else header
    name = name.strip("[]").lower()
    if name in {host.lower() for host in (*settings.allowed_hosts, settings.host)} or is_loopback(name):
        return True
    if is_loopback(settings.host):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == socket.gethostname().lower()
    return True


async def answer(send: Any, status: int, sentence: str) -> None:
    """Answer a request that is not looked at."""
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _response(refused: Refused) -> Any:
    from fastapi.responses import JSONResponse

    headers = {} if refused.after is None else {"Retry-After": str(refused.after)}
    if refused.status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not read
    return JSONResponse({"error": refused.sentence}, status_code=refused.status, headers=headers)


def _listen(settings: ServeSettings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host.strip("[]"), settings.port))
        listener.listen(MAX_CONNECTIONS)
    except OSError as error:
        raise ConfigError(
            f"{settings.host} port {settings.port} cannot be used ({error.strerror}): choose another --port."
        ) from None
    return listener


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise RewardError(f"Serving rewards needs {name}: pip install 'trimtab[server]'.") from None
