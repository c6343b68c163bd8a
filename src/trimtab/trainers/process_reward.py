"""The process reward model (R22): is each step right? Binary cross-entropy at the ends of steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.config import ProcessRewardConfig
from trimtab.data import PromptStream, Stepwise
from trimtab.errors import DataError
from trimtab.functional import expected_calibration_error, step_loss
from trimtab.models.forward import step_logits
from trimtab.models.optim import learning_rate_at
from trimtab.models.padded import padded
from trimtab.rewards.steps import EncodedSteps, encode_steps
from trimtab.runs.faults import reach
from trimtab.trainers.held_out import split_by_prompt
from trimtab.trainers.readable import most_tokens, readable
from trimtab.trainers.scorer import Scorer, in_microbatches, restore, room_of
from trimtab.trainers.seeds import derive_seed
from trimtab.trainers.stage import Phases, Stage, total_steps
from trimtab.trainers.update import StepSettings


@dataclass(frozen=True, slots=True)
class LabelledSteps:
    """A solution as token ids, with the label of every step."""

    encoded: EncodedSteps
    labels: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.encoded.token_ids)


@dataclass(frozen=True, slots=True)
class ProcessRewardCard:
    """What is stored with a process reward model as ``process_reward.json``; figures are held out."""

    num_train: int  # solutions
    num_held_out: int
    num_steps: int  # held-out steps
    accuracy: float  # share of steps whose probability is on the label's side of 0.5
    majority: float  # share of steps with the more frequent label: what a constant would reach
    ece: float  # expected calibration error of the probability that a step is right
    first_error_accuracy: float  # share of solutions whose first wrong step (or that there is none) is found
    first_error_chance: float  # the same for the best constant answer
    found_errors: float | None  # first-error accuracy on solutions with a wrong step; None when there is none
    kept_correct: float | None  # share of solutions without a wrong step in which none is seen
    separator: str  # between steps, or "numbered": what the reward splits at
    max_length: int


def train_process_reward(
    config: ProcessRewardConfig,
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[Stepwise],
    stage: Stage,
    seed: int,
) -> ProcessRewardCard:
    """Train ``model`` in place on labelled solutions and return its validation on those held out.

    Raises:
        DataError: fewer than two solutions.
        DivergedError: the guard stopped the run.
    """
    rows = readable(
        rows,
        model,
        lambda row: most_tokens(row.steps, config.max_length),
        lambda row: len(encode_solution(tokenizer, row, config)),
        stage,
    )
    train, held_out = split_solutions(rows, config, seed)
    encoded = [encode_solution(tokenizer, row, config) for row in train]
    stream = PromptStream(encoded, derive_seed(seed, "process_reward"))
    steps = total_steps(len(encoded), config.batch_size, config.epochs, config.steps)
    scorer = Scorer(model, config, stage.name)
    for step in range(restore(stage, stream, scorer), steps):
        reach("step_started")
        phases = Phases(stage.watchdog)
        batch = stream.next_batch(config.batch_size)
        reach("after_batch")
        rate = learning_rate_at(step, config.learning_rate, config.lr_schedule, config.warmup_steps, steps)
        with phases("update"):
            loss, logits, labels = _accumulate(scorer, batch, tokenizer.pad_token_id)
            norm = scorer.step(loss, stage, StepSettings(step, rate, config.max_grad_norm))
        stage.log(
            step,
            {
                "loss/total": loss,
                "prm/accuracy": float(((logits >= 0) == (labels >= 0.5)).float().mean()),
                "train/grad_norm": norm,
                "train/learning_rate": rate,
                "train/epoch": float(stream.epoch),
                **phases.metrics(),
            },
        )
        stage.checkpoint_if_due(step + 1, steps, {"stream": stream.state(), **scorer.state()})
    card = validate_process_reward(model, tokenizer, held_out, config, num_train=len(train))
    figures = {
        "prm/accuracy": card.accuracy,
        "prm/ece": card.ece,
        "prm/first_error_accuracy": card.first_error_accuracy,
    }
    stage.run.event(stage.name, "evaluation", steps, {**asdict(card), **figures})
    return card


def split_solutions(
    rows: Sequence[Stepwise], config: ProcessRewardConfig, seed: int
) -> tuple[list[Stepwise], list[Stepwise]]:
    """Shuffle and split into training and held-out solutions; those of one prompt stay on one side."""
    if len(rows) < 2:
        raise DataError(f"{config.data} has {len(rows)} labelled solution(s); give at least 2.")
    return split_by_prompt(rows, lambda row: row.prompt[-1]["content"], config.held_out, seed)


def encode_solution(tokenizer: Any, row: Stepwise, config: ProcessRewardConfig) -> LabelledSteps:
    """Prompt and steps through the chat template, cut from the left of the prompt."""
    encoded = encode_steps(tokenizer, row.prompt, row.steps, config.separator, config.max_length)
    return LabelledSteps(encoded, row.labels)


def score_steps(model: nn.Module, rows: Sequence[LabelledSteps], pad_id: int) -> tuple[Tensor, Tensor]:
    """Logits and labels ``[N]`` of all steps of ``rows``, row by row; on the model's device."""
    ids, mask = padded([row.encoded.token_ids for row in rows], pad_id)
    ends = torch.zeros_like(mask)
    for line, row in enumerate(rows):
        ends[line, list(row.encoded.ends)] = True
    device = next(model.parameters()).device
    logits = step_logits(model, ids.to(device), mask.to(device), ends.to(device))
    return logits, torch.tensor([label for row in rows for label in row.labels], device=device)


