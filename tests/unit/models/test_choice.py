"""A choice by measurement (B.12): which way wins, how long an answer stays, what a damaged cache costs."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab.models import choice
from trimtab.models.choice import choose, chosen, follow_choices, following_choices, measured_choices
from trimtab.models.trials import OWN, PACKED, STEPS, TORCH, Budget, Choice, Way, fastest, measure

Timings = Mapping[str, Way]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TRIMTAB_CHOICES", "measure")
    follow_choices({}, None)
    yield
    follow_choices({}, None)


class Clock:
    """Time that passes only where a way says so: timings by hand, whatever this machine does."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, *seconds: float) -> Callable[[], None]:
        """A call that takes each of ``seconds`` in turn, the last one from then on."""
        left = list(seconds)

        def call() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def answering(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Every measurement ends with this way."""
    monkeypatch.setattr(choice, "measure", lambda ways, *_: Choice(way, dict.fromkeys(ways, 1.0)))


def ways() -> Timings:
    return {name: Way(lambda: None) for name in (OWN, PACKED, TORCH)}


def never() -> Timings:
    raise AssertionError("it was measured again")


@pytest.mark.parametrize(
    ("seconds", "way"),
    [
        ({OWN: 0.94, PACKED: 1.0}, OWN),
        ({OWN: 0.96, PACKED: 1.0}, PACKED),  # faster, and not by 5 %
        ({OWN: 3.0, PACKED: 1.0, TORCH: 0.99}, TORCH),
        ({OWN: 3.0}, OWN),
    ],
)
def test_an_own_kernel_must_be_clearly_faster(seconds: dict[str, float], way: str) -> None:
    assert fastest(seconds) == way


def test_the_median_counts_not_what_disturbed_a_round() -> None:
    """One round of the faster way took 50 times as long, and one of the slower way almost nothing."""
    clock = Clock()
    own, packed = clock.taking(9, 2e-3, 100e-3, 2e-3), clock.taking(9, 3e-3, 1e-6, 3e-3)
    found = measure({OWN: Way(own), PACKED: Way(packed)}, OWN, 1000, clock)
    assert found.way == OWN
    assert found.microseconds == pytest.approx({OWN: 2000, PACKED: 3000})


def test_packing_counts_with_the_steps_that_share_it() -> None:
    """A step saves 0.1 ms; packing costs 0.2 ms for each of the 128 steps that share it: it does not pay."""
    clock = Clock()
    packs = clock.taking(STEPS * 0.2e-3)
    timings = {PACKED: Way(clock.taking(0.9e-3), packs), TORCH: Way(clock.taking(1e-3))}
    found = measure(timings, PACKED, clock=clock)
    assert found.microseconds == pytest.approx({PACKED: 1100, TORCH: 1000})
    assert (found.way, found.reason) == (TORCH, "1.10 times as fast as packed")


def test_what_would_take_too_long_is_not_measured() -> None:
    """Five rounds of 0.5 s do not fit into 1.5 s: one to warm up says so."""
    clock = Clock()
    found = measure({OWN: Way(clock.taking(0.3)), TORCH: Way(clock.taking(0.2))}, OWN, 1.5, clock)
    assert found == Choice(OWN) and clock.now == pytest.approx(0.5)
    budget = Budget(1.5, clock)
    with budget.spending():
        clock.now += 2.0
    assert budget.left == pytest.approx(-0.5)
    assert choose("linear", never, (OWN, TORCH), budget) == OWN


def test_a_reason_is_said() -> None:
    assert Choice(OWN, {OWN: 10, TORCH: 15}).reason == "1.50 times as fast as torch"
    assert Choice(TORCH, {OWN: 98, TORCH: 100}).reason == "own is 1.02 times as fast, and must be 1.05"
    assert Choice(OWN, {OWN: 10}).reason == "no other gives a row the same in every batch"
    assert Choice(OWN).reason == "not measured: no time was left"


def test_the_fastest_is_found_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the process, and by the next one from the disk, whatever would be measured then."""
    answering(monkeypatch, PACKED)
    assert choose("linear", ways, (OWN, PACKED)) == PACKED
    assert choose("linear", never, (OWN, PACKED)) == PACKED
    follow_choices({}, None)
    assert choose("linear", never, (OWN, PACKED)) == PACKED
    (question,) = measured_choices()
    assert question == f"linear threads={torch.get_num_threads()} of own/packed"


def test_what_no_time_was_left_for_is_the_same_in_the_next_run() -> None:
    assert choose("linear", never, (OWN, PACKED), Budget(0.0)) == OWN
    follow_choices({}, None)
    assert choose("linear", never, (OWN, PACKED), Budget(9.0)) == OWN


def test_a_resumed_run_keeps_its_choice_though_cache_and_environment_say_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch, PACKED)
    choose("linear", ways, (OWN, PACKED, TORCH))
    told: dict[str, str] = {}
    with following_choices({"linear": TORCH}, told.update):
        assert choose("linear", never, (OWN, PACKED, TORCH)) == TORCH
        with monkeypatch.context() as patch:
            patch.setenv("TRIMTAB_CHOICES", "own")
            assert choose("linear", never, (OWN, PACKED, TORCH)) == TORCH
        assert told == {}
        choose("other", ways, (OWN, PACKED))
        assert told == {"other": PACKED}
        assert chosen() == {"linear": TORCH, "other": PACKED}
    choose("third", ways, (OWN, PACKED))
    assert "third" not in told


