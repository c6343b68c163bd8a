"""SIGINT and SIGTERM: the first lets a step finish and its checkpoint be saved, the second ends at once.

Nothing is raised from a handler while a stage trains: a reward that catches every error would swallow it, and
a half-done step could not be saved. The trainers look at :attr:`StopRequest.is_asked` between steps.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether the process was asked to stop; as a context manager it takes the two signals.

    ``is_deferred`` is set while a stage trains. At other times (loading, evaluation) there is nothing to
    save, and the first signal raises KeyboardInterrupt. Outside the main thread it takes no signals.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_deferred = False
        self._before: dict[int, Any] = {}

    @property
    def is_asked(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    @property
    def name(self) -> str:
        """The signal's name; SIGINT where an interrupt came without one."""
        return signal.Signals(self.signal or signal.SIGINT).name

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal ended: 130 or 143."""
        return 128 + (self.signal or signal.SIGINT)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        is_second = self.signal is not None
        self.signal = number
        if self.is_deferred and not is_second:
            # Not print: the signal may have come inside one.
            os.write(2, b"\ntrimtab: stopping after this step; the same signal again stops at once\n")
            return
        for other in _SIGNALS:  # a third one ends the process even if this is caught somewhere
            signal.signal(other, signal.SIG_DFL)
        raise KeyboardInterrupt
