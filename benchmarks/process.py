"""Arms in processes of their own: imports and loading are not timed, and each has a peak memory of its own.

Requests and replies are lines of JSON over the child's standard input and output. Whatever libraries print
goes to a log, which is shown when an arm dies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
Handler = Callable[[dict[str, Any]], dict[str, Any]]


class ArmError(Exception):
    """An arm died or could not start; the sentence ends with the last line that it wrote."""


class ArmProcess:
    """One arm, alive until ``close``.

    Example:
        >>> with ArmProcess("ours", "ours_arm.py", {"model": path}) as arm:
        ...     arm({"do": "step"})["seconds"]
    """

    def __init__(
        self,
        name: str,
        script: str,
        spec: Mapping[str, Any],
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the arm and wait until it says that it is ready.

        Raises:
            ArmError: it ended before that.
        """
        self.name = name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, str(FOLDER / script), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", **(environment or {})},
        )
        self.ready = self._read()

    def __call__(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return the reply.

        Raises:
            ArmError: the arm died.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        return self._read()

    def close(self) -> None:
        """End the arm."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> ArmProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        return dict(json.loads(line))

    def _death(self) -> ArmError:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        if os.environ.get("TRIMTAB_DEBUG"):
            print("\n".join(lines), file=sys.stderr)
        last = lines[-1][:300] if lines else "it wrote nothing"
        return ArmError(f"the arm {self.name} ended with exit code {code}: {last}")


def serve(build: Callable[[dict[str, Any]], Handler]) -> int:
    """The child's side: build the arm from the specification, then answer requests until the parent goes."""
    replies = open_replies()
    handle = build(json.loads(sys.argv[1]))
    replies({"ready": True})
    for request in requests():
        replies(handle(request))
    return 0


def open_replies() -> Callable[[Mapping[str, Any]], None]:
    """Keep the pipe to the parent for replies; anything else that is printed goes to the log."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(data: Mapping[str, Any]) -> None:
        pipe.write(json.dumps(data) + "\n")
        pipe.flush()

    return reply


def requests() -> Iterator[dict[str, Any]]:
    """The parent's requests, one by one, until it closes the pipe."""
    for line in sys.stdin:
        yield json.loads(line)
