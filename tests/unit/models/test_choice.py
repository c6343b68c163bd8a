"""A choice by measurement (B.12): which way wins, how long an answer stays, what a damaged cache costs."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from trimtab.errors import ConfigError
from trimtab.models import choice
from trimtab.models.choice import ONEDNN, OWN, TORCH, choose, chosen, fastest, follow_choices, measure


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TRIMTAB_CHOICE", "measured")
    follow_choices({}, None)
    yield
    follow_choices({}, None)


def ways(**milliseconds: float) -> choice.Mapping[str, choice.Way]:
    """Ways that take this long; what they take is told apart by factors of ten."""
    return {name: lambda taken=taken: time.sleep(taken / 1000) for name, taken in milliseconds.items()}


def never() -> choice.Mapping[str, choice.Way]:
    raise AssertionError("it was measured again")


@pytest.mark.parametrize(
    ("seconds", "way"),
    [
        ({OWN: 0.94, ONEDNN: 1.0}, OWN),
        ({OWN: 0.96, ONEDNN: 1.0}, ONEDNN),  # faster, and not by 5 %
        ({OWN: 3.0, ONEDNN: 1.0, TORCH: 0.9}, TORCH),
        ({OWN: 3.0}, OWN),
    ],
)
def test_an_own_kernel_must_be_clearly_faster(seconds: dict[str, float], way: str) -> None:
    assert fastest(seconds) == way


def test_the_fastest_is_found_and_kept() -> None:
    """Within the process, and by the next one from the disk, whatever would be measured then."""
    assert choose("linear", lambda: ways(own=10, onednn=0.1), (OWN, ONEDNN)) == ONEDNN
    assert choose("linear", never, (OWN, ONEDNN)) == ONEDNN
    follow_choices({}, None)
    assert choose("linear", never, (OWN, ONEDNN)) == ONEDNN


def test_a_resumed_run_keeps_its_choice_though_the_cache_says_another() -> None:
    choose("linear", lambda: ways(own=10, onednn=0.1), (OWN, ONEDNN))
    told: dict[str, str] = {}
    (question,) = chosen()
    follow_choices({question: OWN}, told.update)
    assert choose("linear", never, (OWN, ONEDNN)) == OWN
    assert told == {}
    choose("other", lambda: ways(own=10, onednn=0.1), (OWN, ONEDNN))
    assert list(told.values()) == [ONEDNN]


def test_the_number_of_threads_is_part_of_the_question() -> None:
    choose("linear", lambda: ways(own=10, onednn=0.1), (OWN, ONEDNN))
    (question,) = chosen()
    assert question == f"linear threads={torch.get_num_threads()}"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"linear threads=1": 3}', '{"linear threads=1": {"way": "x"}}']
)
def test_a_damaged_file_is_measured_again_and_mended(text: str) -> None:
    choose("linear", lambda: ways(own=10, onednn=0.1), (OWN, ONEDNN))
    choice._file().write_text(text)
    follow_choices({}, None)
    assert choose("linear", lambda: ways(own=0.1, onednn=10), (OWN, ONEDNN)) == OWN
    assert len(json.loads(choice._file().read_text())) == 1


def test_who_wrote_first_is_right() -> None:
    """Two processes measure at once: both go the way of the answer that is on the disk."""

    def meanwhile() -> choice.Mapping[str, choice.Way]:
        question = f"linear threads={torch.get_num_threads()}"
        choice._keep(question, choice.Choice(OWN, {}))
        return ways(own=10, onednn=0.1)

    assert choose("linear", meanwhile, (OWN, ONEDNN)) == OWN


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert choose("linear", lambda: ways(own=10, onednn=0.1), (OWN, ONEDNN)) == ONEDNN


def test_an_answer_belongs_to_a_processor_and_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    before = choice._file()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert choice._file() != before
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(choice, "processor", lambda: "another")
    assert choice._file() != before


def test_a_forced_way_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CHOICE", "torch")
    assert choose("linear", never, (OWN, TORCH)) == TORCH
    assert choose("linear", never, (OWN, ONEDNN)) == OWN  # it has no such way
    monkeypatch.setenv("TRIMTAB_CHOICE", "onednm")
    with pytest.raises(ConfigError, match=r"onednm.*onednn"):
        choose("linear", never, (OWN,))


def test_a_single_way_needs_no_measuring() -> None:
    assert measure({}, TORCH).way == TORCH
    assert measure({OWN: lambda: 1 / 0}, TORCH).way == OWN
