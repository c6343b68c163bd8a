"""SIGINT, SIGTERM, crashes: what is saved, what is said, and that the run ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.faults.forks import Outcome, fork, run, start, wait, write_recipe

from trimtab.cli import supervise as supervision
from trimtab.cli.supervise import Child, Place, place_of, supervise, without_restarts
from trimtab.models.checkpoint import list_checkpoints
from trimtab.monitor.gaps import Measure
from trimtab.runs import metrics_table, read_events
from trimtab.runs.events import Event
from trimtab.runs.files import write_json
from trimtab.runs.writer import append_event
from trimtab.trainers.stage import Stage


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A recipe without checkpoints, and what an uninterrupted run of it leaves."""
    root = tmp_path_factory.mktemp("signals")
    recipe = write_recipe(root, "grpo", checkpoint_every=0, num_minibatches=1)
    assert run(recipe, root / "whole") == 0, (root / "whole.log").read_text()
    return recipe, Outcome.of(root / "whole", "grpo")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(
    number: int, code: int, whole: tuple[Path, Outcome], tmp_path: Path
) -> None:
    """Issue 5 (4): the step is finished and saved, also with checkpoint_every = 0; then it goes on."""
    recipe, wanted = whole
    ended = signalled(recipe, tmp_path / "out", number)
    log = (tmp_path / "out.log").read_text()
    assert ended == code, log
    assert f"stopped by {signal.Signals(number).name} after step 3 of 6 of rl" in log
    assert f"go on with: trimtab run {recipe} --output {tmp_path / 'out'} --resume\n" in log
    (found,) = list_checkpoints(tmp_path / "out" / "run" / "checkpoints" / "rl")
    assert found.name == "step-000003"
    assert metrics_table(tmp_path / "out" / "run", "rl")["step"] == [1, 2, 3]
    assert run(recipe, tmp_path / "out", ["--resume"]) == 0
    assert Outcome.of(tmp_path / "out", "grpo").differences(wanted) == []


def signalled(recipe: Path, output: Path, number: int) -> int:
    """Run with a signal that comes from inside the third step; return the exit code."""

    def body() -> int:
        from trimtab.cli.main import main
        from trimtab.trainers import grpo

        real, calls = grpo.collect_groups, []

        def collect_groups(*args: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), number)
            return real(*args)

        grpo.collect_groups = collect_groups
        return main(["run", str(recipe), "--output", str(output)])

    return wait(fork(body, output.parent / f"{output.name}.log"))


