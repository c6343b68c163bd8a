"""The process reward model: its loss, where it is read, what is stored with it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.models.tiny import PAD, tiny_tokenizer
from tests.unit.trainers.systems import tiny_directory, tiny_stage
from transformers import AutoModelForTokenClassification

from trimtab.config import ProcessRewardConfig
from trimtab.data import Stepwise
from trimtab.errors import DataError, DivergedError
from trimtab.functional import step_loss
from trimtab.models.forward import step_logits
from trimtab.models.load import load_token_classifier
from trimtab.models.optim import MasterAdamW
from trimtab.models.save import save_model
from trimtab.rewards.process_reward import CARD, ProcessReward
from trimtab.rewards.steps import EncodedSteps
from trimtab.runs import find_metric, metrics_table, read_events
from trimtab.trainers import process_reward as trainer
from trimtab.trainers.process_reward import (
    LabelledSteps,
    encode_solution,
    score_steps,
    split_solutions,
    train_process_reward,
    validate_process_reward,
)
from trimtab.types import Prompt, Sample


def solution(prompt: str, *steps: tuple[str, float]) -> Stepwise:
    user = ({"role": "user", "content": prompt},)
    return Stepwise(user, tuple(text for text, _ in steps), tuple(label for _, label in steps))


def solutions(count: int = 24) -> list[Stepwise]:
    """Steps that say `yes` are right, those that say `no` wrong."""
    return [
        solution(f"q{i}", *(("yes" * (1 + i % 2), 1.0) if (i >> n) % 2 else ("no", 0.0) for n in range(3)))
        for i in range(count)
    ]


def classifier(tmp_path: Path, labels: int = 1) -> Any:
    path = tiny_directory(tmp_path / "base")
    return load_token_classifier(path, num_labels=labels, pad_token_id=PAD, dtype="float32", seed=1)


def test_loss_by_hand() -> None:
    """R22: −y log σ(x) − (1 − y) log(1 − σ(x)); 0 costs log 2; a certain mistake costs its logit."""
    logits = torch.tensor([0.0, 2.0, 2.0, 1.0, 80.0, -80.0], requires_grad=True)
    labels = torch.tensor([1.0, 1.0, 0.0, 0.25, 0.0, 1.0])
    sigmoid = [1 / (1 + math.exp(-x)) for x in (2.0, 1.0)]
    expected = [
        math.log(2),
        -math.log(sigmoid[0]),
        -math.log(1 - sigmoid[0]),
        -0.25 * math.log(sigmoid[1]) - 0.75 * math.log(1 - sigmoid[1]),
        80.0,
        80.0,
    ]
    losses = step_loss(logits, labels)
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    losses.sum().backward()
    assert logits.grad is not None
    wanted = torch.sigmoid(logits.detach()) - labels  # the gradient of binary cross-entropy
    torch.testing.assert_close(logits.grad, wanted)


@pytest.mark.parametrize("labels", [1, 2])
def test_only_the_ends_of_steps_are_read(labels: int, tmp_path: Path) -> None:
    """R22: transformers' own logits at exactly those positions; no other position has a gradient."""
    model = classifier(tmp_path, labels)
    rows = [
        LabelledSteps(EncodedSteps((5, 6, 7, 8, 9), (2, 4)), (1.0, 0.0)),
        LabelledSteps(EncodedSteps((5, 9), (1,)), (1.0,)),
    ]
    logits, targets = score_steps(model, rows, PAD)
    assert targets.tolist() == [1, 0, 1]
    with torch.no_grad():
        whole = model(torch.tensor([[5, 6, 7, 8, 9]])).logits[0, [2, 4]]
        short = model(torch.tensor([[5, 9]])).logits[0, [1]]
    both = torch.cat([whole, short])
    wanted = both[:, 0] if labels == 1 else both[:, 1] - both[:, 0]
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
    # What comes after a step's end cannot reach it, what comes before can.
    embeddings: list[torch.Tensor] = []
    handle = model.get_input_embeddings().register_forward_hook(
        lambda _, __, output: embeddings.append(output.requires_grad_()) or embeddings[-1].retain_grad()
    )
    ends = torch.tensor([[False, False, True, False, False]])
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    step_logits(model, ids, torch.ones_like(ids), ends).sum().backward()
    handle.remove()
    reached = embeddings[0].grad[0].abs().sum(-1) > 0
    assert reached.tolist() == [True, True, True, False, False]


def test_loss_is_the_mean_over_steps_at_any_micro_batch(tmp_path: Path) -> None:
    """R22, trap 4: rows of 1 to 3 steps; losses and norms equal at micro-batches of 1, 2 and all."""
    rows = [solution(f"q{i}", *[("s" * (i + 1), float(i % 2))] * (1 + i % 3)) for i in range(7)]
    found = []
    for size in (1, 2, 6):
        config = ProcessRewardConfig(
            data="x", batch_size=6, steps=2, microbatch_size=size, warmup_steps=0, learning_rate=1e-3
        )
        root = tmp_path / str(size)
        stage = tiny_stage(root, "process_reward")
        model = classifier(tmp_path)
        if size == 1:
            train, _ = split_solutions(rows, config, 1)
            encoded = [encode_solution(tiny_tokenizer(), row, config) for row in train]
            with torch.no_grad():
                parts = [score_steps(model, [row], PAD) for row in encoded]
            losses = torch.cat([step_loss(*part) for part in parts])
        train_process_reward(config, model, tiny_tokenizer(), rows, stage, seed=1)
        table = metrics_table(root, "process_reward")
        found.append([*table["loss/total"], *table["train/grad_norm"]])
    assert found[0][0] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)


