"""A process that holds one reward and scores what the server hands it; it is killed when it takes too long.

Frames on both pipes are a line ``KIND LENGTH`` and LENGTH bytes of JSON. The reward's own prints go to
stderr, and its stdin is empty, so that it cannot speak for the worker. ``python -m
trimtab.rewards.serve_worker`` is the process; the first frame says which reward.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from trimtab.cores import share_of_cores
from trimtab.errors import RewardError, TrimtabError

START_SECONDS = 180.0  # a reward model may have to be loaded
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class ServedReward:
    """Which reward is served: a name of REWARDS or ``FILE.py:function``, and what it is built with."""

    name: str
    options: Mapping[str, Any]
    reward_model: str | None = None
    device: str | None = None


class WorkerDied(Exception):
    """The process ended before it answered."""


class Worker:
    """The parent's end of one process. ``start`` it, ``ask`` it one thing at a time, ``kill`` it."""

    def __init__(self, reward: ServedReward, hide: tuple[str, ...] = (), num_workers: int = 1) -> None:
        self.reward, self.hide, self.num_workers = reward, hide, num_workers
        self._process: asyncio.subprocess.Process | None = None

    def _shown(self) -> dict[str, str]:
        return {key: value for key, value in os.environ.items() if key not in self.hide}

    async def start(self) -> None:
        """Start the process and wait until the reward is built.

        Raises:
            RewardError: the reward cannot be built; says why.
        """
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trimtab.rewards.serve_worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=share_of_cores(self._shown(), self.num_workers),
            start_new_session=True,  # Ctrl-C is for the server, which then ends its workers
        )
        reward = self.reward
        told: dict[str, Any] = {"name": reward.name, "options": dict(reward.options)}
        told |= {"reward_model": reward.reward_model, "device": reward.device}
        try:
            async with asyncio.timeout(START_SECONDS):
                kind, body = await self.ask("build", json.dumps(told).encode())
        except TimeoutError:
            await self.kill()
            raise RewardError(
                f"Reward {reward.name} was not built within {START_SECONDS:g} s; try `trimtab rewards score`."
            ) from None
        except WorkerDied as error:
            await self.kill()
            raise RewardError(
                f"Reward {reward.name} ended its process while it was built ({error})."
            ) from None
        if kind != "ready":
            await self.kill()
            raise RewardError(json.loads(body)["error"])

    async def ask(self, kind: str, body: bytes) -> tuple[str, bytes]:
        """Send one frame and return the kind and body of the answer.

        Raises:
            WorkerDied: the process is gone, or said something that is no frame.
        """
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{kind} {len(body)}\n".encode() + body)
            await process.stdin.drain()
            head = (await process.stdout.readline()).decode("ascii").split()
            return head[0], await process.stdout.readexactly(int(head[1]))
        except (OSError, ValueError, IndexError, asyncio.IncompleteReadError):
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await process.wait()
            raise WorkerDied(f"exit code {process.returncode}") from None

    async def kill(self) -> None:
        """End the process and all that it started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self._process = None


def main() -> int:
    """Build the reward that the first frame names, then answer frames until the pipe is closed."""
    requests, answers = _own_pipes()
    reward: Any = None
    while (frame := _read(requests)) is not None:
        kind, body = frame
        try:
            if kind == "build":
                reward, answer = _build(json.loads(body)), b"{}"
                _write(answers, "ready", answer)
                continue
            _write(answers, "done", _score(reward, kind, json.loads(body)))
        except TrimtabError as error:
            _write(answers, "failed", json.dumps({"error": str(error)}).encode())
        except MemoryError:
            return 1
        except Exception as error:  # a bug or the user's import: the server answers with one sentence
            told = f"{type(error).__name__}: {error}"[:300]
            _write(answers, "failed", json.dumps({"error": told}).encode())
    return 0


def _score(reward: Any, kind: str, body: Mapping[str, Any]) -> bytes:
    """Score a valid body of ``POST /score`` or ``/get_reward``."""
    from trimtab.rewards import wire
    from trimtab.rewards.base import call_reward

    tell = getattr(reward, "set_step", None)
    if tell is not None:
        tell(int(body.get("step", 0)))
    is_ours = kind == "score"
    samples = wire.samples_of_score(body) if is_ours else wire.samples_of_get_reward(body)
    results = [_checked(result, reward.name) for result in call_reward(reward, samples)]
    answer = wire.results_as_json(results) if is_ours else wire.rewards_as_json(results)
    return json.dumps(answer, allow_nan=False).encode()


def _checked(result: Any, name: str) -> Any:
    """A result whose numbers are finite: a user's class may have put anything into it."""
    from trimtab.rewards.base import check_result
    from trimtab.types import RewardResult

    found = result if result.value is None else check_result(result.value, name)
    parts = {str(key): check_result(part, name).value for key, part in result.parts.items()}
    numbers = {key: value for key, value in parts.items() if value is not None}
    error = result.error or found.error
    return RewardResult(found.value, numbers, None if error is None else str(error)[:500])


def _build(told: Mapping[str, Any]) -> Any:
    from trimtab.config import RewardSpec
    from trimtab.rewards.registry import build_reward

    spec = RewardSpec(name=told["name"], options=told["options"])
    combined = build_reward([spec], reward_model=told["reward_model"], device=told["device"])
    return combined.components[0][0]


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes to the server, out of the reward's reach by name; the process ends with its parent."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(2, 1)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return requests, answers


def _read(pipe: BinaryIO) -> tuple[str, bytes] | None:
    head = pipe.readline().split()
    if len(head) != 2:
        return None
    return head[0].decode("ascii"), pipe.read(int(head[1]))


def _write(pipe: BinaryIO, kind: str, body: bytes) -> None:
    pipe.write(f"{kind} {len(body)}\n".encode() + body)
    pipe.flush()


if __name__ == "__main__":
    raise SystemExit(main())
