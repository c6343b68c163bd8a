"""Loading and saving: what is refused, what is repaired, and that others can read it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tests.unit.models.tiny import CONFIGS, EOS, PAD, TEMPLATE, random_prompts, tiny_model, tiny_tokenizer

from trimtab.config.model import ModelConfig
from trimtab.errors import ModelError
from trimtab.models import builtin
from trimtab.models.attention import supports_attention
from trimtab.models.forward import sequence_scores
from trimtab.models.load import (
    eos_ids,
    is_sequence_classifier,
    load_causal_lm,
    load_sequence_classifier,
    load_tokenizer,
    resolve_model_path,
    save_model,
)
from trimtab.models.precision import resolve_dtype


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_model(
        tiny_model(), tiny_tokenizer(), tmp_path / "out" / "model", {"card.json": {"mean": 1.5}}
    )


def test_saved_model_is_plain_transformers(saved: Path) -> None:
    """R3: model, tokenizer and chat template load in a process that never heard of trimtab, same logits."""
    code = f"""
import sys, json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(saved)!r}, attn_implementation="eager")
tokenizer = AutoTokenizer.from_pretrained({str(saved)!r})
text = tokenizer.apply_chat_template([{{"role": "user", "content": "hi"}}], tokenize=False)
with torch.no_grad():
    logits = model(torch.tensor([[5, 6, 7]])).logits[0, -1, :4].tolist()
