"""A reward behind HTTP: ``POST /score`` (ours), ``POST /get_reward`` (OpenRLHF's), ``GET /health`` (R31).

Who may ask is decided in ``serve_guard.py``, before anything is read. Every refusal is one sentence in JSON,
``{"error": …}``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from trimtab.errors import ConfigError, RewardError
from trimtab.rewards import wire
from trimtab.rewards.serve_guard import Guard, ServeSettings
from trimtab.rewards.serve_pool import Refused, WorkerPool

_PATHS = {"/score": "score", "/get_reward": "get_reward"}
READ_SECONDS = 30.0  # in which a body must have arrived
MAX_CONNECTIONS = 256


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