def _accumulate(scorer: Scorer, batch: Sequence[LabelledSteps], pad_id: int) -> tuple[float, Tensor, Tensor]:
    """Gradients of the mean loss over the steps of ``batch``; the loss, and logits and labels."""
    num_steps = sum(len(row.labels) for row in batch)

    def step(micro: Sequence[LabelledSteps]) -> tuple[float, Tensor, Tensor]:
        logits, labels = score_steps(scorer.model, micro, pad_id)
        loss = step_loss(logits, labels).sum() / num_steps
        loss.backward()
        return loss.item(), logits.detach().cpu(), labels.cpu()

    losses, logits, labels = zip(*scorer.backward(batch, len, step), strict=True)
    return sum(losses), torch.cat(logits), torch.cat(labels)


@torch.no_grad()
def validate_process_reward(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[Stepwise],
    config: ProcessRewardConfig,
    *,
    num_train: int = 0,
) -> ProcessRewardCard:
    """Score held-out solutions: accuracy and calibration of steps, and whether the first error is found."""
    encoded = [encode_solution(tokenizer, row, config) for row in rows]
    parts = in_microbatches(
        encoded,
        len,
        lambda rows: score_steps(model, rows, tokenizer.pad_token_id)[0],
        config.microbatch_size,
        room_of("process_reward"),
    )
    probabilities = torch.sigmoid(torch.cat(parts).float().cpu())
    labels = torch.tensor([label for row in rows for label in row.labels])
    is_right = labels >= 0.5
    said = [part.tolist() for part in probabilities.split([len(row.labels) for row in rows])]
    wanted = [row.first_error for row in rows]
    hits = [_first_below(values) == error for values, error in zip(said, wanted, strict=True)]
    return ProcessRewardCard(
        num_train=num_train,
        num_held_out=len(rows),
        num_steps=len(labels),
        accuracy=float(((probabilities >= 0.5) == is_right).float().mean()),
        majority=max(float(is_right.float().mean()), 1 - float(is_right.float().mean())),
        ece=expected_calibration_error(probabilities, labels),
        first_error_accuracy=sum(hits) / len(hits),
        first_error_chance=Counter(wanted).most_common(1)[0][1] / len(wanted),
        found_errors=_share([hit for hit, error in zip(hits, wanted, strict=True) if error is not None]),
        kept_correct=_share([hit for hit, error in zip(hits, wanted, strict=True) if error is None]),
        separator=config.separator,
        max_length=config.max_length,
    )


def _first_below(probabilities: Sequence[float]) -> int | None:
    return next((number for number, p in enumerate(probabilities) if p < 0.5), None)


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None
