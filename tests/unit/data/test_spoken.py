"""What a row says against what its tokens say: the comparison knows nothing of the encoder."""

from __future__ import annotations

import pytest

from trimtab.data.spoken import decoded, find_difference, find_open_block, round_trip, stretches, texts_of

from .toy_tokenizer import build_tokenizer


@pytest.mark.parametrize(
    ("texts", "shown", "found"),
    [
        (["yes"], "yes<|im_end|>", None),
        (["  yes \n no"], "yes no<|im_end|>", None),  # templates trim
        (["<think>why</think>yes"], "yes<|im_end|>", "'<think>why</think>yes' is missing"),
        (["because it is so", "yes"], "yes", "'because' is missing"),
        (["yes"], "yesyes<|im_end|>", None),  # three letters may be the template's own
        (["yes"], "yesyes", "'yes' is there more than once"),
        (["I see"], "I see I see<|im_end|>", "'I see' is there more than once"),
        (["ok", "ok"], "ok<|im_end|>\nok<|im_end|>", None),
        (["good", "good"], "good<|im_end|>", "'good' is missing"),
        (["好的。", "是"], "好的。是", None),
        (['say "hi"'], '{"name": "say \\"hi\\""}', None),  # as JSON writes it
        (["e\u0301"], "é", None),  # one letter in two spellings
        ([" "], "", None),
    ],
)
def test_what_is_missing_or_twice(texts: list[str], shown: str, found: str | None) -> None:
    """R33, R37: every text of the row is in the decoded tokens, as often as the row says it."""
    assert find_difference(texts, shown) == found


@pytest.mark.parametrize(
    ("before", "answer", "found"),
    [
        ("assistant\n", "<think>why</think>5", None),
        ("assistant\n<think>\n", "why</think>5", None),
        ("assistant\n<think>\n", "<think>why</think>5", "'<think>' is opened twice"),
        ("assistant\n<think>\n", "5", "the answer stands inside an open '<think>'"),
        ("assistant\n<think>\n\n</think>\n\n", "5", None),
        (
            "assistant\n<think>\n\n</think>\n\n",
            "<think>why</think>5",
            "an empty '<think>' block stands before the answer's own",
        ),
        ("what is <think>? assistant\n", "5", None),
        ("<assistant>", "5", None),  # not every tag holds reasoning
    ],
)
def test_reasoning_blocks_at_the_border(before: str, answer: str, found: str | None) -> None:
    """R37, case think-template: a block that the prompt opens is closed once by the answer."""
    assert find_open_block(before, answer) == found


def test_texts_of_a_message() -> None:
    """R33: reasoning under any of its names, text parts, and the words of tool calls are said too."""
    call = {"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": "two"}'}}
    message = {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [call]}
    assert texts_of(message) == ["hm", "add", "2", "two"]
    assert texts_of(message, with_reasoning=False) == ["add", "2", "two"]
    assert texts_of({"role": "user", "content": [{"type": "text", "text": "a"}]}) == ["a"]
    assert texts_of({"role": "assistant", "content": None}) == []


def test_what_the_tokenizer_cannot_write() -> None:
    """R37: a letter without a token is lost by the tokenizer, whatever the template does."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<unk>": 0, "we": 1, "say": 2}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    assert round_trip(tokenizer, "we say") == "we say"
    assert round_trip(tokenizer, "we sing") == "we <unk>"


def test_trained_and_other_tokens_are_decoded_apart() -> None:
    """R37: stretches of trained tokens are joined by a line break, special tokens kept."""
    tokenizer = build_tokenizer()
    ids = tokenizer("ab", add_special_tokens=False)["input_ids"]
    ids = [*ids, tokenizer.eos_token_id, *ids]
    mask = [False, True, True, False, True]
    assert decoded(tokenizer, ids, mask, trained=True) == "b<|im_end|>\nb"
    assert decoded(tokenizer, ids, mask, trained=False) == "a\na"
    assert stretches(tokenizer, ids, mask) == [("a", "b<|im_end|>"), ("ab<|im_end|>a", "b")]
    ends = (tokenizer.eos_token_id,)
    assert decoded(tokenizer, ids, mask, trained=True, without=ends) == "b\nb"
