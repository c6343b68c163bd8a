"""The end of a turn is one: what SFT trains, where the engine stops, and what a saved model names (R38)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.models.automaton import automaton, byte_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.data import encode_pair, encode_prompt, turn_end
from trimtab.data.turns import end_ids, ending
from trimtab.models.load import load_causal_lm, load_tokenizer, save_model
from trimtab.models.tokenizer import eos_ids
from trimtab.rewards.learned import encode_for_reward
from trimtab.rollout.engine import SamplingParams, build_engine

LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}"
    "{% else %}<｜Assistant｜>{{ m['content'] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
NOTHING = (
    "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
SPELLED = NOTHING.replace("\n{% endfor", " </s>\n{% endfor")  # `</s>` is no token of that tokenizer
MARKED = NOTHING.replace("\n{% endfor", "\n### End<|im_end|>\n{% endfor")  # words, then the token


@dataclass(frozen=True)
class Style:
    """A chat template on a base model: ``base`` is the base's own EOS, ``end`` what closes a turn."""

    template: str
    specials: tuple[str, ...]
    base: str
    end: str
    named: str  # the EOS token that the saved tokenizer has
    bos: str | None = None


STYLES = {
    "Llama 3": Style(
        LLAMA_3,
        ("<|pad|>", "<|bos|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        *("<|end_of_text|>", "<|eot_id|>", "<|eot_id|>", "<|bos|>"),
    ),
    "Gemma": Style(
        GEMMA,
        ("<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        *("<eos>", "<end_of_turn>", "<end_of_turn>", "<bos>"),
    ),
    "ChatML": Style(
        CHATML,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        *("<|endoftext|>", "<|im_end|>", "<|im_end|>"),
    ),
    "Mistral": Style(
        MISTRAL, ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"), *("</s>", "</s>", "</s>", "<s>")
    ),
    # Its template writes EOS after the last turn, so another EOS would change what it writes.
    "Phi": Style(
        PHI,
        ("<|pad|>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"),
        *("<|endoftext|>", "<|end|>", "<|endoftext|>"),
    ),
    "DeepSeek": Style(
        DEEPSEEK,
        ("<｜▁pad▁｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        *(
            "<｜end▁of▁sentence｜>",
            "<｜end▁of▁sentence｜>",
            "<｜end▁of▁sentence｜>",
            "<｜begin▁of▁sentence｜>",
        ),
    ),
    "no end": Style(NOTHING, ("<|pad|>", "<eos>"), *("<eos>", "<eos>", "<eos>")),
    "spelled end": Style(SPELLED, ("<|pad|>", "<eos>"), *("<eos>", "<eos>", "<eos>")),
    "words before the end": Style(
        MARKED, ("<|pad|>", "<eos>", "<|im_end|>"), *("<eos>", "<|im_end|>", "<|im_end|>")
    ),
}
USER = ({"role": "user", "content": "3?"},)


def base_model(style: Style, folder: Path) -> tuple[Path, Any]:
    """A base model as it is published, its EOS being its own; to a prompt it says "yes", the end, and on."""
    names = {"eos_token": style.base, "pad_token": style.specials[0]}
    tokenizer = byte_tokenizer(
        style.template, style.specials, **names, **({"bos_token": style.bos} if style.bos else {})
    )
    ids = dict(tokenizer.get_vocab())
    last = encode_prompt(tokenizer, USER)[-1]
    chain = [last, ids["y"], ids["e"], ids["s"], ids[style.end], ids["z"]]
    model = automaton(dict(pairwise(chain)), len(ids), eos_token_id=ids[style.base])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, ids


@pytest.mark.parametrize("name", STYLES)
def test_what_is_trained_sampled_and_saved_ends_alike(name: str, tmp_path: Path) -> None:
    """R38, A.7, case eos-not-saved: one end for SFT, reward model and engine, and saved models stop there."""
    style = STYLES[name]
    folder, ids = base_model(style, tmp_path / "base")
    end, base = ids[style.end], ids[style.base]
    tokenizer, model = load_tokenizer(folder), load_causal_lm(folder)
    assert turn_end(tokenizer) == (end,)
    assert encode_pair(tokenizer, USER, "yes").token_ids[-1] == end
    talk = [
        *USER,
        {"role": "assistant", "content": "yes"},
    ]  # scored as it is written, end and all that follows
    assert encode_for_reward(tokenizer, USER, "yes") == tokenizer.apply_chat_template(talk, return_dict=False)
    assert tokenizer.pad_token_id != end
    assert eos_ids(model, tokenizer) == {end, base}
    prompt = encode_prompt(tokenizer, USER)
    (completion,) = build_engine(model, tokenizer).generate([prompt], 1, SamplingParams(8, greedy=True))[0]
    assert (completion.text, completion.finish_reason, completion.token_ids[-1]) == ("yes", "stop", end)

    saved = save_model(model, tokenizer, tmp_path / "out")
    plain, own = AutoModelForCausalLM.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    said = plain.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :]
    assert own.decode(said, skip_special_tokens=True) == "yes" and said[-1] == end
    wanted = end if end == base else [end, base]
    for file in ("generation_config.json", "config.json"):
        assert json.loads((saved / file).read_text())["eos_token_id"] == wanted, file
    assert own.eos_token == style.named
    assert json.loads((saved / "config.json").read_text())["pad_token_id"] == own.pad_token_id
    # The template writes what it wrote, and everything is as it was in memory.
    assert own.apply_chat_template([*USER], tokenize=False) == tokenizer.apply_chat_template(
        [*USER], tokenize=False
    )
    assert encode_pair(own, USER, "yes") == encode_pair(tokenizer, USER, "yes")
    assert (tokenizer.eos_token, model.generation_config.eos_token_id) == (style.base, base)
    again = save_model(load_causal_lm(saved), load_tokenizer(saved), tmp_path / "again")
    assert json.loads((again / "config.json").read_text())["eos_token_id"] == wanted


def test_an_end_that_is_added_but_not_special(tmp_path: Path) -> None:
    """A.7: where the tokenizer does not call the end special, it is no word of the answer all the same."""
    tokenizer = byte_tokenizer(CHATML, ("<|pad|>", "<|x|>"), eos_token="<|x|>", pad_token="<|pad|>")
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    ids = tokenizer.get_vocab()
    end = ids["<|im_end|>"]
    assert turn_end(tokenizer) == (end,) and end not in tokenizer.all_special_ids
    last = encode_prompt(tokenizer, USER)[-1]
    model = automaton(
        {last: ids["o"], ids["o"]: ids["k"], ids["k"]: end}, len(ids), eos_token_id=ids["<|x|>"]
    )
    (found,) = build_engine(model, tokenizer).generate(
        [encode_prompt(tokenizer, USER)], 1, SamplingParams(8, greedy=True)
    )[0]
    assert (found.text, found.token_ids) == ("ok", (ids["o"], ids["k"], end))


def test_a_template_that_needs_a_system_turn_and_one_that_refuses_all() -> None:
    """A.7: an exchange that the template refuses says nothing; another one may, and else EOS ends a turn."""
    specials = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<eos>")
    needs = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    tokenizer = byte_tokenizer(needs, specials, eos_token="<eos>", pad_token="<|pad|>")
    assert tokenizer.decode(list(turn_end(tokenizer))) == "<|im_end|>"
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    assert ending(tokenizer).closing is None
    assert tokenizer.decode(list(turn_end(tokenizer))) == "<eos>"
    tokenizer.chat_template = CHATML
    assert end_ids(tokenizer, None) == (2, 3)  # the end of a turn first, then EOS


def test_padding_is_never_the_end_of_a_turn(tmp_path: Path) -> None:
    """Trap 13: a base whose padding is the template's end gets another; its own EOS may pad where it ends
    no turn."""
    specials = ("<|im_start|>", "<|im_end|>", "<eos>")
    tokenizer = byte_tokenizer(CHATML, specials, eos_token="<eos>", pad_token="<|im_end|>")
    automaton({}, len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="padding equal to its end token; padding with <eos>"):
        found = load_tokenizer(tmp_path)
    assert found.pad_token == "<eos>" and found.decode(list(turn_end(found))) == "<|im_end|>"


def test_a_config_may_not_suppress_the_end(tmp_path: Path) -> None:
    """R38: a base that suppresses the end token would never stop when it is served."""
    folder, ids = base_model(STYLES["ChatML"], tmp_path / "base")
    model, tokenizer = load_causal_lm(folder), load_tokenizer(folder)
    model.generation_config.suppress_tokens = [ids["<|im_end|>"], ids["q"]]
    with pytest.warns(UserWarning, match="suppressed an end token"):
        saved = save_model(model, tokenizer, tmp_path / "out")
    assert json.loads((saved / "generation_config.json").read_text())["suppress_tokens"] == [ids["q"]]