def test_a_second_signal_ends_at_once(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    """Issue 5 (4): a step that does not end is left when the signal comes again."""
    recipe, _ = whole
    pid = start(recipe, tmp_path / "out", fault="after_rollout@2=hang")
    wait_for(lambda: len(events_of(tmp_path / "out", "metrics")) == 1)
    time.sleep(0.3)
    os.kill(pid, signal.SIGINT)
    wait_for(lambda: "stopping after this step" in (tmp_path / "out.log").read_text())
    assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the first one waits for the step"
    os.kill(pid, signal.SIGINT)
    assert wait(pid) == 130
    log = (tmp_path / "out.log").read_text()
    assert "stopped by SIGINT at once" in log and "go on with: trimtab run" in log


def events_of(output: Path, kind: Any) -> list[Event]:
    return read_events(output / "run", kind) if (output / "run" / "events.jsonl").exists() else []


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    """Issue 5 (4): the run goes on with a warning event, and the checkpoint before it stays."""
    recipe, wanted = whole
    out = tmp_path / "out"
    words = ["--rl.checkpoint_every", "1", "--checkpoint.keep", "9"]
    assert run(recipe, out, words, fault="checkpoint_after_state@3=oserror") == 0
    names = [path.name for path in list_checkpoints(out / "run" / "checkpoints" / "rl")]
    assert names == ["step-000001", "step-000002", "step-000004", "step-000005", "step-000006"]
    (warning,) = read_events(out / "run", "warning")
    assert warning.step == 3 and "make room on the disk" in warning.data["text"]
    assert Outcome.of(out, "grpo").differences(wanted) == []


def test_a_damaged_checkpoint_falls_back_and_says_so(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    """Issue 5 (4): the one before is taken, with a sentence and an event; the end is the same."""
    recipe, wanted = whole
    out, words = tmp_path / "out", ["--rl.checkpoint_every", "2"]
    run(recipe, out, words, fault="step_finished@5=kill")
    folder = out / "run" / "checkpoints" / "rl"
    file = list_checkpoints(folder)[-1] / "state.json"
    file.write_bytes(file.read_bytes().replace(b"1", b"2", 1))
    assert run(recipe, out, [*words, "--resume"]) == 0
    (warning,) = read_events(out / "run", "warning")
    assert "step-000004/state.json was changed" in warning.data["text"]
    assert "Going on from step-000002" in warning.data["text"]
    assert [event.step for event in read_events(out / "run", "resumed")] == [2]
    assert (folder / "damaged-step-000004").is_dir()
    names = [path.name for path in list_checkpoints(folder)]
    assert names[-2:] == ["step-000004", "step-000006"]  # and the best one, which may be older
    assert Outcome.of(out, "grpo").differences(wanted) == []


@pytest.mark.parametrize("best", [2, 4])  # before the crash, and after it
def test_the_best_checkpoint_is_kept(best: int, whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    """Issue 5 (4): the one with the highest eval/reward stays beside the newest, also after a resume."""
    recipe, _ = whole
    out = tmp_path / "out"
    words = ["--rl.checkpoint_every", "1", "--rl.eval_every", "1", "--checkpoint.keep", "1"]
    words += ["--checkpoint.keep_last", "false"]
    run(recipe, out, words, "checkpoint_after_rename@3=kill", lambda: evaluate_best_at(best))
    assert run(recipe, out, [*words, "--resume"], setup=lambda: evaluate_best_at(best)) == 0
    assert metrics_table(out / "run", "rl")["eval/reward"] == [0.9 if i == best else 0.5 for i in range(1, 7)]
    names = {path.name for path in list_checkpoints(out / "run" / "checkpoints" / "rl")}
    assert names == {f"step-{best:06d}", "step-000005"}


def evaluate_best_at(best: int) -> None:
    """Whatever the policy says, the evaluation after step ``best`` gives 0.9, and all others give 0.5."""
    real = Stage.log_evaluation

    def log_evaluation(self: Stage, step: int, measures: Mapping[str, Measure]) -> None:
        value = 0.9 if step + 1 == best else 0.5
        real(self, step, {**measures, "eval/reward": Measure(value, 0.0, 2)})

    Stage.log_evaluation = log_evaluation  # type: ignore[method-assign]


class Scripted:
    """Stands for the child processes: exit codes in order, and what each child leaves."""

    def __init__(self, root: Path, *script: tuple[int, int]) -> None:
        self.root, self.script = root, list(script)
        self.commands: list[list[str]] = []

    def __call__(self, child: Child, words: list[str]) -> int:
        self.commands.append(list(words))
        code, step = self.script.pop(0)
        write_json(self.root / "manifest.json", {"started": len(self.commands)})
        append_event(self.root, Event(0.0, "rl", "stage_started", 0, {}))
        append_event(self.root, Event(0.0, "rl", "metrics", step + 1, {"loss/total": 1.0}))
        return code


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def play(*script: tuple[int, int], limit: int = 3) -> tuple[int, Scripted]:
        found = Scripted(tmp_path, *script)
        monkeypatch.setattr(Child, "run", lambda self, words: found(self, words))
        return supervise(["r.toml"], str(tmp_path), limit, pause=0.0), found

    yield play


@pytest.mark.parametrize("code", [0, 2, 3, 130, 143])
def test_what_is_no_crash_is_not_restarted(code: int, scripted: Any) -> None:
    """Issue 5 (4): done, a user's error, divergence and a stop end the supervisor with the same code."""
    assert scripted((code, 1))[0] == code
    assert scripted((code, 1))[1].commands == [["r.toml"]]


@pytest.mark.parametrize("code", [1, 137, 139, 134])
def test_a_crash_is_restarted_with_resume(code: int, scripted: Any, tmp_path: Path) -> None:
    """Issue 5 (4): each restart is an event; the second command line has --resume once."""
    result, found = scripted((code, 1), (code, 3), (0, 5))
    assert result == 0
    assert found.commands == [["r.toml"], ["r.toml", "--resume"], ["r.toml", "--resume"]]
    data = [event.data for event in read_events(tmp_path, "restart")]
    assert [(d["number"], d["limit"], d["exit_code"], d["step"]) for d in data] == [
        (1, 3, code, 2),
        (2, 3, code, 4),
    ]


def test_restarts_are_bounded(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 5 (4): after N restarts a sentence, and the exit code of the crash."""
    assert scripted(*[(137, step) for step in range(9)], limit=2)[0] == 137
    assert "died in stage rl after 3 steps (SIGKILL) after 2 restarts" in capsys.readouterr().err


def test_the_same_crash_at_the_same_place_ends_it(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 5 (4): without progress another try would not help; another fault there would be another try."""
    result, found = scripted((137, 4), (1, 4), (1, 4), (0, 5), limit=9)
    assert result == 1 and len(found.commands) == 3
    assert "after 5 steps (exit code 1), twice in a row" in capsys.readouterr().err


def test_an_older_run_in_the_directory_is_not_resumed(scripted: Any, tmp_path: Path) -> None:
    """Issue 5 (4): a child that died before it began its own record is started like the first time."""
    write_json(tmp_path / "manifest.json", {"started": 1})  # what the first child leaves looks the same
    _, found = scripted((1, 0), (0, 5))
    assert found.commands == [["r.toml"], ["r.toml"]]


def test_restarted_runs_end_like_whole_ones(
    whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 5 (4): killed in every third step of every process, restarted twice, the same end."""
    recipe, wanted = whole
    out, words = tmp_path / "out", ["--rl.checkpoint_every", "2"]

    def child(self: Child, command: list[str]) -> int:
        rest = command[command.index(str(out)) + 1 :]
        code = run(recipe, out, rest, fault="after_reward@3=kill")
        return code if code >= 0 else 128 - code

    monkeypatch.setattr(Child, "run", child)
    assert supervise([str(recipe), "--output", str(out), *words], str(out / "run"), 5, pause=0.0) == 0
    assert [event.data["number"] for event in read_events(out / "run", "restart")] == [1, 2]
    assert Outcome.of(out, "grpo").differences(wanted) == []


@pytest.mark.slow
def test_max_restarts_of_the_command_line(
    whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 5 (4): the same through the command line, with child processes of their own."""
    from trimtab.cli.main import main

    recipe, wanted = whole
    monkeypatch.setenv("TRIMTAB_FAULT", "after_reward@3=kill")
    monkeypatch.setattr(supervision, "PAUSE", 0.1)
    words = ["run", str(recipe), "--output", str(tmp_path / "out"), "--rl.checkpoint_every=2"]
    assert main([*words, "--max-restarts", "3"]) == 0
    assert len(read_events(tmp_path / "out" / "run", "restart")) == 2
    table = metrics_table(tmp_path / "out" / "run", "rl")
    assert {name: table[name] for name in wanted.metrics} == wanted.metrics


def test_the_words_for_the_child() -> None:
    """Issue 5 (4): --max-restarts goes, in both spellings, and nothing else."""
    words = ["r.toml", "--max-restarts", "3", "--seed", "3", "--max-restarts=4", "--resume"]
    assert without_restarts(words) == ["r.toml", "--seed", "3", "--resume"]


def test_the_place_of_a_run(tmp_path: Path) -> None:
    """Issue 5 (4): nothing, a stage begun, a step done, a stage done."""
    assert place_of(str(tmp_path)) == Place("", 0, 0)
    append_event(tmp_path, Event(0.0, "sft", "stage_started", 0, {}))
    append_event(tmp_path, Event(0.0, "sft", "metrics", 7, {}))
    append_event(tmp_path, Event(0.0, "sft", "stage_finished", 7, {}))
    append_event(tmp_path, Event(0.0, "rl", "stage_started", 0, {}))
    assert place_of(str(tmp_path)) == Place("rl", 0, 1)
    append_event(tmp_path, Event(0.0, "rl", "metrics", 1, {}))
    assert place_of(str(tmp_path)) == Place("rl", 1, 1)
