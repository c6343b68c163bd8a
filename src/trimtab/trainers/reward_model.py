"""The reward model (R4): Bradley-Terry on preference pairs; what a user must know of it is stored with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.config import RewardModelConfig
from trimtab.data import Preference, PromptStream, load_preferences, reply_text
from trimtab.errors import DataError
from trimtab.functional import bradley_terry_loss, expected_calibration_error
from trimtab.models.forward import sequence_scores
from trimtab.models.optim import learning_rate_at
from trimtab.models.padded import padded
from trimtab.rewards.conversation import encode_for_reward
from trimtab.runs.faults import reach
from trimtab.trainers.held_out import split_by_prompt
from trimtab.trainers.readable import most_tokens, readable
from trimtab.trainers.scorer import Scorer, in_microbatches, restore, room_of
from trimtab.trainers.seeds import derive_seed
from trimtab.trainers.stage import Phases, Stage, total_steps
from trimtab.trainers.update import StepSettings


@dataclass(frozen=True, slots=True)
class EncodedPreference:
    """A pair of conversations as token ids."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of both sides, padded to the longer one."""
        return 2 * max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True, slots=True)
class RewardModelCard:
    """What is stored with a reward model as ``reward_model.json``."""

    num_train: int
    num_held_out: int
    accuracy: float  # share of held-out pairs ordered as the preference says; ties count half
    ece: float  # expected calibration error of sigmoid(margin)
    length_correlation: float  # Pearson, score against tokens, held-out
    longer_chosen: float  # share of held-out pairs whose longer side scores higher
    mean: float  # of held-out scores: subtracted at RL time
    std: float  # of held-out scores: divided by at RL time
    margin_histogram: dict[str, list[float]]
    max_length: int


def train_reward_model(
    config: RewardModelConfig, model: nn.Module, tokenizer: Any, stage: Stage, seed: int
) -> RewardModelCard:
    """Train ``model`` in place on ``config.data`` and return its validation on held-out pairs.

    Raises:
        DataError: fewer than two pairs, or only identical sides.
        DivergedError: the guard stopped the run.
    """
    rows = load_preferences(config.data, columns=config.columns)
    rows = readable_pairs(rows, config, model, tokenizer, stage)
    train, held_out = split_preferences(rows, config, seed)
    encoded = [encode_preference(tokenizer, row, config.max_length) for row in train]
    stream = PromptStream(encoded, derive_seed(seed, "reward_model"))
    steps = total_steps(len(encoded), config.batch_size, config.epochs, config.steps)
    scorer = Scorer(model, config, stage.name)
    for step in range(restore(stage, stream, scorer), steps):
        reach("step_started")
        phases = Phases(stage.watchdog)
        pairs = stream.next_batch(config.batch_size)
        reach("after_batch")
        rate = learning_rate_at(step, config.learning_rate, config.lr_schedule, config.warmup_steps, steps)
        with phases("update"):
            loss, margins = _accumulate(scorer, pairs, tokenizer.pad_token_id, config.centre_coef)
            norm = scorer.step(loss, stage, StepSettings(step, rate, config.max_grad_norm))
        stage.log(
            step,
            {
                "loss/total": loss,
                "rm/accuracy": float((margins > 0).float().mean()),
                "rm/margin": float(margins.mean()),
                "train/grad_norm": norm,
                "train/learning_rate": rate,
                "train/epoch": float(stream.epoch),
                **phases.metrics(),
            },
        )
        stage.checkpoint_if_due(step + 1, steps, {"stream": stream.state(), **scorer.state()})
    card = validate_reward_model(model, tokenizer, held_out, config, num_train=len(train))
    figures = {"rm/accuracy": card.accuracy, "rm/ece": card.ece}
    stage.run.event(stage.name, "evaluation", steps, {**asdict(card), **figures})
    return card


def split_preferences(
    rows: Sequence[Preference], config: RewardModelConfig, seed: int
) -> tuple[list[Preference], list[Preference]]:
    """Shuffle and split into training and held-out pairs; pairs of one prompt stay on one side."""
    rows = [row for row in rows if row.chosen != row.rejected]
    if len(rows) < 2:
        raise DataError(
            f"{config.data} has {len(rows)} usable preference pair(s); give at least 2 whose sides differ."
        )
    return split_by_prompt(rows, lambda row: row.prompt[-1]["content"], config.held_out, seed)


