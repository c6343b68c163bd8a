"""What is done inside a run's process before it starts: something goes wrong at the n-th call of a method."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trimtab.distributed.passes import PolicyPass
from trimtab.distributed.worker import LocalLearner, Reference
from trimtab.models import checkpoint
from trimtab.models.optim import MasterAdamW
from trimtab.monitor.watchdog import Watchdog
from trimtab.pipeline import training
from trimtab.rollout.native import NativeEngine
from trimtab.runs.writer import RunWriter
from trimtab.trainers import saving

Setup = Callable[[], object]
NAN, INF = float("nan"), float("inf")


def before_call(owner: Any, name: str, count: int, act: Callable[..., object]) -> Setup:
    """Call ``act`` with the arguments before the ``count``-th call of a method."""
    return _wrapped(owner, name, count, lambda real, args, kw: (act(*args, **kw), real(*args, **kw))[1])


def change_result(owner: Any, name: str, count: int, change: Callable[..., Any]) -> Setup:
    """Replace the result of the ``count``-th call: ``change(result, *arguments)``."""
    return _wrapped(owner, name, count, lambda real, args, kw: change(real(*args, **kw), *args, **kw))


def _wrapped(owner: Any, name: str, count: int, instead: Callable[[Any, Any, Any], Any]) -> Setup:
    def setup() -> None:
        real, calls = getattr(owner, name), [0]

        def wrapper(*args: Any, **kw: Any) -> Any:
            calls[0] += 1
            return instead(real, args, kw) if calls[0] == count else real(*args, **kw)

        setattr(owner, name, wrapper)

    return setup


def both(*setups: Setup) -> Setup:
    """All of them, in order."""
    return lambda: [setup() for setup in setups]


# --- processes and machines


def raise_it(*_: Any, **__: Any) -> None:
    """An exception out of an engine."""
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def hang(*_: Any, **__: Any) -> None:
    """Wait for ever, as for a lock that nobody returns."""
    while True:
        time.sleep(3600)


def hang_with_the_lock(*_: Any, **__: Any) -> None:
    """Never give up Python's lock: a regular expression that backtracks for ages."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def term_in(phase: str, count: int) -> Setup:
    """SIGTERM while the run is inside a phase, the ``count``-th time that it is."""

    def setup() -> None:
        real, calls = Watchdog.waiting, [0]

        @contextmanager
        def waiting(self: Watchdog, name: str) -> Iterator[None]:
            with real(self, name):
                calls[0] += name == phase
                if name == phase and calls[0] == count:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield

        Watchdog.waiting = waiting  # type: ignore[method-assign, assignment]

    return setup


def clock_jump(seconds: float) -> Setup:
    """The clock of the wall jumps a second after the start."""

    def setup() -> None:
        real, start = time.time, time.monotonic()
        time.time = lambda: real() + (seconds if time.monotonic() - start > 1.0 else 0.0)

    return setup


def no_more_files(*_: Any, **__: Any) -> None:
    """No descriptor is left: something has leaked."""
    used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with suppress(OSError):
        while True:
            os.open(os.devnull, os.O_RDONLY)


def small_files(limit: int) -> Setup:
    """A file that grows beyond ``limit`` bytes fails in the kernel, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def as_nobody() -> None:
    """Give up root, so that a directory without write permission is one."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def broken_tracker() -> None:
    """A tracker whose server is gone."""

    class Broken:
        def log(self, *_: Any) -> None:
            raise ConnectionError("the tracker is gone")

        def close(self) -> None:
            raise ConnectionError("the tracker is gone")

    real = RunWriter.__init__

    def init(self: RunWriter, *args: Any, **kw: Any) -> None:
        real(self, *args, **{**kw, "sinks": [Broken()]})

    RunWriter.__init__ = init  # type: ignore[method-assign]


def cpu_allocator_fails(*_: Any, **__: Any) -> None:
    """What torch says on a CPU."""
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")


def python_memory(*_: Any, **__: Any) -> None:
    """What Python says."""
    raise MemoryError


# --- not-a-number