def test_it_learns_is_described_saved_and_used(tmp_path: Path) -> None:
    """R22: a learnable label is learnt; the directory loads in plain transformers and as a reward."""
    config = ProcessRewardConfig(
        data="x", learning_rate=3e-3, batch_size=8, steps=16, warmup_steps=0, held_out=0.25
    )
    model, tokenizer, stage = classifier(tmp_path), tiny_tokenizer(), tiny_stage(tmp_path / "run", "p")
    card = train_process_reward(config, model, tokenizer, solutions(), stage, seed=1)
    assert (card.num_train, card.num_held_out, card.num_steps) == (18, 6, 18)
    assert (card.accuracy, card.first_error_accuracy) == (1.0, 1.0)
    assert 0 <= card.ece < 0.5
    event = read_events(tmp_path / "run", "evaluation")[-1]
    assert event.data["prm/first_error_accuracy"] == 1.0
    names = {*metrics_table(tmp_path / "run", "p"), *(n for n in event.data if n.startswith("prm/"))}
    assert not [name for name in names - {"step"} if find_metric(name) is None]
    folder = save_model(model, tokenizer, tmp_path / "prm", {CARD: trainer.asdict(card)})
    assert AutoModelForTokenClassification.from_pretrained(folder).config.num_labels == 1
    assert json.loads((folder / CARD).read_text())["separator"] == "\n"
    reward = ProcessReward(folder)
    user = ({"role": "user", "content": "q99"},)
    right, wrong = reward.score([Sample(Prompt("0", user), t) for t in ("yes\nyesyes", "yes\nno\nyes")])
    assert right.value is not None and wrong.value is not None
    assert right.value > 0.5 > wrong.value


def test_a_broken_moment_never_reaches_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threats (runs): NaN in the optimizer's state stops the run, names the site, and no weight is NaN."""
    real, count = MasterAdamW.step, [0]

    def step(self: MasterAdamW, learning_rate: float | None = None) -> None:
        real(self, learning_rate)
        count[0] += 1
        if count[0] == 2:
            next(iter(self._moments.values()))[0].view(-1)[0] = math.nan

    monkeypatch.setattr(MasterAdamW, "step", step)
    config = ProcessRewardConfig(data="x", batch_size=8, steps=6, held_out=0.25)
    model, stage = classifier(tmp_path), tiny_stage(tmp_path / "run", "p")
    with pytest.raises(DivergedError, match="stopped at step 3: optimizer state"):
        train_process_reward(config, model, tiny_tokenizer(), solutions(), stage, seed=1)
    assert count == [2] and all(bool(p.isfinite().all()) for p in model.parameters())


def test_card_figures_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """R22: step accuracy, majority, ECE, first error and its best constant, of known logits."""
    rows = [
        solution("a", ("x", 1.0), ("y", 0.0), ("z", 0.0)),  # said: right, wrong, right: first error found
        solution("b", ("x", 1.0), ("y", 1.0)),  # said: right, wrong: an error where there is none
        solution("c", ("x", 0.0)),  # said: right: missed
        solution("d", ("x", 1.0)),  # said: right
    ]
    known = iter([2.0, -2.0, 2.0, 2.0, -2.0, 2.0, 2.0])
    monkeypatch.setattr(
        trainer,
        "score_steps",
        lambda model, rows, pad: (torch.tensor([next(known) for r in rows for _ in r.labels]), None),
    )
    config = ProcessRewardConfig(data="x", microbatch_size=3)
    card = validate_process_reward(torch.nn.Linear(1, 1), tiny_tokenizer(), rows, config)
    assert card.accuracy == pytest.approx(4 / 7)
    assert card.majority == pytest.approx(4 / 7)
    assert card.first_error_accuracy == pytest.approx(2 / 4)
    assert card.first_error_chance == pytest.approx(2 / 4)
    assert (card.found_errors, card.kept_correct) == (0.5, 0.5)
    p = 1 / (1 + math.exp(-2.0))  # five steps at p with three right, two at 1 − p with one right
    assert card.ece == pytest.approx((abs(3 - 5 * p) + abs(1 - 2 * (1 - p))) / 7, abs=1e-6)


def test_solutions_of_one_prompt_stay_on_one_side() -> None:
    """R20, R22: nothing of a held-out prompt is trained on; one solution is not enough."""
    rows = [solution(f"q{i // 3}", ("s", 1.0)) for i in range(30)]
    config = ProcessRewardConfig(data="some.jsonl", held_out=0.2)
    train, held_out = split_solutions(rows, config, seed=1)
    assert (len(train), len(held_out)) == (24, 6)
    assert not {row.prompt[0]["content"] for row in train} & {row.prompt[0]["content"] for row in held_out}
    with pytest.raises(DataError, match=r"some\.jsonl has 1 labelled solution"):
        split_solutions(rows[:1], config, seed=1)
    assert [len(part) for part in split_solutions(rows[:6], config, seed=1)] == [3, 3]
