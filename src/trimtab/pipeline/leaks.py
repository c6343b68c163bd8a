"""Sets of a recipe that must share nothing: what is trained on, hidden, and evaluated on (R20)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from trimtab.config import Recipe
from trimtab.config.recipe import STAGES, Stage
from trimtab.data import find_equal, find_overlap, load_pairs, load_preferences, refuse_overlap
from trimtab.data.overlap import Overlap, text_of
from trimtab.data.rows import Pair
from trimtab.pipeline.sources import TASK, held_out_prompts, solutions_for, train_prompts


@dataclass(frozen=True, slots=True)
class TextSet:
    """One data set as texts: the recipe's key that names it, and where it comes from."""

    key: str
    source: str
    texts: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key} ({self.source})"


def refuse_leaks(recipe: Recipe, stages: Collection[str] = STAGES) -> None:
    """Raise when hidden or evaluation prompts are, exactly or nearly, in what one of ``stages`` trains on.

    The RL stage also compares the hidden prompts, by which a run is watched, with those of the evaluation.

    Raises:
        DataError: two sets overlap, or one cannot be loaded.
    """
    for train, held_out in guarded_pairs(recipe, stages):
        one, other = load_texts(recipe, train), load_texts(recipe, held_out)
        refuse_overlap(one.texts, other.texts, leaks_between(one, other), names=(str(one), str(other)))


def leaks_between(train: TextSet, held_out: TextSet) -> list[Overlap]:
    """The texts of ``held_out`` that are in ``train``.

    Where one side is a task, only equal ones: two of its problems may differ by one digit.
    """
    if TASK in (train.source[: len(TASK)], held_out.source[: len(TASK)]):
        return find_equal(train.texts, held_out.texts)
    return find_overlap(train.texts, held_out.texts)


def guarded_pairs(recipe: Recipe, stages: Collection[str] = STAGES) -> Iterator[tuple[str, str]]:
    """Yield the keys of every two sets that must share nothing.

    The splits of one procedural task share nothing by how they are made, whatever the options and seeds.
    """
    trained = [key for stage, key in _TRAINED.items() if stage in stages and _source(recipe, key)]
    held_out = [key for key in _HELD_OUT if _source(recipe, key)]
    pairs = [(train, held) for train in trained for held in held_out]
    if len(held_out) == 2 and {"rl", "eval"} & set(stages):
        pairs.append((held_out[0], held_out[1]))
    seen: set[tuple[str, str]] = set()
    for train, held in pairs:
        one, other = _source(recipe, train), _source(recipe, held)
        is_one_set = train in _HELD_OUT and one == other
        if not (is_one_set or _is_one_task(one, other) or (one, other) in seen):
            seen.add((one, other))
            yield train, held


def load_texts(recipe: Recipe, key: str) -> TextSet:
    """Load the set that the recipe's ``key`` names.

    Raises:
        DataError: it cannot be read or has another shape.
    """
    source = _source(recipe, key)
    if key == "sft.data":
        assert recipe.sft is not None
        texts = [_pair_text(pair) for pair in load_pairs(source, columns=recipe.sft.columns)]
    elif key == "reward_model.data":
        assert recipe.reward_model is not None
        texts = [
            text_of(pair.prompt) for pair in load_preferences(source, columns=recipe.reward_model.columns)
        ]
    elif key == "process_reward.data":
        assert recipe.process_reward is not None
        texts = [text_of(row.prompt) for row in solutions_for(recipe.process_reward, recipe.seed)]
    elif key in _HELD_OUT:
        texts = [text_of(prompt.messages) for prompt in held_out_prompts(recipe, key)]
    else:
        texts = [text_of(prompt.messages) for prompt in train_prompts(recipe)]
    return TextSet(key, source, tuple(texts))


_TRAINED: dict[Stage, str] = {
    "sft": "sft.data",
    "reward_model": "reward_model.data",
    "process_reward": "process_reward.data",
    "rl": "rl.data",
}
_HELD_OUT: tuple[Literal["rl.hidden_data", "eval.data"], ...] = ("rl.hidden_data", "eval.data")


def _source(recipe: Recipe, key: str) -> str:
    section, _, name = key.partition(".")
    return str(getattr(getattr(recipe, section), name, None) or "")


def _is_one_task(one: str, other: str) -> bool:
    return one.startswith(TASK) and one.partition("?")[0] == other.partition("?")[0]


def _pair_text(pair: Pair) -> str:
    """All that the user says in a pair; the whole text where it has no turns."""
    if not pair.prompt:
        return pair.completion if isinstance(pair.completion, str) else text_of(pair.completion)
    later = () if isinstance(pair.completion, str) else pair.completion
    return text_of((*pair.prompt, *later))