assert "trimtab" not in sys.modules
assert AutoModelForCausalLM.from_pretrained({str(saved)!r}).config._attn_implementation == "sdpa"
print(json.dumps([text, tokenizer.pad_token_id, logits]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=saved,
        env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    text, pad, logits = json.loads(run.stdout.splitlines()[-1])
    assert text == "<|im_start|>user\nhi<|im_end|>\n" and pad == PAD
    with torch.no_grad():
        ours = load_causal_lm(saved)(torch.tensor([[5, 6, 7]])).logits[0, -1, :4]
    assert logits == pytest.approx(ours.tolist(), abs=1e-4)
    assert json.loads((saved / "card.json").read_text()) == {"mean": 1.5}
    assert "trimtab" not in (saved / "config.json").read_text()
    assert not list(saved.glob("*.bin")) and (saved / "model.safetensors").is_file()


def test_saving_again_replaces_files_and_keeps_folders(saved: Path) -> None:
    """R3: a second save leaves no file of the first, keeps folders, and leaves nothing behind on failure."""
    (saved / "run").mkdir()
    (saved / "run" / "events.jsonl").write_text("{}\n")
    save_model(tiny_model(seed=1), tiny_tokenizer(), saved)
    assert (saved / "run" / "events.jsonl").is_file() and not (saved / "card.json").exists()
    assert torch.equal(load_causal_lm(saved).lm_head.weight, tiny_model(seed=1).lm_head.weight)
    with pytest.raises(ModelError, match=r"cannot save config\.json"):
        save_model(tiny_model(), tiny_tokenizer(), saved, {"config.json": {}})
    with pytest.raises(ValueError, match="JSON"):
        save_model(tiny_model(), tiny_tokenizer(), saved, {"card.json": {"mean": float("nan")}})
    assert torch.equal(load_causal_lm(saved).lm_head.weight, tiny_model(seed=1).lm_head.weight)
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_loaded_model_is_ready(saved: Path) -> None:
    """Trap 8, R6: eval mode, dropout off for good, our attention, the precision asked for."""
    model = load_causal_lm(saved, ModelConfig(dtype="bfloat16"))
    assert model.dtype == torch.bfloat16 and not model.training
    assert model.config._attn_implementation == "trimtab"
    assert load_causal_lm(saved).dtype == torch.float32  # a tiny model gains nothing from bf16 on a CPU
    assert load_causal_lm(saved, ModelConfig(attention="sdpa")).config._attn_implementation == "sdpa"
    gpt2 = save_model(tiny_model("GPT2"), tiny_tokenizer(), saved.parent / "gpt2")
    model = load_causal_lm(gpt2, ModelConfig(gradient_checkpointing=True)).train()
    ids = torch.tensor(random_prompts(6))
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_architecture_without_the_seam_keeps_its_own(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R12: where attention cannot be replaced the model loads with its own, and says so."""
    model = tiny_model()
    assert supports_attention(model)
    monkeypatch.setattr(type(model), "_supports_attention_backend", False)
    with pytest.warns(UserWarning, match="runs its own attention .sdpa."):
        assert load_causal_lm(saved).config._attn_implementation == "sdpa"


def test_dtype_auto() -> None:
    """R6: bf16 on an accelerator; on a CPU fp32 below 50 million parameters, whatever it measures."""
    assert resolve_dtype("auto", "cuda", 10) == torch.bfloat16
    assert resolve_dtype("auto", "cpu", 1_000_000) == torch.float32
    assert resolve_dtype("auto", "cpu", 10**8) in (torch.bfloat16, torch.float32)
    assert resolve_dtype("bfloat16", "cpu", 1) == torch.bfloat16


def test_new_score_head_is_the_same_every_time(saved: Path) -> None:
    """R4: a classifier made from a language model has one label, a seeded head, and survives saving."""
    before = torch.get_rng_state()
    one, other = (load_sequence_classifier(saved, pad_token_id=PAD) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.score.weight, other.score.weight) and one.score.weight.shape[0] == 1
    assert one.score.weight.any()
    third = load_sequence_classifier(saved, pad_token_id=PAD, seed=1)
    assert not torch.equal(one.score.weight, third.score.weight)
    trained = save_model(third, tiny_tokenizer(), saved.parent / "rm")
    assert is_sequence_classifier(trained) and not is_sequence_classifier(saved)
    again = load_sequence_classifier(trained, pad_token_id=PAD)
    ids = torch.tensor(random_prompts(7))
    assert torch.allclose(
        sequence_scores(again, ids, torch.ones_like(ids)), sequence_scores(third, ids, torch.ones_like(ids))
    )


def test_models_that_cannot_be_loaded_are_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R25: one sentence with a fix for every way to be wrong."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(saved.parent)
    with pytest.raises(ModelError, match=r"did you mean .tiny-zh."):
        resolve_model_path("builtin:tiny-zn")
    with pytest.raises(ModelError, match=r"no model directory \./modle \(did you mean 'model'\?\)"):
        resolve_model_path("./modle")
    with pytest.raises(ModelError, match="trimtab models get some-model"):
        resolve_model_path("nobody/Some-Model")
    (saved.parent / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_causal_lm("empty")
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights are not read"):
        load_causal_lm(saved)
    (saved / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_causal_lm(saved)


def test_short_names_and_builtins(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: ./models/NAME is found by its name, `builtin:` in the package, a directory as it is."""
    monkeypatch.chdir(saved.parent)
    saved.rename(saved.parent / "models")
    (saved.parent / "models").rename(saved.parent / "m")
    (saved.parent / "models").mkdir()
    (saved.parent / "m").rename(saved.parent / "models" / "small")
    assert resolve_model_path("small") == "models/small"
    monkeypatch.setattr(builtin, "ASSETS", saved.parent / "models")
    monkeypatch.setitem(builtin.BUILTIN_MODELS, "tiny-zh", "small")
    assert resolve_model_path("builtin:tiny-zh").endswith("models/small")
    monkeypatch.setitem(builtin.BUILTIN_MODELS, "tiny-zh", "gone")
    with pytest.raises(ModelError, match="reinstall trimtab"):
        resolve_model_path("builtin:tiny-zh")


def test_tokenizer_checks(saved: Path, tmp_path: Path) -> None:
    """Traps 11 and 13: no template, no end token, and padding that is the end token are refused or mended."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_tokenizer(saved).pad_token_id == PAD
    for pad in (None, "<|im_end|>"):
        tiny_tokenizer(pad=pad).save_pretrained(saved)
        with pytest.warns(UserWarning, match=r"padding with <\|pad\|>"):
            tokenizer = load_tokenizer(saved)
        assert tokenizer.pad_token_id == PAD != tokenizer.eos_token_id
    bare = tiny_tokenizer(template=None)
    (saved / "chat_template.jinja").unlink()
    bare.save_pretrained(saved)
    with pytest.raises(ModelError, match=r"no chat template; set model\.chat_template = FILE"):
        load_tokenizer(saved)
    with pytest.raises(ModelError, match=r"there is no chat template missing\.jinja"):
        load_tokenizer(saved, "missing.jinja")
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    assert load_tokenizer(saved, str(tmp_path / "t.jinja")).chat_template == TEMPLATE
    bare.chat_template, bare.eos_token = TEMPLATE, None
    bare.save_pretrained(saved)
    with pytest.raises(ModelError, match="no end token"):
        load_tokenizer(saved)


def test_no_token_left_for_padding(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 13: pad = EOS with nothing else in the vocabulary is refused, and the way out is named."""
    monkeypatch.setattr("trimtab.models.tokenizer._PADDING", ())
    tiny_tokenizer(pad="<|im_end|>").save_pretrained(saved)
    with pytest.raises(ModelError, match=r"padding equal to its end token.*add a pad token"):
        load_tokenizer(saved)


def test_every_end_token_is_known() -> None:
    """Trap 13: ends come from the generation config, the model config, the tokenizer and the template."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    assert eos_ids(model, tokenizer) == {EOS}
    model.generation_config.eos_token_id = [7, EOS]
    tokenizer.eos_token = "a"
    assert eos_ids(model, tokenizer) == {7, EOS, tokenizer.eos_token_id}
    assert eos_ids(None, tokenizer) == {tokenizer.eos_token_id, EOS}  # the template closes with <|im_end|>
    tokenizer.chat_template = "{{ messages[1]['content'] }}. {{ raise_exception('no') }}"
    assert eos_ids(None, tokenizer) == {tokenizer.eos_token_id}
    assert set(CONFIGS) >= {"Llama", "GPT2"}
