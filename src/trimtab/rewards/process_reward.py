"""A trained process reward model as a reward: every step judged, the judgements joined (R22)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.errors import ModelError, RewardError, nearest
from trimtab.models.context import context_length
from trimtab.rewards.base import check_result
from trimtab.rewards.steps import EncodedSteps, encode_steps, split_steps
from trimtab.rewards.trained import load_scorer_tokenizer, load_trained, read_card
from trimtab.types import RewardResult, Sample

CARD = "process_reward.json"
AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "mean": lambda values: math.fsum(values) / len(values),
    "last": lambda values: values[-1],
    "product": math.prod,
}


class ProcessReward:
    """Scores a completion by the probabilities that its steps are right; ``value`` is in 0..1.

    The completion is split as the model's training data were. ``min`` says how sure the model is of the
    weakest step and cannot be raised by adding steps, ``product`` how sure it is of all of them, which falls
    with their number; ``mean`` can be diluted by steps that say nothing; ``last`` trusts the model to carry
    an error on. A completion without any step has nothing right in it: 0.

    Args:
        source: the directory of a process reward model, or a loaded one (then give ``tokenizer``).
        tokenizer: the model's own tokenizer, with a chat template.
        card: what ``process_reward.json`` holds; read from the directory when not given.
        aggregate: ``min``, ``mean``, ``last`` or ``product`` of the steps' probabilities.
        separator: between steps, or ``numbered``; that of the training when not given.
        batch_size: rows per forward pass; does not change the scores.
        max_length: longest input in tokens, cut from the left of the prompt; at most the model's context.
        device: where to load a directory's model: cpu, cuda, cuda:N; None takes a GPU where there is one.
        chat_template: a Jinja file for a directory whose tokenizer has no template of its own.

    Raises:
        ModelError: the directory holds no process reward model.
        RewardError: no tokenizer, or an unknown aggregate.

    Example:
        >>> reward = ProcessReward("output/prm", aggregate="min")
        >>> reward.score(samples)[0].parts   # {"steps": 3.0, "min": 0.08, "mean": 0.66}
    """

    def __init__(
        self,
        source: Any,
        tokenizer: Any = None,
        card: Mapping[str, Any] | None = None,
        *,
        aggregate: str = "min",
        separator: str | None = None,
        batch_size: int = 16,
        max_length: int = 1024,
        name: str = "process_reward",
        device: str | None = None,
        chat_template: str | None = None,
    ) -> None:
        self.path: str | None = None
        if isinstance(source, (str, Path)):
            self.path = str(source)
            tokenizer = tokenizer or load_scorer_tokenizer(self.path, chat_template)
            source = load_trained("process_reward", self.path, tokenizer, device)
            card = load_process_card(self.path) if card is None else card
        elif tokenizer is None:
            raise RewardError("ProcessReward was given a model without its tokenizer: pass tokenizer=….")
        self.model, self.tokenizer, self.card = source, tokenizer, dict(card or {})
        self.separator = str(separator or self.card.get("separator") or "\n")
        self.limit = context_length(source) or math.inf
        self.max_length = int(min(max_length, self.limit))
        self.aggregate, self.batch_size, self.name = aggregate, batch_size, name
        self.check_settings()

    def check_settings(self) -> None:
        """Refuse an aggregate that is not known, or an empty separator.

        Raises:
            RewardError: as said.
        """
        if self.aggregate not in AGGREGATES:
            hint = nearest(self.aggregate, AGGREGATES)
            raise RewardError(f"Reward process_reward: aggregate = {self.aggregate!r} is not known{hint}.")
        if not self.separator:
            raise RewardError("Reward process_reward: separator is empty; leave it out, or write 'numbered'.")

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample: the joined probability, with ``steps``, ``min`` and ``mean``."""
        steps = [split_steps(sample.completion, self.separator) for sample in samples]
        rows = [
            encode_steps(self.tokenizer, sample.prompt.messages, found, self.separator, self.max_length)
            for sample, found in zip(samples, steps, strict=True)
        ]
        results: list[RewardResult] = []
        readable = [row for row in rows if row.ends and len(row.token_ids) <= self.limit]
        probabilities = iter(self.step_probabilities(readable))
        for row in rows:
            if not row.ends:
                results.append(RewardResult(0.0, {"steps": 0.0}))
            elif len(row.token_ids) > self.limit:
                error = f"reward {self.name}: {len(row.token_ids)} tokens are more than it can read"
                results.append(RewardResult(None, error=error))
            else:
                results.append(self._result(next(probabilities)))
        return results

    def step_probabilities(self, rows: Sequence[EncodedSteps]) -> list[list[float]]:
        """Return for every row the probability of each of its steps to be right."""
        import torch

        from trimtab.models.forward import step_logits
        from trimtab.models.padded import longest_first

        pad = self.tokenizer.pad_token_id
        found: list[list[float]] = [[] for _ in rows]
        device = next(self.model.parameters()).device
        ids_of = [row.token_ids for row in rows]
        for batch, ids, mask in longest_first(ids_of, self.batch_size, 0 if pad is None else int(pad)):
            ends = torch.zeros_like(mask)
            for line, index in enumerate(batch):
                ends[line, list(rows[index].ends)] = True
            with torch.no_grad():
                logits = step_logits(self.model, ids.to(device), mask.to(device), ends.to(device))
            values = iter(torch.sigmoid(logits.float()).tolist())
            for index in batch:
                found[index] = [next(values) for _ in rows[index].ends]
        return found

    def _result(self, probabilities: Sequence[float]) -> RewardResult:
        # Every step is looked at: min() would pass over a NaN.
        for probability in probabilities:
            checked = check_result(probability, self.name, 0.0, 1.0)
            if checked.value is None:
                return checked
        mean = math.fsum(probabilities) / len(probabilities)
        parts = {"steps": float(len(probabilities)), "min": min(probabilities), "mean": mean}
        return RewardResult(AGGREGATES[self.aggregate](probabilities), parts)


def load_process_card(path: str | Path) -> dict[str, Any]:
    """Return what was stored with a process reward model; empty when there is nothing.

    Raises:
        ModelError: the file is there but is not a JSON object, or its separator is no text.
    """
    card = read_card(path, CARD)
    separator = card.get("separator", "\n")
    if not isinstance(separator, str) or not separator:
        raise ModelError(f"{Path(path) / CARD}: separator = {separator!r} is no text; train the model again.")
    return card
