"""Supervised fine-tuning on instruction → response pairs: completion tokens only (R1).

Left out on purpose: loss on the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from trimtab.config import SFTConfig
from trimtab.data import EncodedPair, PromptStream, encode_row, load_pairs
from trimtab.distributed.worker import LocalLearner
from trimtab.errors import DataError
from trimtab.models.optim import learning_rate_at
from trimtab.runs.faults import reach
from trimtab.trainers.batching import pad_rows
from trimtab.trainers.objectives import Supervised
from trimtab.trainers.seeds import derive_seed
from trimtab.trainers.stage import Phases, Stage, total_steps
from trimtab.trainers.update import StepSettings, guarded_update
from trimtab.types import TrainBatch


def train_sft(config: SFTConfig, learner: LocalLearner, tokenizer: Any, stage: Stage, seed: int) -> None:
    """Train ``learner`` on the pairs of ``config.data``; every step is recorded in ``stage``.

    Raises:
        DataError: no row fits into ``config.max_length``.
        DivergedError: the guard stopped the run.
    """
    pairs = encode_pairs(config, tokenizer, stage)
    stream = PromptStream(pairs, derive_seed(seed, "sft"))
    steps = total_steps(len(pairs), config.batch_size, config.epochs, config.steps)
    start = 0
    if (state := stage.restore()) is not None:
        start = state["step"]
        stream.load_state(state["stream"])
        learner.load_state(state["learner"])
    for step in range(start, steps):
        reach("step_started")
        phases = Phases(stage.watchdog)
        batch = supervised_batch(stream.next_batch(config.batch_size), tokenizer.pad_token_id)
        reach("after_batch")
        num_tokens = float(batch.completion_mask.sum())
        rate = learning_rate_at(step, config.learning_rate, config.lr_schedule, config.warmup_steps, steps)
        with phases("update"):
            update = guarded_update(
                learner,
                batch,
                Supervised(num_tokens),
                stage,
                StepSettings(step, rate, config.max_grad_norm),
            )
        times = phases.metrics()
        stage.log(
            step,
            {
                "loss/total": update.loss,
                "sft/perplexity": math.exp(min(update.loss, 50.0)),
                "train/grad_norm": update.grad_norm,
                "train/learning_rate": rate,
                "train/tokens": num_tokens,
                "train/epoch": float(stream.epoch),
                "speed/tokens_per_s": float(batch.attention_mask.sum()) / times["time/step"],
                **times,
            },
        )
        stage.checkpoint_if_due(step + 1, steps, {"stream": stream.state(), "learner": learner.state()})


def encode_pairs(config: SFTConfig, tokenizer: Any, stage: Stage) -> list[EncodedPair]:
    """Encode the rows of ``config.data``; rows over ``config.max_length`` are left out and said."""
    rows = load_pairs(config.data, columns=config.columns)
    encoded = [
        pair
        for number, row in enumerate(rows)
        for pair in encode_row(tokenizer, row.prompt, row.completion, where=f"{config.data}, row {number}")
    ]
    if len(encoded) > len(rows):
        stage.view.note(
            f"{len(rows)} rows are {len(encoded)} sequences: the chat template rewrites earlier turns, so "
            "each assistant turn is trained after what a model would see before it"
        )
    kept = [pair for pair in encoded if len(pair) <= config.max_length]
    if not kept:
        shortest = min(len(pair) for pair in encoded)
        raise DataError(
            f"{config.data}: every row is longer than sft.max_length = {config.max_length} tokens; "
            f"raise it to at least {shortest}."
        )
    if len(kept) < len(encoded):
        stage.view.note(
            f"{len(encoded) - len(kept)} of {len(encoded)} rows are over sft.max_length: left out"
        )
    return kept


def supervised_batch(pairs: Sequence[EncodedPair], pad_id: int) -> TrainBatch:
    """Right-pad encoded pairs into a batch without advantages."""
    width = max(len(pair) for pair in pairs)
    mask = pad_rows([pair.completion_mask for pair in pairs], width, torch.bool)
    lengths = torch.tensor([len(pair) for pair in pairs])
    return TrainBatch(
        token_ids=pad_rows([pair.token_ids for pair in pairs], width, torch.int64, pad_id),
        attention_mask=torch.arange(width).unsqueeze(0) < lengths.unsqueeze(1),
        completion_mask=mask,
        advantages=torch.zeros(len(pairs), width),
    )
