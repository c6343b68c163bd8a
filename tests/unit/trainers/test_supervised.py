"""SFT and the reward model: what is trained, what is left out, what is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.models.tiny import EOS, PAD, tiny_model, tiny_tokenizer
from tests.unit.trainers.systems import tiny_directory, tiny_stage

from trimtab.config import RewardModelConfig, SFTConfig
from trimtab.data import EncodedPair, Preference
from trimtab.distributed.worker import LocalLearner, WorkerSettings, policy_learner
from trimtab.errors import DataError
from trimtab.models.load import load_sequence_classifier
from trimtab.runs import metrics_table, read_events
from trimtab.trainers.reward_model import (
    encode_preference,
    score_rows,
    split_preferences,
    train_reward_model,
    validate_reward_model,
)
from trimtab.trainers.sft import encode_pairs, supervised_batch, train_sft


def write_rows(path: Path, rows: list[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def learner() -> LocalLearner:
    return policy_learner(tiny_model(), WorkerSettings(learning_rate=1e-3, with_entropy=False))


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    return write_rows(
        tmp_path / "sft.jsonl", [{"prompt": f"q{i}", "completion": "yes " * (1 + i % 3)} for i in range(8)]
    )


def test_sft_batch_trains_completions_and_their_end() -> None:
    """R1, trap 13: the prompt and padding are not trained; the end of the turn is."""
    batch = supervised_batch(
        [EncodedPair((5, 6, 7, EOS), (False, False, True, True)), EncodedPair((8, EOS), (False, True))], PAD
    )
    assert batch.token_ids.tolist() == [[5, 6, 7, EOS], [8, EOS, PAD, PAD]]
    assert batch.attention_mask.int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.completion_mask.int().tolist() == [[0, 0, 1, 1], [0, 1, 0, 0]]


def test_sft_learns(pairs: str, tmp_path: Path) -> None:
    """R1: the loss falls, and perplexity is its exponential."""
    config = SFTConfig(data=pairs, learning_rate=3e-3, batch_size=8, steps=12, warmup_steps=0)
    train_sft(config, learner(), tiny_tokenizer(), tiny_stage(tmp_path / "run", "sft"), seed=1)
    table = metrics_table(tmp_path / "run", "sft")
    losses = [value or 0.0 for value in table["loss/total"]]
    assert losses[-1] < 0.5 * losses[0]
    assert table["sft/perplexity"][-1] == pytest.approx(torch.tensor(losses[-1]).exp().item(), rel=1e-4)
    assert table["train/learning_rate"][0] == pytest.approx(3e-3)
    assert (table["train/learning_rate"][-1] or 1.0) < 1e-3  # cosine


def test_sft_loss_is_the_mean_over_completion_tokens(pairs: str, tmp_path: Path) -> None:
    """R1, trap 4: the first loss is that of transformers' own labels, at any micro-batch size."""
    tokenizer, model = tiny_tokenizer(), tiny_model()
    stage = tiny_stage(tmp_path / "encode", "sft")
    batch = supervised_batch(encode_pairs(SFTConfig(data=pairs), tokenizer, stage), PAD)
    labels = batch.token_ids.masked_fill(~batch.completion_mask, -100)
    with torch.no_grad():
        expected = model(batch.token_ids, attention_mask=batch.attention_mask.long(), labels=labels).loss
    for size in (1, 3, 8):
        settings = WorkerSettings(learning_rate=1e-3, with_entropy=False, microbatch_size=size)
        config = SFTConfig(data=pairs, batch_size=8, steps=1, microbatch_size=size)
        root = tmp_path / str(size)
        train_sft(config, policy_learner(tiny_model(), settings), tokenizer, tiny_stage(root, "sft"), seed=1)
        assert metrics_table(root, "sft")["loss/total"] == [pytest.approx(float(expected), rel=1e-5)]


def test_rows_that_are_too_long_are_left_out(pairs: str, tmp_path: Path) -> None:
    """Issue 2: rows over max_length are left out; when none fits, the error says what would."""
    stage = tiny_stage(tmp_path / "run", "sft")
    lengths = sorted({len(p) for p in encode_pairs(SFTConfig(data=pairs), tiny_tokenizer(), stage)})
    middle = SFTConfig(data=pairs, max_length=lengths[1])
    assert max(len(p) for p in encode_pairs(middle, tiny_tokenizer(), stage)) == lengths[1]
    with pytest.raises(DataError, match=f"raise it to at least {lengths[0]}"):
        encode_pairs(SFTConfig(data=pairs, max_length=8), tiny_tokenizer(), stage)


def preferences(count: int = 24) -> list[dict[str, str]]:
    """Chosen answers say `yes`, rejected ones `no`; rejected ones are longer half of the time."""
    return [
        {"prompt": f"q{i}", "chosen": "yes" * (1 + i % 2), "rejected": "no" * (2 - i % 2)}
        for i in range(count)
    ]


def classifier(tmp_path: Path) -> Any:
    return load_sequence_classifier(
        tiny_directory(tmp_path / "base"), pad_token_id=PAD, dtype="float32", seed=1
    )


