"""The process in which a user's reward file is loaded and called: JSON lines in, JSON lines out.

The two pipes are moved away from the descriptors 0 to 2 before the file is read, so that nothing it prints
is taken for an answer. torch is imported only when the user's file does it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from trimtab.errors import RewardError
from trimtab.rewards.adapters import reward_from_file
from trimtab.rewards.base import Reward, call_reward, check_result, describe
from trimtab.rewards.isolated_wire import decode, decode_samples
from trimtab.types import RewardResult

_END_WITH_PARENT, _SUBREAPER = 1, 36  # prctl


def main(parent: int) -> None:
    """Answer until the requests end."""
    _stay_with(parent)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # What the user's file forks must not keep the parent waiting, or answer in our name.
    os.register_at_fork(after_in_child=lambda: _close(requests, replies))
    reward: Reward | None = None
    for line in requests:
        request = json.loads(line)
        said: dict[str, Any]
        try:
            if request["call"] == "load":
                reward = reward_from_file(request["file"], decode(request["options"]), as_script=True)
                said = {"name": str(reward.name)}
            else:
                assert reward is not None
                said = {"results": _score(reward, request)}
        except RewardError as error:
            said = {"error": str(error), "is_told": True}
        except BaseException as error:  # SystemExit too: what a user's file raises ends nothing
            said = {"error": describe(error)}
        with suppress(Exception):
            sys.stdout.flush()
        replies.write(json.dumps({"nonce": request["nonce"], **said}).encode() + b"\n")
        replies.flush()


def _score(reward: Reward, request: dict[str, Any]) -> list[list[Any]]:
    tell = getattr(reward, "set_step", None)
    if tell is not None:
        tell(request["step"])
    results = call_reward(reward, decode_samples(request["samples"]))
    return _plain(results, reward.name)


def _plain(results: Sequence[RewardResult], name: str) -> list[list[Any]]:
    """Value, parts and error of each; a user's own class may have put anything into a result."""
    plain = []
    for result in results:
        checked = check_result(result.value, name)
        parts = {str(key): float(value) for key, value in dict(result.parts).items()}
        error = result.error if result.error is not None else checked.error
        plain.append([checked.value, parts, None if error is None else str(error)])
    return plain


def _stay_with(parent: int) -> None:
    """End when the trainer ends, and become the parent of what our children leave behind (Linux)."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(_END_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)
        libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


def _close(*files: BinaryIO) -> None:
    for file in files:
        with suppress(OSError, ValueError):
            os.close(file.fileno())
