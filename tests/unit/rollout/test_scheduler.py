"""Which rows run together, and what counts of what they sampled."""

from __future__ import annotations

import torch
from tests.unit.models.tiny import tiny_tokenizer

from trimtab.rollout.completion import StopStrings
from trimtab.rollout.scheduler import Progress, chunks

TOKENIZER = tiny_tokenizer()
NO_STOP = StopStrings(TOKENIZER, ())


def add(progress: Progress, *tokens: int) -> None:
    progress.add(torch.tensor(tokens), -torch.arange(1.0, len(tokens) + 1))


def test_chunks_hold_whole_groups_where_they_fit() -> None:
    """R12: groups stay together so that a prompt runs once; a group larger than the batch is split."""
    parts = list(chunks(3, 4, max_rows=10))
    assert [part.prompts for part in parts] == [(0, 1), (2,)]
    assert parts[0].row_prompts.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    parts = list(chunks(2, 5, max_rows=3))
    assert [part.rows for part in parts][1] == ((0, 3), (0, 4), (1, 0))
    assert sum(len(part.rows) for part in parts) == 10


def test_a_row_ends_once() -> None:
    """R12, trap 13: what a finished row samples before it leaves the batch does not count, ends included."""
    progress = Progress(24, 6, frozenset({2}), NO_STOP)
    add(progress, 2, *[50] * 23)
    assert progress.leave() is None  # one of 24 is too few to copy the cache for
    add(progress, 60, *[51] * 23)
    add(progress, 2, *[52] * 23)
    add(progress, 61, *[2] * 12, *[53] * 11)
    staying = progress.leave()
    assert staying is not None and staying.tolist() == list(range(13, 24))
    assert progress.has_ended.tolist() == [True] * 13 + [False] * 11
    add(progress, *[54] * 11)
    found = progress.completions(TOKENIZER, 7)
    assert found[0].token_ids == (2,) and found[0].logprobs == (-1.0,)
    assert found[5].token_ids == (50, 51, 52, 2) and found[5].finish_reason == "stop"
    assert found[20].token_ids == (50, 51, 52, 53, 54) and found[20].finish_reason == "length"
    assert found[20].logprobs == (-21.0,) * 4 + (-8.0,) and found[20].policy_version == 7


def test_stop_strings_across_tokens() -> None:
    """R12: a stop string of several bytes and tokens is seen when its last token comes, not before."""
    stop = StopStrings(TOKENIZER, ("您好", "END"))
    ids = TOKENIZER.encode("ab您好")
    assert [stop.completed_by(ids[:n]) for n in range(1, len(ids) + 1)] == [False] * 7 + [True]
    assert stop.cut("ab END c您好") == ("ab ", True) and stop.cut("abc") == ("abc", False)
    assert not NO_STOP and NO_STOP.cut("END") == ("END", False)
