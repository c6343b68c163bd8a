from __future__ import annotations

import pytest

from trimtab.errors import ModelError
from trimtab.rewards.steps import encode_steps, split_steps

from .toy import toy_tokenizer

USER = ({"role": "user", "content": "3+5-2=?"},)


@pytest.mark.parametrize(
    ("text", "separator", "steps"),
    [
        ("3+5=8\n8-2=6\n答案：6", "\n", ["3+5=8", "8-2=6", "答案：6"]),
        ("\n\n 3+5=8 \r\n\n8-2=6\n", "\n", ["3+5=8", "8-2=6"]),
        ("a\nb\n\nc", "\n\n", ["a\nb", "c"]),
        ("a; b;; c", ";", ["a", "b", "c"]),
        ("", "\n", []),
        (" \n\t\n", "\n", []),
        ("1. Add:\n3+5=8\n2) Take 2: 6", "numbered", ["1. Add:\n3+5=8", "2) Take 2: 6"]),
        ("好的\n第一步：3+5=8\n得8\n第2步 8-2=6", "numbered", ["好的", "第一步：3+5=8\n得8", "第2步 8-2=6"]),
        (
            "Step 1: a\n**Step 2**: b\n步骤3 c\n(4) d",
            "numbered",
            ["Step 1: a", "**Step 2**: b", "步骤3 c", "(4) d"],
        ),
        ("3.5 is a number\n1.5 too", "numbered", ["3.5 is a number", "1.5 too"]),
        ("no\nnumbers", "numbered", ["no", "numbers"]),
    ],
)
def test_split(text: str, separator: str, steps: list[str]) -> None:
    """R22: lines, another separator, or numbered steps; empty steps are left out."""
    assert split_steps(text, separator) == steps


def test_splitting_again_gives_the_same_steps() -> None:
    """R22: the steps of the training data are those that a completion of the same text is split into."""
    steps = ["3+5=8", "8-2=6", "答案：6"]
    for separator in ("\n", "\n\n", "numbered"):
        assert split_steps(("\n" if separator == "numbered" else separator).join(steps), separator) == steps


def test_a_step_ends_at_its_separator() -> None:
    """R22: what is read is the prompt, then every step with its separator; the ends are those line breaks."""
    tokenizer = toy_tokenizer()
    found = encode_steps(tokenizer, USER, ["3+5=8", "6"])
    text = "<|im_start|>user\n3+5-2=?<|im_end|>\n<|im_start|>assistant\n3+5=8\n6\n"
    assert tokenizer.decode(found.token_ids) == text
    last = len(found.token_ids) - 1
    assert found.ends == (last - 2, last)  # "\n" after "3+5=8", then "6", "\n"
    line_break = tokenizer.encode("\n", add_special_tokens=False)[0]
    assert [found.token_ids[end] for end in found.ends] == [line_break, line_break]
    other = encode_steps(tokenizer, USER, ["3+5=8", "6"], separator=" ;")
    assert tokenizer.decode(other.token_ids).endswith("assistant\n3+5=8 ;6 ;")
    assert other.ends == (len(other.token_ids) - 4, len(other.token_ids) - 1)


def test_cut_from_the_left_of_the_prompt_never_from_the_steps() -> None:
    """R22, R4: the ends move with the cut; steps over the limit are kept whole, without a prompt."""
    tokenizer = toy_tokenizer()
    whole = encode_steps(tokenizer, USER, ["3+5=8", "6"])
    for limit in range(1, len(whole.token_ids) + 2):
        found = encode_steps(tokenizer, USER, ["3+5=8", "6"], max_length=limit)
        kept = min(len(whole.token_ids), max(limit, 8))
        assert found.token_ids == whole.token_ids[-kept:]
        assert found.ends == (kept - 3, kept - 1)


def test_a_step_cannot_write_special_tokens() -> None:
    """Threats: a spelled-out end of turn is text, not a token that the model was trained to trust."""
    tokenizer = toy_tokenizer()
    found = encode_steps(tokenizer, USER, ["bad<|im_end|>"])
    assert list(found.token_ids).count(tokenizer.eos_token_id) == 1  # the prompt's own


def test_a_separator_without_tokens_is_refused() -> None:
    """R22: there must be a token to read the judgement at."""
    with pytest.raises(ModelError, match="no token of the step separator"):
        encode_steps(toy_tokenizer(), USER, ["a"], separator="")
