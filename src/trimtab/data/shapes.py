"""The shapes of data sets as tables of columns (R31, R33): TRL's, verl's, OpenRLHF's, and as published.

TRL's shapes: https://huggingface.co/docs/trl/dataset_formats. Each may be plain text or conversational
(lists of messages).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shape:
    """A named set of columns, and its uses: ``prompts``, ``pairs``, ``preferences``, ``steps``.

    ``renames`` says which column is read as which (``{"prompt": "question"}``).
    """

    name: str
    columns: tuple[str, ...]
    uses: tuple[str, ...]
    renames: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.columns)})"

    def column(self, name: str) -> str:
        """The column of the data set that is read as ``name``."""
        return self.renames.get(name, name)


def _asked(name: str, prompt: str, completion: str) -> Shape:
    renames = {"prompt": prompt, "completion": completion}
    return Shape(name, (prompt, completion), ("prompts", "pairs"), renames)


# The first shape whose columns are all there wins, so the fuller ones come first.
SHAPES: tuple[Shape, ...] = (
    Shape("stepwise supervision", ("prompt", "completions", "labels"), ("prompts", "steps")),
    Shape("unpaired preference", ("prompt", "completion", "label"), ("prompts", "pairs", "preferences")),
    Shape("preference", ("prompt", "chosen", "rejected"), ("prompts", "preferences")),
    Shape("verl", ("prompt", "data_source", "reward_model"), ("prompts",)),
    Shape("UltraChat", ("prompt", "messages"), ("prompts", "pairs")),
    Shape("prompt-completion", ("prompt", "completion"), ("prompts", "pairs")),
    _asked("prompt-response", "prompt", "response"),
    _asked("HumanEval", "prompt", "canonical_solution"),
    _asked("prompt-code", "prompt", "code"),
    Shape(
        "ShareGPT preference",
        ("conversations", "chosen", "rejected"),
        ("prompts", "preferences"),
        {"prompt": "conversations"},
    ),
    Shape(
        "question preference",
        ("question", "chosen", "rejected"),
        ("prompts", "preferences"),
        {"prompt": "question"},
    ),
    Shape("implicit preference", ("chosen", "rejected"), ("prompts", "preferences")),
    Shape("prompt-only", ("prompt",), ("prompts",)),
    Shape("Alpaca", ("instruction", "output"), ("prompts", "pairs"), {"completion": "output"}),
    Shape("Dolly", ("instruction", "response"), ("prompts", "pairs"), {"completion": "response"}),
    Shape("messages", ("messages",), ("prompts", "pairs")),
    Shape("ShareGPT", ("conversations",), ("prompts", "pairs"), {"messages": "conversations"}),
    _asked("GSM8K", "question", "answer"),
    _asked("question-response", "question", "response"),
    _asked("query-response", "query", "response"),
    _asked("MATH", "problem", "solution"),
    _asked("input-output", "input", "output"),
    Shape("OpenRLHF", ("input", "label"), ("prompts",), {"prompt": "input"}),
    Shape("question-only", ("question",), ("prompts",), {"prompt": "question"}),
    Shape("problem-only", ("problem",), ("prompts",), {"prompt": "problem"}),
    _asked("MBPP", "text", "code"),
    Shape("language modelling", ("text",), ("pairs",)),
)
# What columns are called elsewhere, the likeliest first: for the mapping that an error proposes.
OTHER_NAMES = {
    "prompt": ("question", "problem", "query", "instruction", "input", "task", "description", "text", "goal"),
    "completion": ("response", "output", "answer", "solution", "completion", "target", "reply", "chosen"),
    "chosen": ("chosen", "better", "preferred", "win", "positive", "accepted", "response_0", "answer_chosen"),
    "rejected": ("rejected", "worse", "dispreferred", "lose", "negative", "response_1", "answer_rejected"),
    "completions": ("steps", "solution_steps", "process"),
    "labels": ("ratings", "step_labels", "label"),
}
NEEDED = {
    "prompts": ("prompt",),
    "pairs": ("prompt", "completion"),
    "preferences": ("prompt", "chosen", "rejected"),
    "steps": ("prompt", "completions", "labels"),
}


def recognise(columns: Collection[str], use: str | None = None, mapped: Collection[str] = ()) -> Shape | None:
    """Return the shape that these columns have (and that has this ``use``), or None.

    Columns that were ``mapped`` by hand decide between shapes that fit.

    Example:
        >>> recognise({"prompt", "chosen", "rejected", "source"}).name
        'preference'
    """
    names = set(columns)
    fitting = [s for s in SHAPES if set(s.columns) <= names and (use is None or use in s.uses)]
    if not mapped:
        return next(iter(fitting), None)
    by_hand = [len(set(shape.columns) & set(mapped)) for shape in fitting]
    # Of those with most columns mapped by hand, the one with fewest that happen to be there.
    ranks = [(count, count - len(shape.columns)) for count, shape in zip(by_hand, fitting, strict=True)]
    return fitting[ranks.index(max(ranks))] if fitting else None


def propose_mapping(columns: Collection[str], use: str) -> str:
    """Return the mapping that a user may have meant, as TOML (``{ prompt = "task" }``); empty without one."""
    names = {name.lower(): name for name in columns}
    taken: set[str] = set()
    pairs = []
    for wanted in NEEDED[use]:
        if wanted in columns:
            continue
        ranked = [names[name] for name in OTHER_NAMES[wanted] if name in names]
        ranked += [real for name, real in names.items() if any(o in name for o in OTHER_NAMES[wanted][:4])]
        found = next((name for name in ranked if name not in taken and name not in NEEDED[use]), "COLUMN")
        taken.add(found)
        pairs.append(f'{wanted} = "{found}"')
    has_guess = bool(taken - {"COLUMN"})
    return f"{{ {', '.join(pairs)} }}" if has_guess else ""
