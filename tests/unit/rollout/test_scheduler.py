"""Which rows run together, and what counts of what they sampled."""

from __future__ import annotations

import torch
from tests.unit.models.tiny import tiny_tokenizer

from trimtab.rollout.completion import StopStrings
from trimtab.rollout.sampling import Draws
from trimtab.rollout.scheduler import Transcript, Waiting, bucket, chunks

TOKENIZER = tiny_tokenizer()
NO_STOP = StopStrings(TOKENIZER, ())


def test_chunks_hold_whole_groups_where_they_fit() -> None:
    """R12: groups stay together so that a prompt runs once; a group larger than the batch is split."""
    parts = list(chunks(3, 4, max_rows=10))
    assert [part.prompts for part in parts] == [(0, 1), (2,)]
    assert parts[0].row_prompts.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    parts = list(chunks(2, 5, max_rows=3))
    assert [part.rows for part in parts][1] == ((0, 3), (0, 4), (1, 0))
    assert sum(len(part.rows) for part in parts) == 10


def test_a_transcript_counts_each_completion_by_itself() -> None:
    """R12, trap 13: completions of one batch stand at different tokens; end tokens close only their own."""
    transcript = Transcript(3, 3, frozenset({2}), NO_STOP)

    def add(which: list[int], tokens: list[int]) -> list[bool]:
        logprobs = -torch.arange(1.0, len(which) + 1)
        return transcript.add(torch.tensor(which), Draws(torch.tensor(tokens), logprobs, None)).tolist()

    assert add([0, 2], [50, 60]) == [False, False]
    assert add([2, 1], [2, 70]) == [True, False]
    assert add([0, 1], [51, 2]) == [False, True]
    assert add([0], [52]) == [True]  # the limit, not an end
    assert transcript.has_ended.tolist() == [False, True, True]
    found = transcript.completions(7)
    assert [c.token_ids for c in found] == [(50, 51, 52), (70, 2), (60, 2)]
    assert [c.logprobs for c in found] == [(-1.0, -1.0, -1.0), (-2.0, -2.0), (-2.0, -1.0)]
    assert [c.finish_reason for c in found] == ["length", "stop", "stop"]
    assert found[0].policy_version == 7


def test_waiting_completions_come_prompt_by_prompt() -> None:
    """Issue 3: a group that does not fit enters in parts, and two prompts are never mixed in one part."""
    waiting = Waiting(2, 3)
    assert (waiting.peek(), waiting.take(2)) == (0, [0, 1])
    assert (waiting.peek(), waiting.take(5)) == (0, [2])
    assert (waiting.peek(), waiting.take(5), len(waiting)) == (1, [3, 4, 5], 0)


def test_buckets_are_few_and_large_enough() -> None:
    """Issue 3: static shapes in buckets: every number of rows fits its bucket, and there are few of them."""
    sizes = [bucket(rows) for rows in range(1, 257)]
    assert all(size >= rows for rows, size in enumerate(sizes, 1)) and sizes[63] == 64
    assert sorted(set(sizes)) == [1, 2, 4, *range(8, 65, 8), *range(96, 257, 32)]


def test_stop_strings_across_tokens() -> None:
    """R12: a stop string of several bytes and tokens is seen when its last token comes, not before."""
    stop = StopStrings(TOKENIZER, ("您好", "END"))
    ids = TOKENIZER.encode("ab您好")
    assert [stop.completed_by(ids[:n]) for n in range(1, len(ids) + 1)] == [False] * 7 + [True]
    assert stop.cut("ab END c您好") == ("ab ", True) and stop.cut("abc") == ("abc", False)
    assert not NO_STOP and NO_STOP.cut("END") == ("END", False)
