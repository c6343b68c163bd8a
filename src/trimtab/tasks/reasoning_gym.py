"""``task:reasoning_gym?dataset=NAME&KEY=VALUE``: data sets of the reasoning-gym package, graded exactly.

The package makes the problems; the split, the extraction and the grading are ours. A problem is hidden by its
content: a hash of the question and a hash of what the library says it is made of (``metadata``) must both
say so, and for training both must say the opposite. So neither the same text nor the same numbers in other
words are on both sides; problems on which the two disagree are in neither split.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha256
from types import ModuleType
from typing import Any

from trimtab.errors import DataError, nearest
from trimtab.rewards.base import Reward
from trimtab.rewards.reasoning_gym import VERIFIED, reasoning_gym_reward
from trimtab.tasks.draw import check_choice, check_split, is_hidden_key
from trimtab.types import Prompt

HIDDEN_SHARE = 3  # of each of the two hashes: one problem in nine is hidden, four in nine are trained on
_BOOKKEEPING = ("source_dataset", "source_index", "difficulty")
_TRIES = 40  # problems made for one that is asked for, before the split counts as used up
_WRAP = "{question}\nGive the final answer between <answer> and </answer>."

# Data sets that an exact comparison would grade wrongly, and whose own scorer is not trusted with a text.
REFUSED = {
    **dict.fromkeys(
        ("countdown", "puzzle24", "n_queens", "propositional_logic", "simple_integration"),
        "it has many right answers and its scorer evaluates the text",
    ),
    **dict.fromkeys(
        ("intermediate_integration", "polynomial_multiplication", "polynomial_equations"),
        "an answer has many spellings and its scorer evaluates the text or pays for parts",
    ),
    **dict.fromkeys(
        ("boxnet", "graph_color", "rubiks_cube", "rush_hour"), "it has no right answer to compare with"
    ),
    **dict.fromkeys(
        ("quantum_lock", "sokoban", "survo", "palindrome_partitioning", "composite"),
        "it has many right answers and no verifier that was checked",
    ),
    "kakurasu": "it has many right answers and its scorer reads over what else the answer says",
    "knight_swap": "it has many right answers and no verifier that was checked",
    "power_function": "its right answer is not in the form that its question asks for",
}


@dataclass(frozen=True, slots=True)
class ReasoningGymTask:
    """Prompts of one data set, with ``answer`` and ``dataset`` for the grader.

    Args:
        dataset: its name in the package.
        style: ``tags`` asks for ``<answer>`` tags after the question, ``plain`` gives the question alone.
        options: keys of the data set's own configuration, as text.

    Example:
        >>> task = ReasoningGymTask("chain_sum", style="plain", options={"max_terms": "2"})
    """

    dataset: str = "chain_sum"
    style: str = "tags"
    options: Mapping[str, str] = field(default_factory=dict)
    name: str = "reasoning_gym"

    def __post_init__(self) -> None:
        check_choice(self.name, "style", self.style, ("tags", "plain"))
        known = _library().factory.DATASETS
        if self.dataset not in known:
            hint = nearest(self.dataset, known)
            hint = hint if "did you mean" in hint else f" (for example {', '.join(sorted(VERIFIED))})"
            raise DataError(f"task:reasoning_gym has no data set '{self.dataset}'{hint}.")
        if self.dataset in REFUSED:
            raise DataError(
                f"task:reasoning_gym: '{self.dataset}' cannot be graded exactly ({REFUSED[self.dataset]}); "
                "use another data set, such as 'chain_sum'."
            )
        self._create(1, 0)

    def prompts(self, split: str, count: int, seed: int) -> list[Prompt]:
        """Return ``count`` prompts of ``train`` or ``hidden``.

        No question comes twice before all that were found came; then the train split starts over, and of
        the hidden one there are no more.

        Raises:
            DataError: an unknown split, or one without any problem.
        """
        check_split(self.name, split)
        found: dict[str, Prompt] = {}
        for entry in self._entries(count * _TRIES, f"{split}:{seed}"):
            key = _plain(entry["question"])
            if key not in found and split_of(self.dataset, entry) == split:
                found[key] = self._prompt(f"{self.dataset}-{split}-{seed}-{len(found)}", entry)
            if len(found) == count:
                break
        if not found:
            raise DataError(
                f"task:reasoning_gym: '{self.dataset}' has no {split} problem with these options: widen them."
            )
        chosen = list(found.values())
        if split == "train":
            chosen = (chosen * -(-count // len(chosen)))[:count]
        return chosen

    def reward(self) -> Reward:
        """1 for the right answer, else 0."""
        return reasoning_gym_reward()

    def _entries(self, count: int, stream: str) -> Iterator[Mapping[str, Any]]:
        """Problems of a stream, made one after the other."""
        made = self._create(count, int.from_bytes(sha256(stream.encode()).digest()[:4], "big") >> 1)
        for index in range(count):
            entry = made[index]
            if entry.get("answer") is not None and str(entry["answer"]).strip():
                yield entry

    def _create(self, size: int, seed: int) -> Any:
        """The library's data set.

        Raises:
            DataError: an option that it does not have, or a value that it refuses.
        """
        library = _library()
        config = library.factory.DATASETS[self.dataset][1]
        known = {item.name: item for item in fields(config) if item.name not in ("seed", "size")}
        where = f"task:reasoning_gym: data set '{self.dataset}'"
        values = {}
        for key, text in self.options.items():
            if key not in known:
                raise DataError(f"{where} has no option '{key}'{nearest(key, known)}.")
            values[key] = _value(text, key, where)
        try:
            return library.create_dataset(self.dataset, size=size, seed=seed, **values)
        except (AssertionError, ValueError, TypeError) as error:
            raise DataError(f"{where} refuses its options ({error}).") from None

    def _prompt(self, row: str, entry: Mapping[str, Any]) -> Prompt:
        question = str(entry["question"]).strip()
        text = question if self.style == "plain" else _WRAP.format(question=question)
        columns = {"answer": str(entry["answer"]), "dataset": self.dataset}
        if self.dataset in VERIFIED:
            columns["entry"] = json.dumps(entry, default=str)
        return Prompt(row, ({"role": "user", "content": text},), columns)


def split_of(dataset: str, entry: Mapping[str, Any]) -> str | None:
    """``train``, ``hidden``, or None for a problem that is left out of both."""
    parts = {key: value for key, value in entry["metadata"].items() if key not in _BOOKKEEPING}
    question = _plain(entry["question"])
    made_of = json.dumps([parts, str(entry["answer"])], sort_keys=True, default=str) if parts else question
    keys = (f"{dataset}:{question}", f"{dataset}:{made_of}")
    hidden = [is_hidden_key(key, HIDDEN_SHARE) for key in keys]
    if all(hidden):
        return "hidden"
    return None if any(hidden) else "train"


def _plain(question: str) -> str:
    """The text without case and layout; signs stay, since some puzzles are made of nothing else."""
    return " ".join(question.casefold().split())


def _value(text: str, key: str, where: str) -> Any:
    """A number, a list of numbers, true or false, or the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, dict) or value is None:
        raise DataError(f"{where}: {key} = {text!r} is neither a number, a text nor a list.")
    return value


def _library() -> ModuleType:
    """The package: over a second to import, so only where the task is used."""
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError:
        raise DataError(
            "task:reasoning_gym needs the package reasoning-gym: install it with "
            "`pip install 'trimtab[reasoning-gym]'`."
        ) from None
