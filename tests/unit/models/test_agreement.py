"""The model agreement check: what fails, what warns, and that what agrees passes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tests.unit.models.automaton import automaton, byte_tokenizer
from tests.unit.models.test_turn_ends import CHATML, NOTHING, SPELLED
from transformers import GenerationConfig, LlamaConfig

from trimtab.errors import ModelError
from trimtab.models.agreement import Subject, can_be_saved, compare, refuse, subject_at, subject_of
from trimtab.models.context import context_length
from trimtab.models.load import load_causal_lm
from trimtab.models.save import save_model

SPECIALS = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<eos>", "<s>")
ROWS = len(SPECIALS) + 256


def tokenizer_of(template: str = CHATML, **settings: Any) -> Any:
    return byte_tokenizer(template, SPECIALS, **{"eos_token": "<eos>", "pad_token": "<|pad|>", **settings})


def subject(rows: int = ROWS, eos: Any = 3, generation: Any = None, **config: Any) -> Subject:
    settings = LlamaConfig(vocab_size=rows, **{"eos_token_id": eos, "bos_token_id": None, **config})
    return Subject("policy", settings, rows, generation or GenerationConfig(eos_token_id=eos))


def found(subject: Subject, tokenizer: Any) -> dict[str, tuple[str, str]]:
    return {f.what: (f.status, f.text) for f in compare(subject, tokenizer) if f.status != "pass"}


def test_what_agrees_passes() -> None:
    """R37: embedding, padding and ends of a model with its own tokenizer."""
    findings = list(compare(subject(), tokenizer_of()))
    assert [(f.what, f.status) for f in findings] == [
        *(("embedding", "pass"), ("padding", "pass"), ("EOS", "pass"))
    ]
    assert findings[2].text == "a turn ends with '<|im_end|>'; sampling also stops at '<eos>'"


def test_tokens_without_a_row() -> None:
    """R37: an ordinary token or one of the template's without a row fails; an added one warns."""
    status, text = found(subject(rows=ROWS - 1), tokenizer_of())["embedding"]
    assert (
        status == "fail" and f"it has {ROWS - 1} rows" in text and f"resize its embeddings to {ROWS}" in text
    )
    tokenizer = tokenizer_of()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    status, text = found(subject(), tokenizer)["embedding"]
    assert status == "warn" and f"'<image>' is number {ROWS}" in text
    tokenizer.chat_template = CHATML.replace("<|im_start|>", "<image>")
    assert found(subject(), tokenizer)["embedding"][0] == "fail"
    assert found(subject(rows=4 * ROWS + 1000), tokenizer_of())["embedding"][0] == "warn"
    assert not found(subject(rows=ROWS + 300), tokenizer_of())  # padded tables are usual


def test_the_head_may_have_fewer_rows_than_the_embedding() -> None:
    """R37: a token that can be read but not written is as bad; a loaded model is measured by its tables."""
    model = automaton({}, ROWS)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight[:-2])
    assert subject_of(model, "policy").rows == ROWS - 2


def test_padding() -> None:
    """Trap 13: none, or the end of a turn, fails; for a model that only scores the latter warns."""
    tokenizer = tokenizer_of()
    tokenizer.pad_token = "<|im_end|>"
    assert found(subject(), tokenizer)["padding"][0] == "fail"
    scorer = Subject("reward model", subject().config, ROWS)
    assert found(scorer, tokenizer)["padding"][0] == "warn"
    tokenizer.pad_token = None
    assert "no padding token" in found(subject(), tokenizer)["padding"][1]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (SPELLED, "closes a turn with the text '</s>', which is no token"),
        (NOTHING, "writes no end of a turn"),
    ],
)
def test_a_template_without_an_end_token_is_said(template: str, words: str) -> None:
    """R37: what is trained in its place is named."""
    status, text = found(subject(), tokenizer_of(template))["EOS"]
    assert status == "warn" and words in text and "'<eos>' is trained" in text


