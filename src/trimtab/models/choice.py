"""Which of several ways to compute the same is used: the one that measures fastest here, asked once.

An answer is kept in the user's cache directory, under the processor, the limits of its instruction sets, the
versions and the kernels' source. It is found when an engine is built, a run writes it into its manifest, and
a resumed run takes it from there: two ways round differently, and one seed must give one text. A way is only
offered where a row comes out the same, bit for bit, whatever stands beside it, if the own kernel does that.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch

from trimtab import __version__
from trimtab.errors import ConfigError, nearest
from trimtab.models.kernels.build import cache_directory, processor, source_digest
from trimtab.models.trials import WAYS, Budget, Choice, Way, measure

FORCED = "TRIMTAB_CHOICES"  # environment variable: one of WAYS for everything that has it, or `measure`
MEASURE = "measure"

# What replaces torch's own without a trial by the clock, and why.
UNTRIED = {
    "decode attention": "torch's cache pads rows to the longest, so a row's rounding depends on its batch",
    "norms, gates, rotary": "they keep the stream in fp32: a better gradient, another result, not only speed",
    "layers without their Python": "the same kernels in the same order, and nothing else: never slower",
    "tokens per micro-batch": "set by the memory, not by a claim of speed",
}

_known: dict[str, Choice] = {}  # what this process measured or read
_bound: dict[str, str] = {}  # what the manifest of the run at hand says
_told: dict[str, str] = {}
_listeners: list[Callable[[dict[str, str]], None]] = []


def choose(
    question: str,
    ways: Callable[[], Mapping[str, Way]],
    among: tuple[str, ...],
    budget: Budget | None = None,
) -> str:
    """The fastest of the ways ``among``, the first of which is the one to fall back on.

    ``ways`` is called only when it must be measured; what it leaves out cannot be had after all. Within a run
    the answer never changes: first the run's manifest decides, then ``TRIMTAB_CHOICES``, then the clock.

    Raises:
        ConfigError: ``TRIMTAB_CHOICES`` names no way.
    """
    if (bound := _bound.get(question)) in among:
        way = str(bound)
    elif (forced := forced_choice()) is not None:
        way = forced if forced in among else among[0]
    else:
        way = _measured(question, ways, among, budget).way
    if _told.get(question) != way:
        _told[question] = way
        for listener in _listeners:
            listener({question: way})
    return way


def _measured(
    question: str,
    ways: Callable[[], Mapping[str, Way]],
    among: tuple[str, ...],
    budget: Budget | None,
) -> Choice:
    """What this process knows, or the disk, or the clock."""
    # An answer belongs to what could be had when it was asked.
    key = f"{question} threads={torch.get_num_threads()} of {'/'.join(among)}"
    if (known := _known.get(key)) is None:
        known = _read(_file(key))
        if known is None or known.way not in among:
            known = _tried(ways, among, budget or Budget())
            if len(among) > 1:  # also where no time was left: the next run must not differ from this one
                known = _keep(key, known, among)
        _known[key] = known
    return known


def _tried(ways: Callable[[], Mapping[str, Way]], among: tuple[str, ...], budget: Budget) -> Choice:
    if len(among) < 2 or budget.left <= 0:
        return Choice(among[0])
    with budget.spending():
        tried = ways()  # which takes its part of the time
    with budget.spending():
        return measure(tried, among[0], budget.left)


@contextmanager
def following_choices(known: Mapping[str, str], listener: Callable[[dict[str, str]], None]) -> Iterator[None]:
    """In the block the run's manifest decides: ``known`` holds, and ``listener`` hears what comes new."""
    follow_choices(known, listener)
    try:
        yield
    finally:
        follow_choices({}, None)


def follow_choices(known: Mapping[str, str], listener: Callable[[dict[str, str]], None] | None) -> None:
    """Forget what this process has chosen, let ``known`` hold, and tell ``listener`` of what comes new."""
    _known.clear()
    for store in (_bound, _told):
        store.clear()
        store.update(known)
    _listeners[:] = [] if listener is None else [listener]


def chosen() -> dict[str, str]:
    """Every question that was asked since, and its answer."""
    return dict(_told)


def measured_choices() -> dict[str, Choice]:
    """What was ever measured on this machine with these versions, by question."""
    found = {}
    for file in sorted(_folder().glob("*.json")):
        if (choice := _read(file)) is not None:
            with suppress(OSError, ValueError):
                found[str(json.loads(file.read_text(encoding="utf-8")).get("question"))] = choice
    return dict(sorted(found.items()))


def choices_folder() -> Path:
    """Where the answers lie; whoever deletes it has everything measured again."""
    return _folder()


def forced_choice() -> str | None:
    """What the environment says is to be used wherever it can; None when it is measured.

    Raises:
        ConfigError: it names no way.
    """
    text = os.environ.get(FORCED, MEASURE).strip() or MEASURE
    if text == MEASURE:
        return None
    if text not in WAYS:
        known = (MEASURE, *WAYS)
        raise ConfigError(f"{FORCED} is '{text}'{nearest(text, known)}; use one of {', '.join(known)}")
    return text


def _keep(key: str, choice: Choice, among: tuple[str, ...]) -> Choice:
    """Write a new answer down; another process may have been quicker, then its answer is the machine's."""
    file = _file(key)
    if (first := _read(file)) is not None and first.way in among:
        return first
    with suppress(OSError):  # a directory that cannot be written: the answer lives as long as the process
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            whole = Path(scratch) / file.name
            whole.write_text(json.dumps({"question": key, **asdict(choice)}) + "\n", encoding="utf-8")
            os.replace(whole, file)  # a file for each question: no process writes over another's answers
    return choice


def _read(file: Path) -> Choice | None:
    """The answer on disk; None where there is none or the file is damaged."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        times = {str(name): float(value) for name, value in told["microseconds"].items()}
        is_sound = told["way"] in (times or WAYS) and set(times) <= set(WAYS)
        is_sound = is_sound and all(math.isfinite(value) and value > 0 for value in times.values())
        return Choice(str(told["way"]), times) if is_sound else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _file(key: str) -> Path:
    return _folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _folder() -> Path:
    limits = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")]
    limits += [os.environ.get("ATEN_CPU_CAPABILITY", ""), torch.backends.cpu.get_cpu_capability()]
    key = "\0".join((processor(), *limits, torch.__version__, __version__, _source()))
    return cache_directory().parent / "choices" / hashlib.sha256(key.encode()).hexdigest()[:24]


@cache
def _source() -> str:
    return source_digest()
