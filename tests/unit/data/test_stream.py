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


def draws(generation):
    """Ten items of a generation, none in another."""
    return [100 * generation + index for index in range(10)]


@pytest.mark.parametrize("taken", [0, 3, 10, 17])
def test_refresh_changes_the_items_and_resumes_exactly(taken):
    """R21: after a refresh every item is new, a pass begins, and a resumed stream goes on the same way."""
    stream = PromptStream(draws(0), 1, draw=draws)
    stream.next_batch(taken)
    stream.refresh()
    assert sorted(PromptStream(draws(1), 1).items) == sorted(stream.items)
    saved = stream.state()
    assert saved["generation"] == 1
    rest = stream.next_batch(10)
    assert sorted(rest) == draws(1)
    resumed = PromptStream(draws(0), 1, draw=draws)
    resumed.load_state(saved)
    assert resumed.next_batch(10) == rest
    stream.refresh()
    resumed.refresh()
    assert stream.next_batch(25) == resumed.next_batch(25)
    assert set(stream.items) == set(draws(2))


def test_refresh_needs_something_to_draw_from():
    """R21: a file's prompts are not drawn again, and drawn ones are not taken for the first."""
    with pytest.raises(DataError, match="only those of a task"):
        PromptStream(range(3), 1).refresh()
    stream = PromptStream(draws(0), 1, draw=draws)
    stream.refresh()
    with pytest.raises(CheckpointError, match="refresh_every"):
        PromptStream(draws(0), 1).load_state(stream.state())


def test_a_checkpoint_from_before_refreshing_is_understood():
    """R11: a state without a generation is that of the first items."""
    stream = PromptStream(range(5), 1)
    stream.next_batch(2)
    state = {key: value for key, value in stream.state().items() if key != "generation"}
    resumed = PromptStream(range(5), 1)
    resumed.load_state(state)
    assert resumed.next_batch(5) == stream.next_batch(5)
