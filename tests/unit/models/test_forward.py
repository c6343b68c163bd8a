"""Token scores and sequence scores: right values, right places, no trace of padding."""

from __future__ import annotations

import pytest
import torch
from tests.unit.models.tiny import ARCHITECTURES, PAD, random_prompts, tiny_model
from torch import Tensor
from transformers import GPT2ForSequenceClassification, LlamaForSequenceClassification

from trimtab.functional import full_kl
from trimtab.models.forward import sequence_scores, token_scores
from trimtab.models.load import disable_dropout


def padded(rows: list[list[int]], width: int, side: str = "right") -> tuple[Tensor, Tensor]:
    ids = torch.full((len(rows), width), PAD)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, place], mask[i, place] = torch.tensor(row), True
    return ids, mask


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_equal_the_plain_forward(architecture: str) -> None:
    """R12, trap 18: each completion token's value is log_softmax of transformers' own eager logits."""
    ids, mask = padded(random_prompts(12), 12)
    completion = mask.clone()
    completion[:, :5] = False
    scores = token_scores(
        tiny_model(architecture), ids, mask, completion, temperature=0.7, with_entropy=True, with_logits=True
    )
    with torch.no_grad():
        logits = tiny_model(architecture, attention="eager")(ids).logits.double()
    expected = torch.log_softmax(logits / 0.7, -1)
    chosen = expected[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)[:, 4:]
    assert torch.allclose(scores.logprobs[:, 5:].double(), chosen, atol=1e-5)
    entropy = -(expected.exp() * expected).sum(-1)[:, 4:-1]
    assert scores.entropy is not None and scores.logits is not None
    assert torch.allclose(scores.entropy[:, 5:].double(), entropy, atol=1e-5)
    assert torch.allclose(scores.logits.double(), logits[0, 4:-1], atol=1e-4)


@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Gemma2", "GPT2"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing(architecture: str, side: str) -> None:
    """R12, trap 4: log-probabilities and gradients are those of rows without padding, on either side."""
    model, rows = tiny_model(architecture), random_prompts(10, 6, 13)
    found, grads = [], []
    for width in (13, 20):
        ids, mask = padded(rows, width, side)
        completion = mask & (mask.long().cumsum(1) > 3)
        model.zero_grad()
        scores = token_scores(model, ids, mask, completion)
        scores.logprobs.sum().backward()
        found.append(scores.logprobs[completion].detach())
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    alone = []
    for row in rows:
        ids, mask = padded([row], len(row))
        completion = mask & (mask.long().cumsum(1) > 3)
        alone.append(token_scores(model, ids, mask, completion).logprobs[completion].detach())
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert torch.allclose(found[0], torch.cat(alone), atol=1e-5)
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3)


def test_masked_positions_are_zero_and_without_gradient() -> None:
    """Trap 7: outside the completion everything is exactly 0, and what stands there cannot be felt."""
    model = tiny_model()
    ids, mask = padded(random_prompts(9, 7), 9)
    completion = mask.clone()
    completion[:, :4] = False
    completion[1, 6:] = False
    scores = token_scores(model, ids, mask, completion, with_entropy=True)
    assert scores.entropy is not None
    assert not scores.logprobs[~completion].any() and not scores.entropy[~completion].any()
    assert (scores.logprobs[completion] < 0).all()
    (scores.logprobs * ~completion).sum().backward()
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)
    everything = token_scores(model, ids, mask, torch.ones_like(completion)).logprobs
    assert not everything[:, 0].any()


def test_flat_logits_go_back_to_their_places() -> None:
    """R6 (`full` KL): logits are those of the completion tokens in row order, not divided by temperature."""
    ids, mask = padded(random_prompts(9, 7), 9)
    completion = mask.clone()
    completion[:, :4] = False
    inputs = (ids, mask, completion)
    one, other = (token_scores(tiny_model(seed=s), *inputs, with_logits=True) for s in (0, 1))
    assert one.logits is not None and other.logits is not None
    kl = torch.zeros(ids.shape).masked_scatter(completion, full_kl(one.logits, other.logits))
    assert (kl[completion] > 0).all() and not kl[~completion].any()
    again = torch.log_softmax(one.logits, -1).gather(1, ids[completion][:, None]).squeeze(1)
    assert torch.allclose(again, one.logprobs[completion], atol=1e-5)


@pytest.mark.parametrize("kind", [LlamaForSequenceClassification, GPT2ForSequenceClassification])
@pytest.mark.parametrize("side", ["right", "left"])
def test_sequence_scores(kind: type, side: str) -> None:
    """R4: a classifier is read at the last real token of each row; padding changes nothing."""
    config = tiny_model("GPT2" if kind is GPT2ForSequenceClassification else "Llama").config
    config.num_labels = 1
    torch.manual_seed(0)
    model = kind(config).eval()
    disable_dropout(model)
    rows = random_prompts(8, 5, 11)
    scores = sequence_scores(model, *padded(rows, 15, side))
    assert scores.shape == (3,) and scores.dtype == torch.float32
    for row, score in zip(rows, scores, strict=True):
        plain = model(torch.tensor([row])).logits[0, 0]
        assert torch.allclose(score, plain, atol=1e-5)
    scores.sum().backward()
    assert model.score.weight.grad is not None