def test_end_tokens_of_the_configs() -> None:
    """R37: an ordinary token as EOS cuts answers; one beyond the rows is no token; text_config counts."""
    tokenizer = tokenizer_of()
    letter = tokenizer.get_vocab()["a"]
    status, text = found(subject(eos=letter), tokenizer)["EOS"]
    assert status == "warn" and "says that 'a' ends a text" in text
    status, text = found(subject(eos=[3, 9999]), tokenizer)["EOS"]
    assert status == "warn" and "end token 9999" in text
    inner = LlamaConfig(vocab_size=ROWS, eos_token_id=letter)
    outer = SimpleNamespace(eos_token_id=None, get_text_config=lambda: inner)
    nested = Subject("policy", outer, ROWS, GenerationConfig())
    assert "'a' ends a text" in found(nested, tokenizer)["EOS"][1]


def test_the_beginning_of_a_text() -> None:
    """R37: BOS twice fails; none, where the tokenizer begins every text with it, warns."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_of("{{ bos_token }}" + CHATML, bos_token="<s>")
    assert not found(subject(), tokenizer)
    tokenizer.chat_template = "<s>{{ bos_token }}" + CHATML
    assert found(subject(), tokenizer)["BOS"] == (
        *("fail", "a conversation begins with '<s>' twice; write it once in the template"),
    )
    tokenizer.chat_template = CHATML
    assert not found(subject(), tokenizer)
    tokenizer._tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 4)])
    assert found(subject(), tokenizer)["BOS"][0] == "warn"


def test_a_generation_config_that_cannot_be_saved(tmp_path: Path) -> None:
    """R37: transformers refuses it at the end of a run; it is found before, mended at load, and said."""
    model, tokenizer = automaton({}, ROWS, eos_token_id=3), tokenizer_of()
    for settings, kept in (
        ({"temperature": 0.6, "top_p": 0.9}, {"do_sample": True, "temperature": 0.6, "top_p": 0.9}),
        ({"length_penalty": 2.0}, {"eos_token_id": 3}),
        ({"output_scores": True}, {"eos_token_id": 3}),
    ):
        model.save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        text = json.dumps({"eos_token_id": 3, **settings})
        (tmp_path / "base" / "generation_config.json").write_text(text)
        with pytest.warns(
            UserWarning, match=r"generation_config.json (cannot be saved as it is|has settings)"
        ):
            loaded = load_causal_lm(tmp_path / "base")
        assert loaded.generation_config.to_diff_dict().items() >= kept.items()
        saved = save_model(loaded, tokenizer, tmp_path / "out")
        assert json.loads((saved / "generation_config.json").read_text())["eos_token_id"] == [2, 3]
    (tmp_path / "base" / "generation_config.json").write_text('{"early_stopping": "perhaps"}')
    with pytest.raises(
        ModelError, match=r"is not valid \(`early_stopping` .*; correct that file, or delete it"
    ):
        load_causal_lm(tmp_path / "base")
    broken = GenerationConfig(temperature=0.5, eos_token_id=3)
    assert found(subject(generation=broken), tokenizer)["generation config"][0] == "warn"


def test_weights_are_written_whatever_else_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R37: no run loses its work at the save, whether configs, tokenizer or tensors are refused."""
    model, tokenizer = automaton({5: 6}, ROWS, eos_token_id=3), tokenizer_of()

    def refuses(*_: Any, **__: Any) -> None:
        raise ValueError("these settings cannot be saved")

    monkeypatch.setattr(model, "save_pretrained", refuses)
    monkeypatch.setattr(tokenizer, "save_pretrained", refuses)
    with pytest.warns(UserWarning) as told:
        saved = save_model(model, tokenizer, tmp_path / "out")
    assert ["its weights are written all the same" in str(w.message) for w in told] == [True, False]
    plain = transformers.AutoModelForCausalLM.from_pretrained(saved)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(plain(ids).logits, model(ids).logits)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        save_model(model, tokenizer, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_tensors_that_share_memory_or_are_not_contiguous(tmp_path: Path) -> None:
    """R37: the weights of last resort: one copy of a shared tensor, views and transposes as they are."""
    from safetensors.torch import load_file

    from trimtab.models.save import write_weights

    whole = torch.arange(6.0).reshape(2, 3)
    write_weights({"a": whole, "tied": whole, "t": whole.T, "part": whole[:1], "none": whole[:0]}, tmp_path)
    kept = load_file(tmp_path / "model.safetensors")
    assert kept.keys() == {"a", "t", "part", "none"}
    assert kept["t"].tolist() == [[0, 3], [1, 4], [2, 5]] and kept["part"].tolist() == [[0, 1, 2]]


def test_where_nothing_can_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R37: a file in the way, a place without permission and a full disk are found before the first step."""
    tokenizer = tokenizer_of()
    (finding,) = can_be_saved(tokenizer, str(tmp_path / "a" / "b"), 1)
    assert finding.status == "pass" and not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("x")
    for place in ("file", "file/sft"):
        (finding,) = can_be_saved(tokenizer, str(tmp_path / place), 1)
        assert finding.status == "fail" and "is a file" in finding.text
    (finding,) = can_be_saved(tokenizer, str(tmp_path / "a"), 10**18)
    assert finding.status == "fail" and "make room" in finding.text
    monkeypatch.setattr(os, "access", lambda *_: False)
    (finding,) = can_be_saved(tokenizer, str(tmp_path / "a"), 1)
    assert finding.status == "fail" and "may not be written to" in finding.text


def test_failures_are_refused_and_warnings_returned(tmp_path: Path) -> None:
    """R37: the first failure is the sentence, and it says how many there are."""
    tokenizer = tokenizer_of(NOTHING)
    assert [text[:40] for text in refuse(compare(subject(), tokenizer))] == [
        "the chat template writes no end of a tur"
    ]
    tokenizer.pad_token = None
    with pytest.raises(ModelError, match=r"no embedding for.*\(1 more: see `trimtab check`\)"):
        refuse(compare(subject(rows=100), tokenizer))
    automaton({}, ROWS).save_pretrained(tmp_path)
    assert subject_at(str(tmp_path), "policy").rows == ROWS
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config in .* cannot be read"):
        subject_at(str(tmp_path), "policy")


@pytest.mark.parametrize(
    ("family", "settings", "limit"),
    [
        ("GPT2", {"n_positions": 64}, 64),
        ("OPT", {"max_position_embeddings": 64}, 64),
        ("GPTJ", {"n_positions": 64}, 64),
        ("Llama", {"max_position_embeddings": 64}, 64),
        ("Mistral", {"max_position_embeddings": 64, "sliding_window": 8}, 64),
        ("Gemma3Text", {"max_position_embeddings": 64, "sliding_window": 8}, 64),
        ("Bloom", {}, None),
        ("Mpt", {"max_seq_len": 64}, None),  # ALiBi
        ("Mpt", {"max_seq_len": 64, "attn_config": {"alibi": False}}, 64),
        ("Falcon", {"alibi": True}, None),
        ("Mamba", {}, None),
    ],
)
def test_context_of_a_family(family: str, settings: dict[str, Any], limit: int | None) -> None:
    """R37: under its own name in each family; windows, ALiBi and states are no limit."""
    assert context_length(getattr(transformers, f"{family}Config")(**settings)) == limit


@pytest.mark.parametrize(
    ("rope", "limit"),
    [
        ({"rope_type": "default"}, 64),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
        ({"rope_type": "linear", "factor": 2.0}, 128),
        ({"rope_type": "dynamic", "factor": 2.0}, 128),
        # Llama 3.1 counts it already.
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "original_max_position_embeddings": 32,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            },
            64,
        ),
    ],
)
def test_context_under_rotary_scaling(rope: dict[str, Any], limit: int) -> None:
    """R37: scaling lengthens the context by its factor, unless the config's number holds it already."""
    config = LlamaConfig(max_position_embeddings=64, rope_parameters={"rope_theta": 10000.0, **rope})
    assert context_length(config) == limit
    assert context_length(SimpleNamespace(config=config)) == limit
