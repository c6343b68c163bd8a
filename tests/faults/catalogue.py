"""All faults of the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults import injections as put
from tests.faults.cases import STALL, Fault, newest, stop_and_continue
from tests.faults.injections import INF, NAN, LocalLearner, NativeEngine, Reference
from tests.faults.tiny_runs import TinyRun

from trimtab.models.optim import MasterAdamW
from trimtab.trainers.cadence import Cadence

_REWARDS = Path(__file__).with_name("bad_rewards.py")
KILL_POINTS = (
    "step_started@4",
    "after_rollout@3",
    "after_reward@4",
    "after_reference@3",
    "mid_backward@5",
    "after_backward@6",
    "after_optimizer_step@7",
    "before_publish@3",
    "after_publish@5",
    "before_event@4",
    "after_event@4",
    "step_finished@3",
    "checkpoint_started@2",
    "checkpoint_after_tensors@2",
    "checkpoint_after_state@1",
    "checkpoint_after_manifest@2",
    "checkpoint_before_rename@2",
    "checkpoint_after_rename@2",
    "model_written@1",
    "before_model_rename@1",
    "after_model_rename@1",
)
PHASES = {"rollout": 3, "reward": 4, "reference": 3, "update": 5, "publish": 4, "checkpoint": 2}


def all_faults() -> list[Fault]:
    """Every fault of the table, in its order."""
    return [
        *_kills(),
        *_terms(),
        *_engines(),
        *_stalls(),
        *_rewards(),
        *_machines(),
        *_damages(),
        *_numbers(),
    ]


def _kills() -> Iterator[Fault]:
    for point in KILL_POINTS:
        yield Fault(f"killed: {point.partition('@')[0]}", point=f"{point}=kill", codes=(-9,))


def _terms() -> Iterator[Fault]:
    for phase, count in {**PHASES, "evaluation": 2}.items():
        yield Fault(f"SIGTERM in: {phase}", setup=put.term_in(phase, count))


def _engines() -> Iterator[Fault]:
    raises = put.before_call(NativeEngine, "generate", 4, put.raise_it)
    yield Fault("engine raises", setup=raises, words="illegal memory access")
    yield Fault("evaluation raises", setup=put.before_call(Cadence, "_evaluate", 2, put.raise_it))


def _stalls() -> Iterator[Fault]:
    told: dict[str, Any] = {"event": "stall", "monitor": STALL, "codes": (75,)}
    hangs = put.before_call(NativeEngine, "generate", 4, put.hang)
    yield Fault("engine hangs", setup=hangs, words="'rollout' is awaited", **told)
    for name, point, words in (
        ("update hangs", "mid_backward@5=hang", "'update' is awaited"),
        ("checkpoint hangs", "checkpoint_after_tensors@2=hang", "'checkpoint' is awaited"),
        ("hang between the phases", "after_reference@3=hang", "'between the phases' is awaited"),
    ):
        yield Fault(name, point=point, words=words, **told)
    hangs = put.before_call(NativeEngine, "generate", 5, put.hang)
    yield Fault("evaluation hangs", setup=hangs, words="'evaluation' is awaited", **told)
    locked = put.before_call(NativeEngine, "generate", 4, put.hang_with_the_lock)
    monitor = {**STALL, "stall_factor": 1.0}
    yield Fault("engine hangs with Python's lock", setup=locked, monitor=monitor, codes=(1, 75))
    yield Fault("process suspended", "survived", while_running=stop_and_continue, monitor=STALL)


def _rewards() -> Iterator[Fault]:
    for name, function, options in (
        ("reward worker killed", "dies", {}),
        ("reward worker hangs", "hangs", {"timeout_s": 1.0}),
        ("reward worker raises", "raises", {}),
        ("reward worker: garbage", "garbage", {}),
    ):
        rewards = [{"name": f"{_REWARDS}:{function}", "options": options}]
        yield Fault(name, "survived", change={"rewards": rewards}, is_exact=False)


def _machines() -> Iterator[Fault]:
    for point in ("checkpoint_after_tensors@2", "before_event@4", "model_written@1"):
        name = f"disk full: {point.partition('@')[0]}"
        yield Fault(name, "either", f"{point}=oserror", words="o space left")
    yield Fault("disk full: file size limit of the kernel", "either", setup=put.small_files(100_000))
    yield Fault("directory read-only", setup=put.as_nobody, before=_read_only, damage=_writable, codes=(2,))
    no_files = put.before_call(NativeEngine, "generate", 4, put.no_more_files)
    yield Fault("descriptors exhausted", "either", setup=no_files, words="Too many open files")
    for hours in (-1, 1):
        jump = put.clock_jump(3600.0 * hours)
        yield Fault(f"clock jumps by {hours:+d} h", "survived", setup=jump, monitor=STALL, is_timed=False)
    yield Fault("tracker gone", "survived", setup=put.broken_tracker)
    oom: dict[str, Any] = {"event": "out_of_memory", "words": "max_tokens", "is_exact": False}
    yield Fault("out of memory in a micro-batch", "survived", "mid_backward@5=oom", **oom)
    for name, act in (
        ("out of memory: CPU allocator", put.cpu_allocator_fails),
        ("out of memory: Python", put.python_memory),
    ):
        setup = put.before_call(put.PolicyPass, "backward", 5, act)
        yield Fault(name, "survived", setup=setup, **oom)


def _damages() -> Iterator[Fault]:
    killed = "step_started@6=kill"  # checkpoints after steps 2 and 4 are there
    for name, damage in (
        ("checkpoint half-written", lambda run: _cut(newest(run) / "tensors.safetensors")),
        ("checkpoint: a byte of the tensors", lambda run: _flip(newest(run) / "tensors.safetensors")),
        ("checkpoint: a byte of the state", lambda run: _flip(newest(run) / "state.json")),
        ("checkpoint: no manifest", lambda run: (newest(run) / "manifest.json").unlink()),
        ("checkpoint: a temporary one is left", _leave_temporary),
        ("record: half a line", lambda run: _append(run.run / "events.jsonl", b'{"time": 17')),
    ):
        yield Fault(name, point=killed, codes=(-9,), damage=damage)


def _numbers() -> Iterator[Fault]:
    """NaN and infinity at the six sites; two or three ways each."""

    def survived(name: str, site: str, setup: put.Setup) -> Fault:
        return Fault(
            name, "survived", setup=setup, is_exact=False, event="verdict", words=site, is_watched=True
        )

    def stopped(name: str, site: str, setup: put.Setup) -> Fault:
        return Fault(name, setup=setup, event="verdict", words=site, codes=(3,), is_watched=True)

    for name, function in (("NaN reward", "not_a_number"), ("infinite reward", "infinite")):
        rewards = [{"name": f"{_REWARDS}:{function}", "options": {"isolate": False}}]
        yield Fault(
            name, "survived", change={"rewards": rewards}, is_exact=False, event="alarm",
            words="'metric': 'reward'", is_watched=True,
        )  # fmt: skip
    site = "log-probability"
    changed = put.change_result
    yield survived(
        "NaN log-probability: reference", site, changed(Reference, "logprobs", 3, put.bad_scores(NAN))
    )
    yield survived(
        "NaN log-probability: old", site, changed(LocalLearner, "logprobs", 3, put.bad_scores(NAN))
    )
    engine = changed(NativeEngine, "generate", 4, put.bad_completions(NAN))
    yield survived("NaN log-probability: engine", site, engine)
    yield survived("NaN loss", "loss", changed(LocalLearner, "forward_backward", 5, put.bad_loss))
    for value in (NAN, INF):
        setup = changed(LocalLearner, "forward_backward", 5, put.bad_gradient(value))
        yield survived(f"{value} gradient", "gradient", setup)
    yield stopped(
        "infinite weight after the step", "weight", changed(MasterAdamW, "step", 7, put.bad_step(INF))
    )
    for name, site, act in (
        ("NaN weight", "weight", put.bad_weight(NAN)),
        ("NaN weight that no loss shows", "weight", put.bad_weight(NAN, 7)),
        ("NaN in exp_avg", "optimizer state", put.bad_moment(0, NAN)),
        ("infinity in exp_avg_sq", "optimizer state", put.bad_moment(1, INF)),
    ):
        yield stopped(name, site, put.before_call(LocalLearner, "forward_backward", 7, act))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def _leave_temporary(run: TinyRun) -> None:
    folder = run.checkpoints / ".step-000006.tmp"
    folder.mkdir()
    (folder / "tensors.safetensors").write_bytes(b"half")


def _read_only(run: TinyRun) -> None:
    run.output.mkdir(parents=True, exist_ok=True)
    for folder in (run.root, *run.root.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)
    run.output.chmod(0o555)


def _writable(run: TinyRun) -> None:
    run.output.chmod(0o755)
