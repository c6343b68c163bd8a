"""R33: gold answers as data have them, and the check that does not trust the reward alone."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from benchmarks.changed_golds import gsm8k_cases, measure

from trimtab.config import RewardSpec
from trimtab.errors import RewardError
from trimtab.rewards.combine import CombinedReward
from trimtab.rewards.gold import change, check_gold, is_printed
from trimtab.rewards.gold_column import final_of, golds_of, value_of
from trimtab.rewards.registry import build_reward
from trimtab.rewards.rules import RuleReward
from trimtab.types import Prompt, Sample

SOLUTION = "She sells 16 - 7 = <<16-7=9>>9 eggs.\nThat is 9 * 2 = <<9*2=18>>18 dollars.\n#### 18"
VERL = {"reward_model": {"style": "rule", "ground_truth": "18"}}


def row(completion: str = "", **columns: object) -> Sample:
    """A completion of a row with these columns."""
    return Sample(Prompt("3", ({"role": "user", "content": "?"},), columns), completion)


def values(name: str, *samples: Sample, **options: object) -> list[float | None]:
    """What a reward gives."""
    reward = build_reward([RewardSpec(name=name, options=options)])
    return [result.value for result in reward.score(list(samples))]


@pytest.mark.parametrize(
    ("value", "golds"),
    [
        ("18", ("18",)),
        (18, ("18",)),
        (18.0, ("18", "18.0")),
        (0.5, ("0.5",)),
        (Decimal("1.50"), ("1.50",)),
        (True, ("True", "true")),
        (["yes", "true"], ("yes", "true")),
        ([18, 18.5], ("18", "18.5")),
        ('["yes", "true"]', ("yes", "true")),
        ("[0, 1]", ("[0, 1]",)),  # an interval, and no list of texts
        ('{"ground_truth": ["a", "b"]}', ("a", "b")),
        ({"style": "rule", "ground_truth": "18"}, ("18",)),
        (np.int64(7), ("7",)),
        (np.array(["a", "b"]), ("a", "b")),
        (np.array([7, 8]), ("7", "8")),
        (pa.scalar("x"), ("x",)),
        (pa.array([1, 2]), ("1", "2")),
        (pa.scalar({"ground_truth": "5"}), ("5",)),
    ],
)
def test_a_gold_answer_in_every_shape(value: object, golds: tuple[str, ...]) -> None:
    """Texts, numbers, lists, structs, their JSON, scalars and arrays of numpy and pyarrow."""
    assert golds_of(row(answer=value), "answer", "math") == golds


def test_dotted_paths_and_verls_place() -> None:
    """Through structs and JSON; a name with a dot in it first; verl's place where `answer` is missing."""
    assert value_of({"a": {"b": {"c": 1}}}, "a.b.c") == 1 and value_of({"a": '{"b": 2}'}, "a.b") == 2
    assert value_of({"a.b": 3, "a": {"b": 4}}, "a.b") == 3 and value_of({"a": {"b.c": 5}}, "a.b.c") == 5
    assert value_of({"a": "text"}, "a.b") is None and value_of({}, "a") is None
    assert golds_of(row(**VERL), "answer", "math") == ("18",)
    assert golds_of(row(**VERL), "reward_model.ground_truth", "math") == ("18",)
    assert golds_of(row(**VERL), "reward_model", "math") == ("18",)
    assert golds_of(row(answer="4", **VERL), "answer", "math") == ("4",)


@pytest.mark.parametrize(
    ("columns", "column", "said"),
    [
        ({}, "answer", "needs the column 'answer', which row 3 does not have."),
        ({"label": "4"}, "answer", "does not have; it has label."),
        ({"answr": "4"}, "gold.answr", "did you mean 'answr'?"),
        (
            {"answer": {"value": "4"}},
            "answer",
            'a struct with the keys value; name the key .* column = "answer.value"',
        ),
        ({"answer": []}, "answer", "needs the column 'answer'"),
        ({"answer": [["4"]]}, "answer", "a list of lists or structs; write a list of texts or numbers"),
        ({"answer": float("nan")}, "answer", "needs the column 'answer'"),
    ],
)
def test_what_is_no_gold_answer_is_said(columns: dict[str, object], column: str, said: str) -> None:
    """Threats: what, where, and what to write instead."""
    with pytest.raises(RewardError, match=said):
        golds_of(row(**columns), column, "math")


def test_a_whole_solution_is_cut_to_its_answer() -> None:
    """GSM8K's last line, MATH's last box; other texts stay."""
    assert final_of(SOLUTION) == "18" and final_of("#### 1,319") == "1,319"
    assert final_of("First $\\boxed{3}$, so $\\boxed{\\frac{1}{2}}$.") == "\\frac{1}{2}"
    assert final_of("#### Step 1\nx = 2") == "#### Step 1\nx = 2" and final_of("\\boxed{}") == "\\boxed{}"


