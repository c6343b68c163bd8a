"""A trained reward model as a reward: batched, through the chat template, normalised (R4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.errors import ModelError, RewardError
from trimtab.models.context import context_length
from trimtab.rewards.base import check_result
from trimtab.rewards.conversation import encode_for_reward
from trimtab.rewards.trained import load_scorer_tokenizer, load_trained, read_card
from trimtab.types import RewardResult, Sample

CARD = "reward_model.json"


def load_card(path: str | Path) -> dict[str, Any]:
    """Return what was stored with a reward model (accuracy, mean, std, …); empty when there is nothing.

    Raises:
        ModelError: the file is there but is not a JSON object, or its scale is not usable.
    """
    file, card = Path(path) / CARD, read_card(path, CARD)
    mean, std = card.get("mean", 0.0), card.get("std", 1.0)
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in (mean, std)) or std < 0:
        raise ModelError(f"{file}: mean = {mean!r}, std = {std!r} is no scale; train the reward model again.")
    return card


class LearnedReward:
    """Scores (prompt, response) by a reward model; ``value`` is (score − mean) / std of the held-out scores.

    Args:
        source: the directory of a reward model, or a loaded model with one or two labels (then give
            ``tokenizer``); of two labels the score is the second's logit minus the first's.
        tokenizer: the reward model's own tokenizer, with a chat template.
        card: what ``reward_model.json`` holds; read from the directory when not given.
        batch_size: rows per forward pass; does not change the scores.
        max_length: longest input in tokens, cut from the left of the prompt; at most the model's context.
        squash: return the logistic function of the normalised score, in 0..1.
        device: where to load a directory's model: cpu, cuda, cuda:N; None takes a GPU where there is one.
        chat_template: a Jinja file for a directory whose tokenizer has no template of its own.

    Raises:
        ModelError: the directory holds no reward model, or its card has no usable scale.
        RewardError: a loaded model without its tokenizer.

    Example:
        >>> reward = LearnedReward("output/sales_rm")
        >>> reward.score(samples)[0].parts   # {"raw": 1.9, "normalised": 0.7}
    """

    def __init__(
        self,
        source: Any,
        tokenizer: Any = None,
        card: Mapping[str, Any] | None = None,
        *,
        batch_size: int = 16,
        max_length: int = 1024,
        squash: bool = False,
        name: str = "reward_model",
        device: str | None = None,
        chat_template: str | None = None,
    ) -> None:
        self.path: str | None = None
        if isinstance(source, (str, Path)):
            self.path = str(source)
            tokenizer = tokenizer or load_scorer_tokenizer(self.path, chat_template)
            source = load_trained("reward_model", self.path, tokenizer, device)
            card = load_card(self.path) if card is None else card
        elif tokenizer is None:
            raise RewardError("LearnedReward was given a model without its tokenizer: pass tokenizer=….")
        self.model, self.tokenizer, self.card = source, tokenizer, dict(card or {})
        self.mean = float(self.card.get("mean", 0.0))
        self.std = float(self.card.get("std", 1.0)) or 1.0
        self.limit = context_length(source) or math.inf
        self.max_length = int(min(max_length, self.limit))
        self.batch_size, self.squash, self.name = batch_size, squash, name

    def get_reward(self, text: str) -> float:
        """Return the model's own (raw) score of a whole text, prompt and response, as it is written (R4)."""
        return self.score_texts([text])[0]

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        """Return raw scores of whole texts, each tokenised as it is and cut from the left."""
        rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        return self._scores([[int(i) for i in row[-self.max_length :]] for row in rows])

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample: normalised (or squashed) value, with ``raw`` and ``normalised``."""
        rows = [
            encode_for_reward(self.tokenizer, sample.prompt.messages, sample.completion, self.max_length)
            for sample in samples
        ]
        fits = [index for index, row in enumerate(rows) if len(row) <= self.limit]
        results = [
            RewardResult(None, error=f"reward {self.name}: {len(row)} tokens are more than it can read")
            for row in rows
        ]
        for index, raw in zip(fits, self._scores([rows[index] for index in fits]), strict=True):
            results[index] = self._result(raw)
        return results

    def _result(self, raw: float) -> RewardResult:
        checked = check_result(raw, self.name)
        if checked.value is None:
            return checked
        normalised = (raw - self.mean) / self.std
        value = _sigmoid(normalised) if self.squash else normalised
        return RewardResult(value, {"raw": raw, "normalised": normalised})

    def _scores(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """Raw scores of token rows, the longest first so that little is padded; an empty row is one pad."""
        import torch

        from trimtab.models.forward import sequence_scores
        from trimtab.models.padded import longest_first

        pad = self.tokenizer.pad_token_id
        scores = [0.0] * len(rows)
        device = next(self.model.parameters()).device
        for batch, ids, mask in longest_first(rows, self.batch_size, 0 if pad is None else int(pad)):
            with torch.no_grad():
                values = sequence_scores(self.model, ids.to(device), mask.to(device))
            for index, value in zip(batch, values.float().tolist(), strict=True):
                scores[index] = value
        return scores


def _sigmoid(x: float) -> float:
    """The logistic function, without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
