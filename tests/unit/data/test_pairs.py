from __future__ import annotations

import pytest

from trimtab.data import encode_pair, encode_prompt, encode_row, render, turn_end
from trimtab.errors import DataError, ModelError

from .templates import STRIPS_OPEN
from .toy_tokenizer import ALTERNATING, BROKEN_PREFIX, CHATML, PLAIN, TAGGED, build_tokenizer

USER = {"role": "user", "content": "问价格?"}
TURNS = [
    USER,
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "more"},
    {"role": "assistant", "content": "second"},
]


def trained_text(tokenizer, pair):
    ids = [i for i, trained in zip(pair.token_ids, pair.completion_mask, strict=True) if trained]
    return tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("template", [CHATML, TAGGED])
def test_a_pair_is_the_prompt_ids_then_the_completion_and_its_end(template):
    """Traps 12 and 13: prompt ids are a prefix; completion and EOS are trained, no newline after it."""
    tokenizer = build_tokenizer(template)
    pair = encode_pair(tokenizer, [USER], "你好\nok")
    prompt = encode_prompt(tokenizer, [USER])
    assert pair.token_ids[: len(prompt)] == prompt
    assert pair.completion_mask == (False,) * len(prompt) + (True,) * (len(pair) - len(prompt))
    assert trained_text(tokenizer, pair) == "你好\nok<|im_end|>"
    assert pair.token_ids[-1] == tokenizer.eos_token_id


def test_a_merge_across_the_border_does_not_change_the_prompt_ids():
    """Trap 12: a newline that would merge with the template leaves the prompt ids alone."""
    tokenizer = build_tokenizer(CHATML, merges=("Ċ|Ċ",))
    prompt = encode_prompt(tokenizer, [USER])
    pair = encode_pair(tokenizer, [USER], "\nhi")
    assert pair.token_ids[: len(prompt)] == prompt
    assert trained_text(tokenizer, pair) == "\nhi<|im_end|>"


@pytest.mark.parametrize("template", [CHATML, TAGGED])
def test_every_assistant_turn_of_a_dialogue_is_trained(template):
    """Trap 13: each assistant turn and its end, and nothing of the user's turns."""
    tokenizer = build_tokenizer(template)
    pair = encode_pair(tokenizer, TURNS[:1], TURNS[1:])
    assert trained_text(tokenizer, pair) == "first answer<|im_end|>second<|im_end|>"
    whole = render(tokenizer, TURNS)
    assert tokenizer.decode(pair.token_ids, skip_special_tokens=False) == whole.rstrip("\n")


def test_a_dialogue_goes_on_from_the_ids_that_a_model_would_see():
    """Trap 12: where prefixes break, each turn still follows exactly what the template writes before it."""
    tokenizer = build_tokenizer(BROKEN_PREFIX)
    turns = [
        {**turn, "content": f"<think>\nso\n</think>\n{turn['content']}"}
        if turn["role"] == "assistant"
        else turn
        for turn in TURNS
    ]
    pair = encode_pair(tokenizer, turns[:1], turns[1:])
    assert trained_text(tokenizer, pair) == (
        "so\n</think>\nfirst answer<|im_end|>so\n</think>\nsecond<|im_end|>"
    )
    assert tokenizer.decode(pair.token_ids, skip_special_tokens=False) == (
        "<|im_start|>user\n问价格?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nso\n</think>\nfirst answer<|im_end|>\n"
        "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n<think>\nso\n</think>\nsecond<|im_end|>"
    )


def test_an_answer_is_never_trained_inside_an_open_block():
    """R33: a generation prompt that opens a block, and an answer without reasoning."""
    with pytest.raises(
        DataError, match=r"opens a reasoning block .<think>., which the answer of row 2 does not"
    ):
        encode_pair(build_tokenizer(BROKEN_PREFIX), [USER], "ok", where="row 2")


