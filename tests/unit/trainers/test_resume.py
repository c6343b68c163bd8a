"""Interrupted and resumed runs end where uninterrupted ones do, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.models.tiny import tiny_model, tiny_tokenizer
from tests.unit.trainers.systems import rl_config, tiny_directory, tiny_stage, tiny_system, train
from tests.unit.trainers.test_guard_path import everything
from tests.unit.trainers.test_supervised import preferences, write_rows

from trimtab.config import RewardModelConfig, RLConfig, SFTConfig
from trimtab.distributed.worker import WorkerSettings, policy_learner
from trimtab.errors import CheckpointError
from trimtab.models.checkpoint import list_checkpoints
from trimtab.models.load import load_sequence_classifier
from trimtab.runs import metrics_table, read_events, read_rollouts
from trimtab.trainers.reward_model import train_reward_model
from trimtab.trainers.sft import train_sft
from trimtab.trainers.stage import Stage

STEPS = 5
State = dict[str, torch.Tensor]
Trainer = Callable[[Stage], State]


class Interrupted(Exception):
    """Stands for Ctrl-C, a full disk, a power cut."""


def stop_after(stage: Stage, steps: int) -> Stage:
    """Let the stage die once ``steps`` steps are finished, before what comes after the log."""
    log, count = stage.log, [0]

    def counted(step: int, metrics: Any) -> None:
        log(step, metrics)
        count[0] += 1
        if count[0] == steps:
            raise Interrupted

    stage.log = counted  # type: ignore[method-assign]
    return stage


def rl_trainer(rl: RLConfig) -> Trainer:
    def run(stage: Stage) -> State:
        system = tiny_system(rl)
        train(system, rl, stage)
        return everything(system) | {
            f"reference.{name}": x for name, x in system.reference.model.state_dict().items()
        }

    return run


def sft_trainer(root: Path) -> Trainer:
    rows = [{"prompt": f"q{i}", "completion": "yes " * (1 + i % 3)} for i in range(7)]
    config = SFTConfig(
        data=write_rows(root / "sft.jsonl", rows), batch_size=3, steps=STEPS, learning_rate=1e-3
    )

    def run(stage: Stage) -> State:
        learner = policy_learner(tiny_model(), WorkerSettings(learning_rate=1e-3, with_entropy=False))
        train_sft(config, learner, tiny_tokenizer(), stage, seed=1)
        return dict(learner.module.state_dict())

    return run


def reward_model_trainer(root: Path) -> Trainer:
    data, base = write_rows(root / "pairs.jsonl", preferences(9)), tiny_directory(root / "base")
    config = RewardModelConfig(data=data, batch_size=3, steps=STEPS, learning_rate=1e-3)

    def run(stage: Stage) -> State:
        model = load_sequence_classifier(base, pad_token_id=0, dtype="float32", seed=1)
        train_reward_model(config, model, tiny_tokenizer(), stage, seed=1)
        return dict(model.state_dict())

    return run


KINDS: dict[str, Callable[[Path], Trainer]] = {
    "grpo": lambda root: rl_trainer(
        rl_config(
            steps=STEPS,
            learning_rate=1e-2,
            lr_schedule="cosine",
            reference_refresh_steps=2,
            kl={"coef": 0.1, "controller": "adaptive", "horizon": 10},
            num_minibatches=2,
        )
    ),
    "ppo": lambda root: rl_trainer(
        rl_config("ppo", steps=STEPS, learning_rate=1e-2, num_minibatches=2, kl={"controller": "clipped"})
    ),
    "ppo, shared critic": lambda root: rl_trainer(
        rl_config("ppo", steps=STEPS, learning_rate=1e-2, num_minibatches=2, ppo={"critic": "shared"})
    ),
    "grpo, prompts drawn again": lambda root: rl_trainer(
        rl_config(steps=STEPS, learning_rate=1e-2, data="task:arithmetic", refresh_every=1)
    ),
    "ppo, prompts drawn again": lambda root: rl_trainer(
        rl_config("ppo", steps=STEPS, learning_rate=1e-2, data="task:arithmetic", refresh_every=3)
    ),
    "sft": sft_trainer,
    "reward_model": reward_model_trainer,
}


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_equals_uninterrupted(kind: str, tmp_path: Path) -> None:
    """Issue 2 (8): killed in the fourth of five steps, resumed from the second: the same weights, optimizer
    state, reference and record, bit for bit."""
    name = kind if kind in ("sft", "reward_model") else "rl"
    trainer = KINDS[kind](tmp_path)
    whole = trainer(tiny_stage(tmp_path / "whole", name))
    root = tmp_path / "broken"
    with pytest.raises(Interrupted):
        trainer(stop_after(tiny_stage(root, name, checkpoint_every=2), 4))
    torch.manual_seed(999)  # a fresh process starts from another random state
    resumed = trainer(tiny_stage(root, name, checkpoint_every=2, is_resumed=True))
    assert whole.keys() == resumed.keys()
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []
    expected, found = metrics_table(tmp_path / "whole", name), metrics_table(root, name)
    assert found["step"] == [1, 2, 3, 4, 5]
    for metric in expected:
        if not metric.startswith(("time/", "speed/")):
            assert found[metric] == expected[metric], metric
    assert len(read_events(root, "metrics", name)) == STEPS, "no step is recorded twice"
    if name == "rl":
        assert len(read_rollouts(root, name)) == len(read_rollouts(tmp_path / "whole", name))


def test_checkpoints_are_few_and_named_by_finished_steps(tmp_path: Path) -> None:
    """Issue 2 (8): every n steps, the newest two are kept, none after the last step."""
    rl = rl_config(steps=7)
    stage = tiny_stage(tmp_path, checkpoint_every=1)
    train(tiny_system(rl), rl, stage)
    names = [path.name for path in list_checkpoints(stage.checkpoint_directory)]
    assert names == ["step-000005", "step-000006"]
    assert [event.step for event in read_events(tmp_path, "checkpoint")] == [1, 2, 3, 4, 5, 6]


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    """Issue 2 (8): a damaged checkpoint is an error that names it, never a silently wrong start."""
    rl = rl_config(steps=3)
    stage = tiny_stage(tmp_path, checkpoint_every=2)
    train(tiny_system(rl), rl, stage)
    file = list_checkpoints(stage.checkpoint_directory)[-1] / "tensors.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-000002.tensors\.safetensors was changed"):
        train(tiny_system(rl), rl, tiny_stage(tmp_path, checkpoint_every=2, is_resumed=True))


def test_a_half_written_checkpoint_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 2 (8): a process that dies while it writes leaves the checkpoint before it in force."""
    rl = rl_config(steps=6)
    stage = tiny_stage(tmp_path, checkpoint_every=2)
    from trimtab.models import checkpoint

    real, count = checkpoint._sha256, [0]

    def dies(path: Path) -> str:
        count[0] += 1
        if count[0] > 2:  # the second checkpoint, its tensors written
            raise Interrupted
        return real(path)

    monkeypatch.setattr(checkpoint, "_sha256", dies)
    with pytest.raises(Interrupted):
        train(tiny_system(rl), rl, stage)
    monkeypatch.setattr(checkpoint, "_sha256", real)
    assert [path.name for path in list_checkpoints(stage.checkpoint_directory)] == ["step-000002"]
    assert len(list(stage.checkpoint_directory.iterdir())) == 2  # the other is a hidden, half-written one
    train(tiny_system(rl), rl, tiny_stage(tmp_path, checkpoint_every=2, is_resumed=True))
    assert metrics_table(tmp_path, "rl")["step"] == [1, 2, 3, 4, 5, 6]
    assert not list(stage.checkpoint_directory.glob(".*"))


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    """Issue 2 (8): resuming with another seed is an error, not a mixture of two orders."""
    rl = rl_config(steps=3)
    train(tiny_system(rl), rl, tiny_stage(tmp_path, checkpoint_every=2))
    with pytest.raises(CheckpointError, match="seed"):
        train(tiny_system(rl), rl, tiny_stage(tmp_path, is_resumed=True), seed=2)


def test_guard_and_random_state_are_restored(tmp_path: Path) -> None:
    """Issue 2 (8): what the guard counted, the alarms that it holds back, and torch's generator."""
    rl = rl_config(steps=3)
    stage = tiny_stage(tmp_path, checkpoint_every=2)
    train(tiny_system(rl), rl, stage)
    stage.guard.skips = 2
    torch.manual_seed(77)
    random_state = torch.get_rng_state()
    stage.checkpoint_if_due(2, 3, {})
    torch.manual_seed(78)
    again = tiny_stage(tmp_path, is_resumed=True)
    assert again.restore() is not None
    assert again.guard.skips == 2
    assert torch.equal(torch.get_rng_state(), random_state)
    assert again.guard.state() == stage.guard.state()
