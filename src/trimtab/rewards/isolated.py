"""A user's reward file in a process of its own, so that what it does costs its batch and not the run.

The process lives as long as the reward. It is killed, with its children, when a batch takes longer than
``timeout_s``, and started again for the next batch after whatever ended it; the batch abstains with the
cause. It keeps mistakes away, no attacker: the file has all rights of its user.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trimtab.errors import RewardError
from trimtab.rewards.adapters import reward_from_file
from trimtab.rewards.base import Reward, abstain_all, check_result, describe
from trimtab.rewards.isolated_process import WorkerGone, WorkerProcess
from trimtab.rewards.isolated_wire import encode, encode_samples
from trimtab.types import RewardResult, Sample

TIMEOUT_SECONDS = 60.0
_START_SECONDS = 300.0  # to load the file, which may import torch or read a model
_MAX_DEATHS = 5  # in a row, then it is not started again
# The kernel ends the processes when the thread that started them ends: so it is one that stays.
_starter = ThreadPoolExecutor(1, thread_name_prefix="trimtab-reward-starter")

_RAISED = re.compile(r"failed: (\w+)(?:: |\.?$)")  # a class of exceptions, with or without a message
# How causes are told apart in the sentences of ``base.py``, ``adapters.py`` and this file.
_KINDS = (
    ("is not started again", "given up"),  # first, since it quotes the last death
    ("did not answer within", "timeout"),
    ("its process was killed by", "killed"),
    ("its process ended with", "exited"),
    ("wrote into its own reply", "forged reply"),
    ("not a finite number", "not finite"),
    ("outside its range", "out of range"),
    ("not a number", "not a number"),
    ("values for", "wrong length"),
    ("results for", "wrong length"),
    ("not one value per completion", "wrong type"),
    ("without 'score'", "wrong type"),
    ("without 'rewards'", "wrong type"),
    ("which is not a column", "missing column"),
    ("cannot be sent", "cannot be sent"),
)


class IsolatedReward:
    """``FILE.py:NAME`` as a Reward, in a process of its own.

    ``faults`` counts samples that abstained with an error, by kind of cause; ``num_deaths`` the processes.

    Raises:
        RewardError: as ``reward_from_file``; or the file ends its process or hangs while it is read.
    """

    def __init__(
        self, file: str, options: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_SECONDS
    ) -> None:
        self.file, self.options, self.timeout_s = file, dict(options or {}), timeout_s
        self.name = file.rpartition(":")[2]
        self.faults: Counter[str] = Counter()
        self.num_deaths = 0
        self.step = 0
        self._deaths_in_a_row = 0
        self._last_death = ""
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        try:
            self._start()
        except WorkerGone as gone:
            raise RewardError(f"Reward {file} cannot be loaded: {gone}.") from None

    def set_step(self, step: int) -> None:
        """Tell the training step, which TRL's functions read from ``trainer_state.global_step``."""
        self.step = step

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order; never raises because of the file."""
        if not samples:
            return []
        with self._lock:
            try:
                results = self._score(samples)
                self._deaths_in_a_row = 0
            except RewardError as error:
                results = abstain_all(len(samples), str(error))
            except (WorkerGone, OSError) as gone:
                self._note_death(str(gone))
                results = abstain_all(len(samples), f"reward {self.name} failed: {gone}")
            except Exception as error:  # such as a column that is nested too deeply
                results = abstain_all(len(samples), f"reward {self.name} failed: {describe(error)}")
        self.faults.update(kind_of(result.error) for result in results if result.error)
        return results

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        told = encode_samples(samples, self.name)
        if self._deaths_in_a_row >= _MAX_DEATHS:
            raise RewardError(
                f"reward {self.name} is not started again after {_MAX_DEATHS} deaths in a row; the last: "
                f"{self._last_death}"
            )
        worker = self._worker or self._start()
        said = worker.ask({"call": "score", "step": self.step, "samples": told}, self.timeout_s)
        if "error" in said:
            whole = said["error"] if said.get("is_told") else f"reward {self.name} failed: {said['error']}"
            return abstain_all(len(samples), str(whole))
        try:
            results = [self._read(*row) for row in said["results"]]
        except (KeyError, TypeError, ValueError):
            raise WorkerGone("it wrote into its own reply") from None
        if len(results) != len(samples):
            raise WorkerGone("it wrote into its own reply")
        return results

    def _read(self, value: Any, parts: Any, error: Any) -> RewardResult:
        checked = check_result(value, self.name)
        said = checked.error if error is None else str(error)
        return RewardResult(checked.value, {str(k): float(v) for k, v in parts.items()}, said)

    def _start(self) -> WorkerProcess:
        worker = _starter.submit(WorkerProcess, self.name).result()
        try:
            told = {"call": "load", "file": self.file, "options": encode(self.options)}
            said = worker.ask(told, max(_START_SECONDS, self.timeout_s))
            if "error" in said:
                whole = said["error"] if said.get("is_told") else f"{self.file} failed: {said['error']}."
                raise RewardError(str(whole))
        except BaseException:
            worker.end()
            raise
        self.name = str(said["name"])
        self._worker = worker
        weakref.finalize(self, worker.end)
        return worker

    def _note_death(self, cause: str) -> None:
        self.num_deaths += 1
        self._deaths_in_a_row += 1
        self._last_death = cause
        self.close()


def user_reward(file: str, options: Mapping[str, Any] | None = None) -> Reward:
    """``FILE.py:NAME`` as a Reward: in a process of its own, or here with the option ``isolate = false``.

    The options ``isolate`` and ``timeout_s`` are read here; all others go to the function.

    Raises:
        RewardError: as ``reward_from_file``; or one of the two options makes no sense.
    """
    given = dict(options or {})
    isolate, timeout_s = given.pop("isolate", True), given.pop("timeout_s", None)
    if not isinstance(isolate, bool):
        raise RewardError(f"Reward {file}: isolate = {isolate!r} must be true or false.")
    if not isolate:
        if timeout_s is not None:
            raise RewardError(
                f"Reward {file}: timeout_s needs a process of its own; leave out isolate = false."
            )
        return reward_from_file(file, given)
    seconds = TIMEOUT_SECONDS if timeout_s is None else timeout_s
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e9:
        raise RewardError(f"Reward {file}: timeout_s = {seconds!r} must be a number of seconds above 0.")
    return IsolatedReward(file, given, timeout_s=float(seconds))


def kind_of(error: str) -> str:
    """The kind of cause that a sentence names; what a function raised is ``exception``.

    Example:
        >>> kind_of("reward mine returned nan, which is not a finite number")
        'not finite'
    """
    if raised := _RAISED.search(error):
        return "SystemExit" if raised[1] == "SystemExit" else "exception"
    return next((kind for words, kind in _KINDS if words in error), "exception")
