from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab.config import RewardSpec
from trimtab.errors import ModelError, RewardError
from trimtab.rewards.process_reward import AGGREGATES, ProcessReward, load_process_card
from trimtab.rewards.registry import build_reward, uses_process_reward
from trimtab.rewards.steps import encode_steps

from .toy import sample, toy_process_model, toy_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A byte-level tokenizer with ChatML."""
    return toy_tokenizer()


@pytest.mark.parametrize("labels", [1, 2])
def test_probabilities_are_those_of_transformers_at_the_ends(labels: int, tokenizer: Any) -> None:
    """R22: the sigmoid (softmax of two labels) of the classifier's own logits at the end of each step."""
    model = toy_process_model(labels)
    row = sample("3+5=8\n8-2=6", "3+5-2=?")
    encoded = encode_steps(tokenizer, row.prompt.messages, ["3+5=8", "8-2=6"])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([encoded.token_ids])).logits[0, list(encoded.ends)]
    wanted = logits.sigmoid()[:, 0] if labels == 1 else logits.softmax(-1)[:, 1]
    found = ProcessReward(model, tokenizer).step_probabilities([encoded])[0]
    assert found == pytest.approx(wanted.tolist(), abs=1e-5)
    result = ProcessReward(model, tokenizer).score([row])[0]
    assert result.value == pytest.approx(float(wanted.min()), abs=1e-5)
    assert result.parts == pytest.approx(
        {"steps": 2.0, "min": float(wanted.min()), "mean": float(wanted.mean())}, abs=1e-5
    )


def test_aggregates_by_hand() -> None:
    """R22: min, mean, last and product of 0.9, 0.2, 0.5."""
    found = {name: join([0.9, 0.2, 0.5]) for name, join in AGGREGATES.items()}
    assert found == pytest.approx({"min": 0.2, "mean": 1.6 / 3, "last": 0.5, "product": 0.09})


def test_scores_do_not_depend_on_batch_or_padding(tokenizer: Any) -> None:
    """R22, trap 4: scored together is scored alone, in the order given."""
    model = toy_process_model()
    rows = [sample("a\n" * n + "b" * (5 * n), prompt="p" * (40 - 3 * n)) for n in (3, 9, 1, 5)]
    together = [r.value for r in ProcessReward(model, tokenizer, batch_size=3).score(rows)]
    alone = [ProcessReward(model, tokenizer, batch_size=1).score([row])[0].value for row in rows]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together)) == 4


def test_nothing_earns_nothing_and_what_cannot_be_read_abstains(tokenizer: Any) -> None:
    """R19, R22: no step is 0; a text beyond the model's positions, or a NaN, abstains with the reason."""
    reward = ProcessReward(toy_process_model(max_positions=64), tokenizer)
    empty, long, fine = reward.score([sample(" \n"), sample("a" * 70), sample("a")])
    assert (empty.value, empty.error) == (0.0, None)
    assert long.value is None and "more than it can read" in (long.error or "")
    assert fine.value is not None and 0 <= fine.value <= 1
    broken = toy_process_model()
    with torch.no_grad():
        broken.score.bias.fill_(math.nan)
    result = ProcessReward(broken, tokenizer).score([sample("a\nb")])[0]
    assert result.value is None and "not a finite number" in (result.error or "")


def save(path: Path, tokenizer: Any, card: Any) -> str:
    toy_process_model().save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "process_reward.json").write_text(json.dumps(card))
    return str(path)


def test_from_directory_with_the_separator_of_the_training(tmp_path: Path, tokenizer: Any) -> None:
    """R22: a directory with its card; steps are split as in training unless the option says otherwise."""
    path = save(tmp_path, tokenizer, {"separator": ";"})
    rows = [sample("a\nb; c")]
    assert ProcessReward(path).score(rows)[0].parts["steps"] == 2
    assert ProcessReward(path, separator="\n").score(rows)[0].parts["steps"] == 2
    assert ProcessReward(path, separator="b").score(rows)[0].parts["steps"] == 2
    assert ProcessReward(path, separator="numbered").score(rows)[0].parts["steps"] == 2
    assert ProcessReward(path, separator="?").score(rows)[0].parts["steps"] == 1


def test_as_a_component(tmp_path: Path, tokenizer: Any) -> None:
    """R22: by name, by the option path, two of them on one loaded model, each with its own options."""
    path = save(tmp_path, tokenizer, {"separator": "\n"})
    specs = [
        RewardSpec(name="process_reward", options={"aggregate": "min"}),
        RewardSpec(name="process_reward", options={"path": path, "aggregate": "mean"}),
    ]
    reward = build_reward(specs, process_reward=path)
    low, mean = (component for component, _ in reward.components)
    assert low.model is mean.model  # type: ignore[attr-defined]
    result = reward.score([sample("a\nbb\nccc")])[0]
    assert result.parts["process_reward"] == result.parts["process_reward/min"]
    assert result.parts["process_reward_2"] == result.parts["process_reward_2/mean"]
    assert result.value == pytest.approx(result.parts["process_reward"] + result.parts["process_reward_2"])
    assert uses_process_reward(specs) and not uses_process_reward(specs[1:])


def test_mistakes_are_one_sentence(tmp_path: Path, tokenizer: Any) -> None:
    """R22: no model, an unknown aggregate, a language model, a damaged card, no tokenizer."""
    with pytest.raises(RewardError, match="run the process_reward stage first"):
        build_reward([RewardSpec(name="process_reward")])
    path = save(tmp_path, tokenizer, {"separator": "\n"})
    with pytest.raises(RewardError, match=r"'minimum' is not known.*min"):
        build_reward(
            [RewardSpec(name="process_reward", options={"aggregate": "minimum"})], process_reward=path
        )
    with pytest.raises(ModelError, match="no process reward model"):
        ProcessReward("builtin:tiny-zh")
    with pytest.raises(RewardError, match="tokenizer"):
        ProcessReward(toy_process_model())
    for card in ("{", "[]", '{"separator": ""}', '{"separator": 3}'):
        (tmp_path / "process_reward.json").write_text(card)
        with pytest.raises(ModelError):
            load_process_card(tmp_path)
