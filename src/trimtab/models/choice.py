"""Which of several ways to compute the same is used: the one that measures fastest here, asked once.

An answer is kept in the user's cache directory, under the processor, the limits of its instruction sets, the
versions and the kernels' source. Within a process it never changes, a run writes it into its manifest, and
a resumed run takes it from there: two ways round differently, and one seed must give one text.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from trimtab import __version__
from trimtab.errors import ConfigError, nearest
from trimtab.models.kernels.build import cache_directory, processor, source_digest

OWN, ONEDNN, TORCH = "own", "onednn", "torch"
FORCED = "TRIMTAB_CHOICE"  # environment variable: one of WAYS for everything that has it, or `measured`
WAYS = (OWN, ONEDNN, TORCH)
MARGIN = 1.05  # an own kernel must be faster by this factor: it is the one that few others have tried
_ROUNDS, _FEWEST_ROUNDS, _SECONDS = 25, 5, 0.08  # of measuring one question

Way = Callable[[], object]  # computes it once


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and the microseconds of every way; none where nothing was measured."""

    way: str
    microseconds: dict[str, float]


_known: dict[str, Choice] = {}
_listeners: list[Callable[[dict[str, str]], None]] = []


def choose(question: str, ways: Callable[[], Mapping[str, Way]], among: tuple[str, ...]) -> str:
    """The fastest of the ways ``among``, the first of which is the one to fall back on.

    ``ways`` is called only when it must be measured; what it leaves out cannot be had after all. The number
    of threads is a part of the question.

    Raises:
        ConfigError: ``TRIMTAB_CHOICE`` names no way.
    """
    if (forced := _forced()) is not None:
        return forced if forced in among else among[0]
    question = f"{question} threads={torch.get_num_threads()}"
    known = _known.get(question) or _read().get(question)
    if known is None or known.way not in among:
        known = _keep(question, measure(ways(), among[0]))
    if question not in _known:
        _known[question] = known
        for listener in _listeners:
            listener({question: known.way})
    return known.way


def measure(ways: Mapping[str, Way], fallback: str) -> Choice:
    """Try all in turn, again and again for less than a tenth of a second; the least time of each counts.

    What else runs on the machine only ever adds time, to whichever way it meets.
    """
    if len(ways) < 2:
        return Choice(next(iter(ways), fallback), {})
    least = dict.fromkeys(ways, float("inf"))
    for way in ways.values():
        way()
    start = time.perf_counter()
    for number in range(_ROUNDS):
        if number >= _FEWEST_ROUNDS and time.perf_counter() - start > _SECONDS:
            break
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            least[name] = min(least[name], time.perf_counter() - began)
    return Choice(fastest(least), {name: round(1e6 * seconds, 1) for name, seconds in least.items()})


def fastest(seconds: Mapping[str, float]) -> str:
    """The way with the least time; an own kernel only where it is faster by 5 %."""
    return min(seconds, key=lambda name: seconds[name] * (MARGIN if name == OWN else 1.0))


def follow_choices(known: Mapping[str, str], listener: Callable[[dict[str, str]], None] | None) -> None:
    """Forget what this process has chosen, take over ``known``, and tell ``listener`` of what comes new."""
    _known.clear()
    _known.update({question: Choice(way, {}) for question, way in known.items()})
    _listeners[:] = [] if listener is None else [listener]


def chosen() -> dict[str, str]:
    """Every question that this process has asked, and its answer."""
    return {question: choice.way for question, choice in _known.items()}


def measured_choices() -> dict[str, Choice]:
    """What was ever measured on this machine with these versions."""
    return _read()


def forced_choice() -> str | None:
    """What the environment says is to be used wherever it can; None when it is measured."""
    return _forced()


def _forced() -> str | None:
    text = os.environ.get(FORCED, "measured").strip() or "measured"
    if text == "measured":
        return None
    if text not in WAYS:
        known = ("measured", *WAYS)
        raise ConfigError(f"{FORCED} is '{text}'{nearest(text, known)}; use one of {', '.join(known)}")
    return text


def _keep(question: str, choice: Choice) -> Choice:
    """Write a new answer down; another process may have been quicker, then its answer is the machine's."""
    answers = _read()
    if (known := answers.get(question)) is not None:
        return known
    answers[question] = choice
    file = _file()
    with suppress(OSError):  # a directory that cannot be written: the answer lives as long as the process
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            whole = Path(scratch) / file.name
            told = {name: asdict(answer) for name, answer in sorted(answers.items())}
            whole.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
            os.replace(whole, file)
    return choice


def _read() -> dict[str, Choice]:
    """The answers on disk; nothing of a file that is damaged, and no answer that is not one."""
    try:
        told = json.loads(_file().read_text(encoding="utf-8"))
        return {question: _choice(answer) for question, answer in told.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _choice(answer: dict[str, object]) -> Choice:
    way, times = answer["way"], answer["microseconds"]
    if way not in WAYS or not isinstance(times, dict):
        raise ValueError
    return Choice(str(way), {str(name): float(value) for name, value in times.items()})


def _file() -> Path:
    limits = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")]
    limits.append(torch.backends.cpu.get_cpu_capability())
    key = "\0".join((processor(), *limits, torch.__version__, __version__, _source()))
    return cache_directory().parent / "choices" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


@cache
def _source() -> str:
    return source_digest()
