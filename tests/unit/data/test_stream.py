from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data import PromptStream
from trimtab.errors import CheckpointError, DataError


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(0, 9), max_size=8), st.integers(0, 99), st.booleans())
def test_every_item_once_per_epoch_and_resume_goes_on(size, batches, seed, reshuffle):
    """R11: none twice within an epoch, none lost; a stream resumed at any point gives the same items."""
    stream = PromptStream(range(size), seed, reshuffle=reshuffle)
    taken: list[int] = []
    for n in batches:
        resumed = PromptStream(range(size), seed, reshuffle=reshuffle)
        resumed.load_state(stream.state())
        batch = stream.next_batch(n)
        assert len(batch) == n
        assert resumed.next_batch(n) == batch
        taken += batch
    for start in range(0, len(taken), size):
        epoch = taken[start : start + size]
        assert max(Counter(epoch).values()) == 1
    assert stream.epoch == len(taken) // size


def test_epochs_are_reshuffled_by_the_seed():
    """R11: prompts reshuffled every epoch; another seed, another order; or the file's."""
    stream = PromptStream(range(20), 1)
    first, second = stream.next_batch(20), stream.next_batch(20)
    assert first != second
    assert PromptStream(range(20), 1).next_batch(20) == first
    assert PromptStream(range(20), 2).next_batch(20) != first
    assert PromptStream(range(5), 2, reshuffle=False).next_batch(7) == [0, 1, 2, 3, 4, 0, 1]


def test_wrong_state_and_empty_data_are_refused():
    """R31: a checkpoint of other data says so; an empty data set too."""
    with pytest.raises(CheckpointError, match="num_items = 3, this run has 4"):
        PromptStream(range(4), 1).load_state(PromptStream(range(3), 1).state())
    with pytest.raises(DataError, match="no items"):
        PromptStream([], 1)