def readable_pairs(
    rows: Sequence[Preference], config: RewardModelConfig, model: nn.Module, tokenizer: Any, stage: Stage
) -> list[Preference]:
    """The pairs of which the model can read both sides; the others are left out and said."""

    def length(row: Preference) -> int:
        return encode_preference(tokenizer, row, config.max_length).num_tokens // 2

    def bound(row: Preference) -> int:
        return max(most_tokens([str(side)], config.max_length) for side in (row.chosen, row.rejected))

    return readable(rows, model, bound, length, stage)


def encode_preference(tokenizer: Any, row: Preference, max_length: int) -> EncodedPreference:
    """Both sides through the chat template, cut from the left of the prompt."""
    return EncodedPreference(
        *(
            tuple(
                encode_for_reward(tokenizer, row.prompt, reply_text(tokenizer, row.prompt, side), max_length)
            )
            for side in (row.chosen, row.rejected)
        )
    )


def score_rows(model: nn.Module, rows: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    """Scores ``[len(rows)]`` of token rows, right-padded; on the model's device."""
    ids, mask = padded(rows, pad_id)
    device = next(model.parameters()).device
    return sequence_scores(model, ids.to(device), mask.to(device))


def _accumulate(
    scorer: Scorer, pairs: Sequence[EncodedPreference], pad_id: int, centre_coef: float
) -> tuple[float, Tensor]:
    """Gradients of the mean loss over ``pairs``, micro-batch by micro-batch; the loss, and the margins."""

    def step(micro: Sequence[EncodedPreference]) -> tuple[float, Tensor]:
        rows = [*(pair.chosen for pair in micro), *(pair.rejected for pair in micro)]
        chosen, rejected = score_rows(scorer.model, rows, pad_id).split(len(micro))
        losses = bradley_terry_loss(chosen, rejected, centre_coef=centre_coef)
        loss = losses.sum() / len(pairs)
        loss.backward()
        return loss.item(), (chosen - rejected).detach().cpu()

    found = scorer.backward(pairs, lambda pair: pair.num_tokens, step)
    return sum(loss for loss, _ in found), torch.cat([margins for _, margins in found])


@torch.no_grad()
def validate_reward_model(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[Preference],
    config: RewardModelConfig,
    *,
    num_train: int = 0,
) -> RewardModelCard:
    """Score held-out pairs: accuracy, calibration, length bias, margins, and the scale of the scores."""
    encoded = [encode_preference(tokenizer, row, config.max_length) for row in rows]
    both = [side for pair in encoded for side in (pair.chosen, pair.rejected)]
    parts = in_microbatches(
        both,
        len,
        lambda sides: score_rows(model, sides, tokenizer.pad_token_id),
        config.microbatch_size,
        room_of("reward_model"),
    )
    scores = torch.cat(parts).float().cpu()
    margins = scores[0::2] - scores[1::2]
    lengths = torch.tensor([float(len(side)) for side in both])
    right = (margins > 0).float() + 0.5 * (margins == 0).float()
    longer = torch.sign(lengths[0::2] - lengths[1::2])
    decided = longer != 0
    agrees = (torch.sign(margins) == longer)[decided].float()
    counts, edges = torch.histogram(margins.double(), bins=10)
    # Probability that the first side wins, over both orders, so that labels are not all ones.
    probabilities = torch.sigmoid(torch.cat([margins, -margins]))
    labels = torch.cat([torch.ones_like(margins), torch.zeros_like(margins)])
    return RewardModelCard(
        num_train=num_train,
        num_held_out=len(rows),
        accuracy=float(right.mean()),
        ece=expected_calibration_error(probabilities, labels),
        length_correlation=_correlation(scores, lengths),
        longer_chosen=float(agrees.mean()) if len(agrees) else 0.5,
        mean=float(scores.mean()),
        std=float(scores.std()) if len(scores) > 1 else 1.0,
        margin_histogram={"counts": counts.tolist(), "edges": edges.tolist()},
        max_length=config.max_length,
    )


def _correlation(a: Tensor, b: Tensor) -> float:
    if len(a) < 2 or float(a.std()) == 0 or float(b.std()) == 0:
        return 0.0
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])
