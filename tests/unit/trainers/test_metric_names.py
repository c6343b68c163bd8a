"""Every number that a stage emits is explained; nothing that the specification asks for is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.models.tiny import tiny_model, tiny_tokenizer
from tests.unit.trainers.systems import (
    even_share,
    prompts,
    quiet_view,
    rl_config,
    tiny_directory,
    tiny_stage,
    tiny_system,
    train,
)
from tests.unit.trainers.test_supervised import preferences, write_rows

from trimtab.config import RewardModelConfig, SFTConfig
from trimtab.data import PromptStream
from trimtab.distributed.worker import WorkerSettings, policy_learner
from trimtab.models.load import load_sequence_classifier
from trimtab.monitor import Measure
from trimtab.rewards.base import Reward
from trimtab.rewards.combine import CombinedReward
from trimtab.runs import find_metric, metrics_table, named_stats, read_events
from trimtab.trainers.cadence import Cadence
from trimtab.trainers.grpo import train_grpo
from trimtab.trainers.reward_model import train_reward_model
from trimtab.trainers.sft import train_sft

# R13 and R17, in the spelling of the Python API.
EVERY_STEP = {
    "loss", "mean_reward", "reward_std", "kl_divergence", "policy_loss", "clipfrac", "entropy", "approx_kl",
    "response_length", "distinct_1", "distinct_2", "grad_norm", "learning_rate", "truncated_fraction",
    "zero_variance_groups", "tokens_per_second", "time_rollout", "time_reward", "time_reference",
    "time_update", "time_step", "reward_part_function",
}  # fmt: skip


def components() -> Reward:
    from tests.unit.trainers.systems import FunctionReward

    return CombinedReward([(FunctionReward(even_share), 1.0)])


def names_of(root: Path, stage: str) -> set[str]:
    """The metrics that a stage left behind, all of them known."""
    found = set(metrics_table(root, stage)) - {"step"}
    unknown = {name for name in found if find_metric(name) is None}
    assert not unknown, f"not in trimtab.runs.METRICS and docs/metrics.md: {unknown}"
    return found


@pytest.mark.parametrize("critic", ["separate", "shared"])
def test_ppo(critic: str, tmp_path: Path) -> None:
    """R13, R17: every name of the specification, value_loss among them; every metric is explained."""
    rl = rl_config("ppo", steps=2, entropy_coef=0.01, ppo={"critic": critic})
    train(tiny_system(rl, components()), rl, tiny_stage(tmp_path))
    stats = named_stats(dict.fromkeys(names_of(tmp_path, "rl"), 0.0))
    assert stats.keys() >= EVERY_STEP | {"value_loss", "critic_explained_variance"}


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "gspo", "cispo"])
def test_grpo(algorithm: str, tmp_path: Path) -> None:
    """R13, R17: every name of the specification; every metric is explained."""
    rl = rl_config(algorithm, steps=2, overlong={"buffer": 2}, entropy_coef=0.01)
    train(tiny_system(rl, components()), rl, tiny_stage(tmp_path))
    assert named_stats(dict.fromkeys(names_of(tmp_path, "rl"), 0.0)).keys() >= EVERY_STEP


def test_evaluation_during_training(tmp_path: Path) -> None:
    """R21: hidden prompts are evaluated every n steps, under names that are explained."""
    rl = rl_config("grpo", steps=4, eval_every=2)
    system, stage = tiny_system(rl), tiny_stage(tmp_path)
    stage.view = quiet_view(4)
    steps = []

    def evaluate(system: object, step: int) -> dict[str, Measure]:
        steps.append(step)
        names = ("eval/reward", "eval/pass_rate", "eval/judge", "eval/hidden_reward/length")
        return {name: Measure(step / 10, 0.1, 4) for name in names}

    cadence = Cadence(rl=rl, stage=stage, seed=1, evaluate=evaluate)
    train_grpo(system, PromptStream(prompts(), seed=1), rl, stage, cadence)
    assert steps == [0, 2, 4]  # 0: the policy that training starts from
    events = [event.data["num_steps"] for event in read_events(tmp_path, "evaluation")]
    assert events == steps
    expected = {"eval/reward", "eval/pass_rate", "train/pass_rate", "eval/gap", "eval/judge"}
    expected |= {"eval/hidden_reward/length", "eval/quality_gap/length", "eval/quality_gap/judge"}
    assert names_of(tmp_path, "rl") >= expected
    table = metrics_table(tmp_path, "rl")
    assert table["eval/reward"] == [None, 0.2, None, 0.4]
    for trained, hidden, gap in zip(
        table["train/pass_rate"], table["eval/pass_rate"], table["eval/gap"], strict=True
    ):
        assert gap == (None if trained is None or hidden is None else trained - hidden)
    assert table["eval/gap"][1] is not None


def test_sft_and_reward_model(tmp_path: Path) -> None:
    """R17: the supervised stages emit known names too."""
    data = write_rows(tmp_path / "sft.jsonl", [{"prompt": "q", "completion": "a"}] * 4)
    learner = policy_learner(tiny_model(), WorkerSettings(learning_rate=1e-3, with_entropy=False))
    config = SFTConfig(data=data, batch_size=4, steps=2)
    train_sft(config, learner, tiny_tokenizer(), tiny_stage(tmp_path / "run", "sft"), seed=1)
    assert names_of(tmp_path / "run", "sft") >= {"loss/total", "sft/perplexity", "train/grad_norm"}
    pairs = write_rows(tmp_path / "pairs.jsonl", preferences(8))
    model = load_sequence_classifier(tiny_directory(tmp_path / "base"), pad_token_id=0, dtype="float32")
    stage = tiny_stage(tmp_path / "other", "reward_model")
    train_reward_model(
        RewardModelConfig(data=pairs, batch_size=4, steps=2), model, tiny_tokenizer(), stage, seed=1
    )
    assert names_of(tmp_path / "other", "reward_model") >= {"loss/total", "rm/accuracy", "rm/margin"}
