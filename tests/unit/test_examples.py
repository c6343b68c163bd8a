"""The examples run as they are, on the built-in model with tiny settings."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = ["--steps", "1", "--num-prompts", "2", "--num-generations", "4", "--max-new-tokens", "3"]


@pytest.fixture
def single_file(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`grpo_single_file`, imported as a script beside the other examples."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    torch.set_num_threads(1)
    return import_module("grpo_single_file")


@pytest.fixture
def custom_loss(single_file: ModuleType) -> ModuleType:
    """`custom_loss`, which builds on the single file."""
    return import_module("custom_loss")


def test_the_single_file_is_small_and_needs_little() -> None:
    """Design (examples): at most 300 lines; of trimtab only `functional`, beside torch and transformers."""
    text = (EXAMPLES / "grpo_single_file.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    modules = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    others = {name for name in modules if name and name.split(".")[0] not in sys.stdlib_module_names}
    assert others == {"torch", "transformers", "trimtab.functional"}


def test_the_single_file_runs(single_file: ModuleType) -> None:
    """Issue 2: one step of the example, through its own command line."""
    (figures,) = single_file.train(single_file.parse_settings(TINY))
    assert set(figures) == {"reward", "right", "kl", "approx_kl"}
    assert figures["kl"] == pytest.approx(0.0, abs=1e-9)  # the policy starts as the reference
    assert figures["approx_kl"] == pytest.approx(0.0, abs=1e-9)  # measured before the first update


def test_its_update_does_not_depend_on_the_micro_batches(single_file: ModuleType) -> None:
    """Trap 4: other micro-batches, the same figures after the next step."""
    runs = [
        single_file.train(
            single_file.parse_settings([*TINY[2:], "--steps", "2", "--microbatch-size", str(size)])
        )
        for size in (8, 3)
    ]
    assert runs[0][1]["kl"] > 0
    assert runs[0][1]["kl"] == pytest.approx(runs[1][1]["kl"], rel=1e-3)


def test_its_reward(single_file: ModuleType) -> None:
    """Issue 2: hand-computed values of the example's reward."""
    assert single_file.reward(" 12", 12) == 1.0
    assert single_file.reward("10", 12) == pytest.approx(0.4)
    assert single_file.reward("99", 12) == 0.0
    assert single_file.reward("12 or 13", 12) == 0.0


def test_masks_hold_the_end_and_nothing_after(single_file: ModuleType) -> None:
    """Trap 13: the end token is trained, padding is not, prompts are not."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = single_file.parse_settings([*TINY, "--max-new-tokens", "8"])
    tokenizer = AutoTokenizer.from_pretrained(settings.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32)
    torch.manual_seed(0)
    ids, attention, mask = single_file.sample(model, tokenizer, ["计算：1+1=？", "你好"], settings)
    assert ids.shape == attention.shape == mask.shape
    assert bool((attention | ~mask).all())  # what is trained is attended to
    for row, trained in zip(ids, mask, strict=True):
        ends = (row[trained] == tokenizer.eos_token_id).nonzero().flatten().tolist()
        assert ends in ([], [int(trained.sum()) - 1])


def test_the_custom_loss_passes_its_checks(custom_loss: ModuleType) -> None:
    """R9: the example's own checks hold for its loss, and find a wrong sign and a forgotten mask."""
    custom_loss.check_loss(custom_loss.penalty_loss)

    def wrong_sign(*arguments: torch.Tensor) -> torch.Tensor:
        return -custom_loss.penalty_loss(*arguments)

    with pytest.raises(AssertionError, match="REINFORCE"):
        custom_loss.check_loss(wrong_sign)


def test_the_penalty_is_lowest_where_the_clip_begins(custom_loss: ModuleType) -> None:
    """R9: as its text says, the loss is lowest at ρ = 1 + ε for A > 0 and at ρ = 1 − ε for A < 0."""
    ratios = torch.linspace(0.5, 1.5, 101, dtype=torch.float64)
    for advantage, best in ((1.0, 1.2), (-2.0, 0.8)):
        zeros = torch.zeros(len(ratios), 1, dtype=torch.float64)
        loss = custom_loss.penalty_loss(
            ratios.log().unsqueeze(1), zeros, torch.full_like(ratios, advantage), zeros == 0
        )
        assert float(ratios[loss.argmin()]) == pytest.approx(best)


def test_the_custom_loss_runs(custom_loss: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 2: the example trains for a step with its loss."""
    (figures,) = custom_loss.main(TINY)
    assert figures["approx_kl"] > 0  # the second update sees a ratio that is not 1
    assert "the loss holds" in capsys.readouterr().out


@pytest.mark.slow
def test_the_single_file_learns(single_file: ModuleType) -> None:
    """R12: in 30 steps the mean reward of the example rises."""
    history = single_file.train(single_file.parse_settings(["--steps", "30", "--learning-rate", "1e-4"]))
    first, last = (sum(row["reward"] for row in rows) / 5 for rows in (history[:5], history[-5:]))
    assert last > first + 0.03