def test_reward_model_learns_and_is_described(tmp_path: Path) -> None:
    """R4: held-out accuracy rises on a learnable preference; the card holds what RL needs."""
    data = write_rows(tmp_path / "pairs.jsonl", preferences())
    config = RewardModelConfig(
        data=data, learning_rate=3e-3, batch_size=8, steps=16, warmup_steps=0, held_out=0.25
    )
    model = classifier(tmp_path)
    card = train_reward_model(
        config, model, tiny_tokenizer(), tiny_stage(tmp_path / "run", "reward_model"), seed=1
    )
    assert card.accuracy == 1.0
    assert (card.num_train, card.num_held_out) == (18, 6)
    assert sum(card.margin_histogram["counts"]) == 6
    assert len(card.margin_histogram["edges"]) == 11
    assert 0 <= card.ece <= 1
    assert card.std > 0
    event = read_events(tmp_path / "run", "evaluation")[-1]
    assert event.data["rm/accuracy"] == 1.0


def test_reward_model_does_not_depend_on_micro_batches(tmp_path: Path) -> None:
    """Trap 4: the reward model's losses and norms are the same at micro-batches of 1, 3 and all."""
    data = write_rows(tmp_path / "pairs.jsonl", preferences(12))
    found = []
    for size in (1, 3, 9):
        config = RewardModelConfig(
            data=data, batch_size=9, steps=3, microbatch_size=size, warmup_steps=0, learning_rate=1e-3
        )
        root = tmp_path / str(size)
        model = classifier(tmp_path)
        train_reward_model(config, model, tiny_tokenizer(), tiny_stage(root, "reward_model"), seed=1)
        table = metrics_table(root, "reward_model")
        found.append([*table["loss/total"], *table["train/grad_norm"]])
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)


def test_card_figures_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: accuracy (ties count half), mean, std, length bias and correlation of known scores."""
    from trimtab.trainers import reward_model as trainer

    known = {"a": 2.0, "bbb": 1.0, "cc": 0.0, "dddd": 3.0, "e": 1.0, "ff": 1.0}
    rows = [
        Preference(({"role": "user", "content": "q"},), *sides)
        for sides in (("a", "bbb"), ("cc", "dddd"), ("e", "ff"))
    ]
    texts = iter(known)
    monkeypatch.setattr(
        trainer, "score_rows", lambda model, rows, pad: torch.tensor([known[next(texts)] for _ in rows])
    )
    card = validate_reward_model(torch.nn.Linear(1, 1), tiny_tokenizer(), rows, RewardModelConfig(data="x"))
    scores = torch.tensor(list(known.values()))
    assert card.accuracy == pytest.approx((1 + 0 + 0.5) / 3)
    assert (card.mean, card.std) == pytest.approx((float(scores.mean()), float(scores.std())))
    # Longer side scores higher: no (a > bbb), yes (dddd), tie.
    assert card.longer_chosen == pytest.approx(1 / 3)
    lengths = torch.tensor([float(len(text)) for text in known])
    expected = float(torch.corrcoef(torch.stack([scores, lengths]))[0, 1])
    assert card.length_correlation == pytest.approx(expected, abs=1e-5)


def test_pairs_of_one_prompt_stay_on_one_side() -> None:
    """R20: a prompt seen in training is not in the held-out pairs; equal sides are dropped."""
    user = [({"role": "user", "content": f"q{i // 3}"},) for i in range(30)]
    rows = [Preference(prompt, f"good {i}", f"bad {i}") for i, prompt in enumerate(user)]
    rows.append(Preference(user[0], "same", "same"))
    config = RewardModelConfig(data="x", held_out=0.2)
    train, held_out = split_preferences(rows, config, seed=1)
    assert (len(train), len(held_out)) == (24, 6)
    assert not {r.prompt[0]["content"] for r in train} & {r.prompt[0]["content"] for r in held_out}
    assert split_preferences(rows, config, seed=1) == (train, held_out)
    assert split_preferences(rows, config, seed=2) != (train, held_out)
    with pytest.raises(DataError, match="0 usable preference"):
        split_preferences(rows[-1:], config, seed=1)


def test_scores_do_not_depend_on_padding(tmp_path: Path) -> None:
    """R4, trap 4: a row scores the same alone and beside a longer one; the prompt's left is cut."""
    model, tokenizer = classifier(tmp_path), tiny_tokenizer()
    user = {"role": "user", "content": "long " * 30}
    row = Preference((user,), "short", "a longer answer")
    pair = encode_preference(tokenizer, row, 64)
    with torch.no_grad():
        both = score_rows(model, [pair.chosen[-20:], pair.rejected], PAD)
        alone = score_rows(model, [pair.chosen[-20:]], PAD)
    torch.testing.assert_close(both[:1], alone, rtol=1e-6, atol=1e-6)
    assert len(pair.chosen) == 64
    assert tokenizer.decode(pair.chosen, skip_special_tokens=True).rstrip().endswith("short")
