"""Who may ask a served reward: a program that knows the address and the token, and no web page.

A page in a browser can send requests to this machine, also under a name of its own that points here (DNS
rebinding): so the Host and Origin headers are looked at, beside the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from trimtab.errors import ConfigError
from trimtab.rewards.serve_worker import ServedReward


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