def test_a_way_that_cannot_be_had_any_more_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk and the manifest say the own kernel, and there is no compiler now."""
    answering(monkeypatch, OWN)
    choose("linear", ways, (OWN, PACKED, TORCH))
    follow_choices({"linear": OWN}, None)
    answering(monkeypatch, TORCH)
    assert choose("linear", ways, (PACKED, TORCH)) == TORCH


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", '{"way": "own"}', '{"way": "x", "microseconds": {}}'),
        '{"way": "own", "microseconds": {"torch": 1.0}}',
        '{"way": "own", "microseconds": {"own": NaN, "torch": 1.0}}',
    ],
)
def test_a_damaged_file_is_measured_again_and_mended(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    answering(monkeypatch, PACKED)
    choose("linear", ways, (OWN, PACKED))
    (file,) = choice.choices_folder().glob("*.json")
    file.write_text(text)
    assert measured_choices() == {}
    follow_choices({}, None)
    answering(monkeypatch, OWN)
    assert choose("linear", ways, (OWN, PACKED)) == OWN
    assert json.loads(file.read_text())["way"] == OWN
    assert os.listdir(file.parent) == [file.name]


def test_who_wrote_first_is_right_and_nobody_loses_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes measure at once: both go the way of the answer that is on the disk."""
    answering(monkeypatch, PACKED)

    def meanwhile() -> Timings:
        key = f"linear threads={torch.get_num_threads()} of own/packed"
        choice._keep(key, Choice(OWN, {OWN: 1.0}), (OWN, PACKED))
        choice._keep("another", Choice(TORCH, {TORCH: 1.0}), (TORCH,))
        return ways()

    assert choose("linear", meanwhile, (OWN, PACKED)) == OWN
    assert len(measured_choices()) == 2


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    answering(monkeypatch, PACKED)
    assert choose("linear", ways, (OWN, PACKED)) == PACKED
    assert choose("linear", never, (OWN, PACKED)) == PACKED
    assert measured_choices() == {}


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"])
def test_an_answer_belongs_to_a_processor_and_its_limits(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = choice.choices_folder()
    with monkeypatch.context() as patch:
        patch.setenv(name, "another")
        assert choice.choices_folder() != before
    assert choice.choices_folder() == before
    for part in ("processor", "_source"):
        with monkeypatch.context() as patch:
            patch.setattr(choice, part, lambda: "another")
            assert choice.choices_folder() != before
    monkeypatch.setattr(choice, "__version__", "another")
    assert choice.choices_folder() != before


def test_a_forced_way_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, str] = {}
    follow_choices({}, told.update)
    monkeypatch.setenv("TRIMTAB_CHOICES", "torch")
    assert choose("linear", never, (OWN, TORCH)) == TORCH
    assert choose("other", never, (OWN, PACKED)) == OWN  # it has no such way
    assert told == {"linear": TORCH, "other": OWN}
    monkeypatch.setenv("TRIMTAB_CHOICES", "pakced")
    with pytest.raises(ConfigError, match=r"pakced.*packed"):
        choose("linear", never, (OWN,))


def test_a_single_way_needs_no_measuring() -> None:
    assert choose("linear", never, (TORCH,)) == TORCH
    assert measured_choices() == {}