def watched(root: Path, setup: Setup) -> Setup:
    """``setup``, and a file ``reached`` when NaN or infinity gets into a weight by an update, or is sampled
    from, checkpointed or saved. The spies are inside what ``setup`` wraps, so an injection is not counted."""
    mark = root / "reached"

    def spy(owner: Any, name: str, find: Callable[..., int], *, compares: bool = False) -> None:
        real = getattr(owner, name)

        def wrapper(*args: Any, **kw: Any) -> Any:
            before = find(*args)
            found = real(*args, **kw)
            if (find(*args) > before) if compares else before:
                mark.write_text(name)
            return found

        setattr(owner, name, wrapper)

    def install() -> None:
        spy(MasterAdamW, "step", lambda o, *_: _bad(o.parameters.values()), compares=True)
        spy(NativeEngine, "generate", lambda e, *_: _bad(e.model.parameters()))
        spy(saving, "save_checkpoint", lambda _, state, *__: _bad(checkpoint_tensors(state)))
        spy(training, "save_model", lambda model, *_: _bad(model.parameters()))
        setup()

    return install


def checkpoint_tensors(state: Any) -> list[torch.Tensor]:
    """Every tensor of a checkpoint's state."""
    found: dict[str, torch.Tensor] = {}
    checkpoint._split(state, found, set(), "")
    return list(found.values())


def _bad(tensors: Any) -> int:
    return sum(int((~torch.isfinite(x.detach())).sum()) for x in tensors if x.is_floating_point())


def bad_scores(value: float) -> Callable[..., Any]:
    """One log-probability of the first row that has any becomes ``value``."""

    def change(scores: torch.Tensor, _: Any, batch: Any, *__: Any) -> torch.Tensor:
        row, column = batch.completion_mask.nonzero()[0].tolist()
        scores = scores.clone()
        scores[row, column] = value
        return scores

    return change


def bad_completions(value: float) -> Callable[..., Any]:
    """The log-probabilities that the engine reports for its first completion become ``value``."""

    def change(groups: Any, *_: Any, **__: Any) -> Any:
        first = groups[0][0]
        bad = replace(first, logprobs=(value,) * len(first.token_ids), sampling_logprobs=())
        return [[bad, *groups[0][1:]], *groups[1:]]

    return change


def bad_loss(metrics: dict[str, float], learner: LocalLearner, *_: Any) -> dict[str, float]:
    """A loss that overflowed, and the gradients that come of it."""
    for grad in learner.optimizer.gradients.values():
        grad.fill_(NAN)
    return {**metrics, "loss/total": NAN}


def bad_gradient(value: float) -> Callable[..., Any]:
    """One number of one gradient, under a loss that looks well."""

    def change(metrics: dict[str, float], learner: LocalLearner, *_: Any) -> dict[str, float]:
        next(iter(learner.optimizer.gradients.values())).view(-1)[0] = value
        return metrics

    return change


def bad_weight(value: float, row: int | None = None) -> Callable[..., object]:
    """One weight; with ``row`` one in the embedding of a token that nobody uses, so that no loss shows it."""

    def act(learner: LocalLearner, *_: Any) -> None:
        names = [n for n in learner.optimizer.parameters if ("embed" in n) == (row is not None)]
        with torch.no_grad():
            learner.optimizer.parameters[names[0]].view(-1, 48)[row or 0, 0] = value

    return act


def bad_moment(which: int, value: float) -> Callable[..., object]:
    """One number of exp_avg (0) or exp_avg_sq (1)."""

    def act(learner: LocalLearner, *_: Any) -> None:
        if learner.optimizer._moments:
            next(iter(learner.optimizer._moments.values()))[which].view(-1)[0] = value

    return act


def bad_step(value: float) -> Callable[..., Any]:
    """The optimizer's own arithmetic overflows."""

    def change(result: Any, optimizer: MasterAdamW, *_: Any) -> Any:
        with torch.no_grad():
            next(iter(optimizer.parameters.values())).view(-1)[0] = value
        return result

    return change


__all__ = ["LocalLearner", "NativeEngine", "PolicyPass", "Reference"]