def test_turns_that_a_template_rewrites_are_sequences_of_their_own():
    """R33: what is trained is what a model would have seen: the past without its reasoning."""
    tokenizer = build_tokenizer(STRIPS_OPEN)
    turns = [USER, {"role": "assistant", "content": "<think>\nso\n</think>\n\nfirst"}, *TURNS[2:3]]
    turns.append({"role": "assistant", "content": "<think>\nthen\n</think>\n\nsecond"})
    one, two = encode_row(tokenizer, turns[:1], turns[1:])
    assert trained_text(tokenizer, one) == "so\n</think>\n\nfirst<|im_end|>"
    assert trained_text(tokenizer, two) == "then\n</think>\n\nsecond<|im_end|>"
    assert tokenizer.decode(two.token_ids, skip_special_tokens=False) == (
        "<|im_start|>user\n问价格?<|im_end|>\n<|im_start|>assistant\n\n\nfirst<|im_end|>\n"
        "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n<think>\nthen\n</think>\n\nsecond<|im_end|>"
    )
    with pytest.raises(DataError, match="rewrites earlier turns of row 3"):
        encode_pair(tokenizer, turns[:1], turns[1:], where="row 3")


def test_a_turn_of_weight_zero_is_context():
    """R33: `weight` 0 (OpenAI) and `train` false say which turns are not learned."""
    tokenizer = build_tokenizer()
    for mark in ({"weight": 0}, {"train": False}):
        pair = encode_pair(tokenizer, TURNS[:1], [{**TURNS[1], **mark}, *TURNS[2:]])
        assert trained_text(tokenizer, pair) == "second<|im_end|>"
    with pytest.raises(DataError, match="no assistant turn to train"):
        encode_pair(tokenizer, TURNS[:1], [{**TURNS[1], "weight": 0}])


def test_assistant_turns_of_the_prompt_are_context():
    """R31: a conversational prompt with history trains only the completion."""
    tokenizer = build_tokenizer()
    for template in (CHATML, TAGGED):
        tokenizer.chat_template = template
        pair = encode_pair(tokenizer, TURNS[:3], TURNS[3:])
        assert trained_text(tokenizer, pair) == "second<|im_end|>"
        pair = encode_pair(tokenizer, TURNS[:3], [*TURNS[3:], *TURNS])
        assert trained_text(tokenizer, pair) == "second<|im_end|>first answer<|im_end|>second<|im_end|>"


def test_a_template_without_turn_token_ends_with_eos():
    """Trap 13: EOS is appended where the template writes none."""
    tokenizer = build_tokenizer(PLAIN)
    assert turn_end(tokenizer) == (tokenizer.eos_token_id,)
    pair = encode_pair(tokenizer, [USER], "yes")
    assert trained_text(tokenizer, pair) == "yes<|im_end|>"


def test_the_turn_end_may_differ_from_eos():
    """Trap 13: base models keep another EOS; the template's closing token is what is trained."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
    assert tokenizer.decode(list(turn_end(tokenizer))) == "<|im_end|>"
    tokenizer.chat_template = PLAIN
    assert tokenizer.decode(list(turn_end(tokenizer))) == "<|endoftext|>"


def test_plain_text_is_trained_whole():
    """R31: the `text` column of language modelling: every token and EOS."""
    tokenizer = build_tokenizer()
    pair = encode_pair(tokenizer, (), "abc")
    assert all(pair.completion_mask)
    assert trained_text(tokenizer, pair) == "abc<|im_end|>"


def test_errors_name_the_row_and_the_fix():
    """R31: prompt over the limit, no chat template, a refused role: one sentence each."""
    tokenizer = build_tokenizer()
    with pytest.raises(DataError, match=r"row 7 has .* tokens, over the limit of 3: .*max_prompt_tokens"):
        encode_prompt(tokenizer, [USER], 3, where="row 7")
    with pytest.raises(ModelError, match=r"no chat template.*model\.chat_template"):
        encode_prompt(build_tokenizer(None), [USER])
    with pytest.raises(DataError, match=r"refuses row 7 .System role not supported"):
        encode_prompt(build_tokenizer(ALTERNATING), [{"role": "system", "content": "x"}, USER], where="row 7")


def test_a_template_that_rewrites_history_is_refused_by_name():
    """Trap 12: no silent wrong mask when earlier turns are rewritten."""
    template = (
        "{% for m in messages %}{% if loop.last or m.role != 'assistant' %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(DataError, match="rewrites earlier turns of row 3"):
        encode_pair(build_tokenizer(template), TURNS[:1], TURNS[1:], where="row 3")
