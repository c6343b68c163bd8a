"""Rows, masks and mini-batches: who is trained on what."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from tests.unit.trainers.systems import rl_config

from trimtab.functional import loss_denominator
from trimtab.trainers.batching import RolloutBatch, make_batch, minibatches
from trimtab.trainers.grpo import completion_advantages
from trimtab.types import Completion, Prompt, RewardResult, RolloutGroup

PAD = 0


def group(prompt: tuple[int, ...], *completions: tuple[tuple[int, ...], float | None, str]) -> RolloutGroup:
    """A group whose log-probabilities are −token/10, and half of that under the sampler."""
    return RolloutGroup(
        prompt=Prompt("x", ({"role": "user", "content": "x"},)),
        prompt_ids=prompt,
        completions=tuple(
            Completion(
                ids,
                "",
                tuple(-i / 10 for i in ids),
                reason,  # type: ignore[arg-type]
                sampling_logprobs=tuple(-i / 20 for i in ids),
            )
            for ids, _, reason in completions
        ),
        rewards=tuple(RewardResult(value) for _, value, _ in completions),
    )


GROUPS = [
    group((11, 12, 13), ((21, 22), 1.0, "stop"), ((23,), None, "stop")),
    group((14,), ((24, 25, 26, 27), 0.25, "length"), ((28, 0, 2), 0.5, "stop")),
]


def batch(**options: bool) -> RolloutBatch:
    return make_batch(GROUPS, PAD, **options)


def test_layout_of_rows() -> None:
    """Traps 12 and 13: the engine's ids as they are, EOS trained, padding not, right-padded."""
    rows = batch().rows
    assert rows.token_ids.tolist() == [
        [11, 12, 13, 21, 22],
        [11, 12, 13, 23, PAD],
        [14, 24, 25, 26, 27],
        [14, 28, 0, 2, PAD],  # a 0 that was sampled is a token like any other
    ]
    assert rows.attention_mask.tolist() == [
        [True] * 5,
        [True] * 4 + [False],
        [True] * 5,
        [True] * 4 + [False],
    ]
    assert rows.completion_mask.int().tolist() == [
        [0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0],  # abstained
        [0, 1, 1, 1, 1],
        [0, 1, 1, 1, 0],
    ]


def test_logprobs_are_aligned_to_their_tokens() -> None:
    """Trap 9: position t holds the log-probability of token t, for both conventions."""
    rows = batch().rows
    assert rows.rollout_logprobs is not None
    assert rows.sampling_logprobs is not None
    torch.testing.assert_close(rows.rollout_logprobs[0], torch.tensor([0, 0, 0, -2.1, -2.2]))
    torch.testing.assert_close(rows.sampling_logprobs[3], torch.tensor([0, -1.4, 0, -0.1, 0]))


def test_untruncated_sampling_needs_no_second_column() -> None:
    """Trap 9: where nothing was cut, the sampler's distribution is the reported one."""
    plain = Completion((21, 22), "", (-0.5, -0.25), "stop")
    made = make_batch([RolloutGroup(GROUPS[0].prompt, (11,), (plain,), (RewardResult(1.0),))], PAD).rows
    assert made.sampling_logprobs is not None
    assert made.sampling_logprobs.tolist() == [[0, -0.5, -0.25]]


def test_per_completion_columns() -> None:
    """Trap 3: an abstained reward is marked as such; lengths count every token."""
    made = batch()
    assert made.valid.tolist() == [True, False, True, True]
    assert made.group_ids.tolist() == [0, 0, 1, 1]
    assert made.lengths.tolist() == [2, 1, 4, 3]
    assert made.truncated.tolist() == [False, False, True, False]
    assert made.rewards.tolist() == [1.0, 0.0, 0.25, 0.5]
    assert made.completion_mask.sum(dim=1).tolist() == [2, 1, 4, 3]  # also what is not trained


@pytest.mark.parametrize(
    ("kind", "expected"), [("token_mean", 9.0), ("sequence_mean", 3.0), ("fixed_length", 4 * 8.0)]
)
def test_abstained_rows_are_in_no_denominator(kind: str, expected: float) -> None:
    """Trap 3: tokens and sequences without a reward do not dilute the others."""
    assert loss_denominator(batch().rows.completion_mask, kind, 8) == expected


def test_abstained_rows_have_no_advantage_and_no_say() -> None:
    """Trap 3: the group's baseline is that of the others; a lone valid row of a group teaches nothing."""
    groups = [group((1,), ((21,), 1.0, "stop"), ((22,), None, "stop"), ((23,), 3.0, "stop")), GROUPS[0]]
    made = make_batch(groups, PAD)
    advantages = completion_advantages(made, rl_config("dr_grpo"), None)
    assert advantages.tolist() == [-1.0, 0.0, 1.0, 0.0, 0.0]


def test_truncated_rows_can_be_masked() -> None:
    """Trap 13: `overlong.mask_truncated` leaves cut completions out of the loss, not out of the records."""
    made = batch(mask_truncated=True)
    assert made.rows.completion_mask.any(dim=1).tolist() == [True, False, False, True]
    assert made.valid.tolist() == [True, False, True, True]
    assert made.completion_mask.any(dim=1).all()


def test_minibatches_cover_every_row_once() -> None:
    """R6: shuffled mini-batches are a partition of the rows, differ between epochs, repeat with the seed."""
    rows = make_batch([*GROUPS, *GROUPS, *GROUPS], PAD).rows
    marked = rows.token_ids.clone()
    marked[:, 0] = torch.arange(len(rows))
    rows = type(rows)(marked, rows.attention_mask, rows.completion_mask, rows.advantages)

    def order(count: int, seed: int) -> list[list[int]]:
        made = minibatches(rows, count, torch.Generator().manual_seed(seed))
        return [part.token_ids[:, 0].tolist() for part in made]

    parts = order(5, 1)
    assert [len(part) for part in parts] == [3, 3, 2, 2, 2]
    assert sorted(chain(*parts)) == list(range(12))
    assert order(5, 1) == parts
    assert order(5, 2) != parts
    assert order(1, 1) == [list(range(12))]
    assert sorted(chain(*order(40, 1))) == list(range(12))


def test_rows_are_trimmed_to_their_own_width() -> None:
    """Trap 4: a selection drops the padding that it does not need, in every column alike."""
    short = batch().rows.rows(torch.tensor([1, 3]))
    assert short.token_ids.tolist() == [[11, 12, 13, 23], [14, 28, 0, 2]]
    assert short.rollout_logprobs is not None
    assert short.rollout_logprobs.shape == short.completion_mask.shape == (2, 4)
    assert short.ref_logprobs is None
