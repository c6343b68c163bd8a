"""The sales data sets: varied, reproducible, with a hidden set that training never sees."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from trimtab.errors import DataError
from trimtab.tasks import sales
from trimtab.tasks.sales.content import SITUATIONS, content, products
from trimtab.tasks.sales.datasets import MAX_RESEMBLANCE
from trimtab.tasks.sales.prompts import is_held_out

DATA = Path(__file__).parents[3] / "data"
# Words that the rule reward of R23 counts; the points of an answer must not hold them.
COUNTED = (
    "感谢", "您好", "欢迎", "理解", "明白", "了解", "优势", "价值", "效果", "节省", "试用", "演示", "预约",
    "联系", "?", "？", "-", "•", "**",
)  # fmt: skip


@cache
def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / "sales" / name).read_text(encoding="utf-8").splitlines()]


@cache
def prompts(name: str) -> list[str]:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def test_generator_is_reproducible_and_matches_the_committed_files() -> None:
    """R3: the committed files are what the generator writes, in order and byte for byte."""
    assert sales.generate_sft(40) == rows("sft.jsonl")[:40]
    assert sales.generate_train_prompts(40) == prompts("prompts/sales_prompts.json")[:40]
    assert sales.generate_preferences(20) == rows("preferences.jsonl")[:20]


def test_other_seed_other_rows() -> None:
    """R3: the seed matters."""
    assert sales.generate_sft(20, seed=1) != sales.generate_sft(20, seed=9)


def test_good_answers_take_the_situations_in_turn() -> None:
    """R20: what an audit measures on has every situation equally often, and is the same for a seed."""
    good = sales.generate_good_answers(28, seed=5)
    assert good == sales.generate_good_answers(28, seed=5) != sales.generate_good_answers(28, seed=6)
    asked = {request.prompt: request.situation for request in sales.generate_requests(112, 5)}
    assert [asked[row["prompt"]] for row in good] == [*SITUATIONS] * 2
    assert all(sales.quality(row["prompt"], row["completion"]) > 0.3 for row in good)


def test_sizes_and_shapes() -> None:
    """R1, R3: files in the shapes that the recipes read, less than 3 MB together."""
    assert len(rows("sft.jsonl")) == 3000 and set(rows("sft.jsonl")[0]) == {"prompt", "completion"}
    assert set(rows("preferences.jsonl")[0]) == {"prompt", "chosen", "rejected", "reason"}
    assert all(isinstance(p, str) and p for p in prompts("prompts/sales_prompts.json"))
    assert sum(path.stat().st_size for path in DATA.rglob("*.json*")) < 3_000_000


def test_answers_are_varied() -> None:
    """R1: more than 95 % of the answers differ, and English is the smaller share."""
    answers = [row["completion"] for row in rows("sft.jsonl")]
    assert len(set(answers)) > 0.95 * len(answers)
    english = sum(not any("\u4e00" <= c <= "\u9fff" for c in row["prompt"]) for row in rows("sft.jsonl"))
    assert 0.08 < english / len(answers) < 0.16


def test_hidden_prompts_are_neither_equal_nor_close_to_training_prompts() -> None:
    """R20: no exact and no near duplicate between the hidden set and any training prompt."""
    train = {row["prompt"] for name in ("sft.jsonl", "preferences.jsonl") for row in rows(name)}
    train |= set(prompts("prompts/sales_prompts.json"))

    def shingles(text: str) -> set[str]:
        return {text[i : i + 4] for i in range(len(text) - 3)}

    known = [shingles(text) for text in train]
    for hidden in sales.hidden_prompts(DATA / "sales/hidden_prompts.json")[::10]:
        mine = shingles(hidden)
        assert hidden not in train
        assert max(len(mine & other) / len(mine | other) for other in known) <= MAX_RESEMBLANCE


def test_held_out_pairs_stay_held_out() -> None:
    """R20: training never asks about a held-out situation × product pair; the hidden set only does."""
    for split, expected in (("train", False), ("hidden", True)):
        requests = sales.generate_requests(60, 11, split)
        assert {is_held_out(r.situation, r.product) for r in requests} == {expected}
    share = sum(is_held_out(s, p) for s in SITUATIONS for p in products()) / 140
    assert 0.1 < share < 0.25


def test_preferences_follow_quality_and_not_form() -> None:
    """R4: the better side wins by quality; neither length nor layout tells which side it is."""
    sample = rows("preferences.jsonl")[::10]
    for row in sample:
        better, worse = (sales.quality(row["prompt"], row[side]) for side in ("chosen", "rejected"))
        assert better > worse
    everything = rows("preferences.jsonl")
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in everything) / len(everything)
    layout = sum(("\n" in row["chosen"]) - ("\n" in row["rejected"]) for row in everything) / len(everything)
    assert abs(longer - 0.5) < 0.03 and abs(layout) < 0.05


@pytest.mark.parametrize("language", ["zh", "en"])
def test_points_hold_no_counted_word(language: str) -> None:
    """R23: what an answer says and how it is dressed vary independently."""
    for situation in content(language).situation.values():
        for point in situation.point:
            assert not [word for word in COUNTED if word in point.say], point.say


def test_missing_hidden_file_is_one_sentence(tmp_path: Path) -> None:
    """Issue 2, item 2: a missing data file names the command that writes it."""
    with pytest.raises(DataError, match=r"trimtab\.tasks\.sales\.generate"):
        sales.hidden_prompts(tmp_path / "none.json")