def test_every_reward_with_a_gold_answer_reads_all_shapes() -> None:
    """exact_match, final_number, arithmetic, one_answer and math: any accepted answer, and no other."""
    pytest.importorskip("sympy")
    several = ["18", "eighteen"]
    assert values("exact_match", row("eighteen", answer=several), row("19", answer=several)) == [1, 0]
    assert values("exact_match", row("18", answer=SOLUTION), row(SOLUTION, answer=SOLUTION)) == [1, 1]
    assert values("exact_match", row("18", **VERL), row("18", answer=18.0)) == [1, 1]
    assert values("exact_match", row('["a"]', answer='["a"]'), row("a", answer='["a"]')) == [1, 1]
    for name in ("final_number", "arithmetic"):
        assert values(name, row("18", answer=[17, 18]), row("19", answer=[17, 18])) == [1, 0]
        assert values(name, row("18", answer=SOLUTION), row("1319", answer="#### 1,319")) == [1, 1]
        assert values(name, row("18", **VERL), column="reward_model.ground_truth") == [1]
    assert values("one_answer", row("<answer>eighteen</answer>", answer=several)) == [1]
    assert values("one_answer", row("18", answer=SOLUTION), row("19", **VERL)) == [1, 0]
    found = values(
        "math", row("\\boxed{eighteen}", answer=several), row("\\boxed{18}", answer=SOLUTION),
        row("\\boxed{18}", **VERL),
        row("\\boxed{19}", **VERL), row("\\boxed{3}", answer="So $x = \\boxed{3}$."), row("\\boxed{18}",
        answer=18.0),
    )  # fmt: skip
    assert found == [1, 1, 1, 0, 1, 1]
    assert values("contains", row("a b", words=["a", "c"]), words=[], column="words") == [0.5]


def test_the_check_scores_every_accepted_answer() -> None:
    """One of two accepted numbers is none: the row fails, and all are looked at."""
    reward = build_reward([RewardSpec(name="final_number")])
    report = check_gold(reward, [row(answer=["4", "four"]).prompt])
    assert len(report.failures) == 2 and "'four', no number" in report.failures[0].reason


def test_the_check_sees_a_reward_that_confirms_its_own_misreading() -> None:
    """A reward that reads only the first number of both sides pays its own gold answers, and changed ones."""

    def first(text: str) -> str:
        return text.split(",")[0]

    blind = RuleReward("blind", lambda s: first(s.completion) == first("4, 5"), lambda s: ("4, 5",))
    report = check_gold(CombinedReward([(blind, 1.0)]), [row(answer="4, 5").prompt])
    assert report.failures == () and [(d.row, d.gold) for d in report.doubts] == [("3", "4, 5")]
    assert "1 gold answers of x earn 1 also when changed (1 rows): row 3, blind, gold '4, 5'" in (
        report.describe_doubts("x")
    )
    assert "'4, 6' earns 1 as well" in report.describe_doubts("x")


def test_the_check_finds_printed_lists_and_texts_that_cannot_be_read() -> None:
    """What Python prints for a list is refused; integrals are named as comparable only as written."""
    pytest.importorskip("sympy")
    reward = build_reward([RewardSpec(name="math")])
    golds = ["['yes', 'true']", "\\int_0^1 x\\,dx", "4", ["yes", "true"]]
    rows = [Prompt(str(i), ({"role": "user", "content": "?"},), {"answer": g}) for i, g in enumerate(golds)]
    report = check_gold(reward, rows)
    assert [(f.row, "printed list" in f.reason) for f in report.failures] == [("0", True)]
    assert [found.row for found in report.as_written] == ["1"] and not report.doubts
    assert "1 gold answers of x can only be compared as text" in report.describe_as_written("x")
    assert report.describe_doubts("x") == ""


def test_changes_by_hand() -> None:
    """One digit, else one letter, never a command's; and what is printed."""
    assert [change(text) for text in ("19", "3 cm", "\\sqrt{x}", "no", "\\pi", "B")] == [
        "10", "4 cm", "\\sqrt{y}", "np", None, "C",
    ]  # fmt: skip
    assert is_printed("array(['42'], dtype=object)") and not is_printed("(1, 2)") and not is_printed("{'a")


def test_gsm8k_in_usual_writings(tmp_path: Path) -> None:
    """Whole solutions as gold answers: their number is paid as people write it, a changed one is not."""
    file = tmp_path / "gsm8k.jsonl"
    file.write_text('{"answer": "a\\n#### 18"}\n{"answer": "b\\n#### 1,319"}\n{"answer": "c\\n#### -4"}\n')
    found = measure(list(gsm8k_cases(file)))
    assert (found["paid"], found["missed"]) == ([], []) and (found["same"], found["changed"]) == (18, 18)
