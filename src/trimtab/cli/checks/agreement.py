"""Whether models, tokenizers, templates, data and disk agree, as lines of the checklist."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trimtab.cli.checks.datasets import SAMPLE
from trimtab.cli.checks.line import CheckLine
from trimtab.config import Recipe, Stage
from trimtab.models.agreement import Finding, compare, subject_of

if TYPE_CHECKING:
    from trimtab.types import Prompt


def check_model(model: Any, tokenizer: Any) -> Iterator[CheckLine]:
    """The model that the recipe starts from, against its tokenizer, template and configs."""
    yield from map(as_line, compare(subject_of(model, "model"), tokenizer))


def check_rows(recipe: Recipe, stage: Stage, prompts: Sequence[Prompt] | None = None) -> Iterator[CheckLine]:
    """The rows of a stage against the context and the template of the model that reads them.

    ``prompts`` are those whose lengths have a line already, as far as they are no more than a sample.
    """
    from trimtab.pipeline.agreement import stage_findings

    has_lengths = prompts is not None and len(prompts) <= SAMPLE
    for finding in stage_findings(recipe, stage):
        if not (has_lengths and finding.what == "rl.data length"):
            yield as_line(finding)


def as_line(finding: Finding) -> CheckLine:
    """A finding as a line; its sentence says what to do already."""
    return CheckLine(finding.status, finding.what, finding.text)
