from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from trimtab.errors import DataError, RewardError
from trimtab.rewards.reasoning_gym import VERIFIED, is_right, reasoning_gym_reward
from trimtab.tasks import load_task
from trimtab.tasks.demonstrations import demonstrations
from trimtab.tasks.reasoning_gym import REFUSED, split_of
from trimtab.types import Prompt, Sample

reasoning_gym = pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")

ROOT = Path(__file__).parents[3]
FILTER = (
    "task:reasoning_gym?dataset=number_filtering&style=plain"
    "&min_numbers=3&max_numbers=4&min_decimals=0&max_decimals=0&min_value=0&max_value=9"
)
SUM = "task:reasoning_gym?dataset=chain_sum&style=plain&min_terms=2&max_terms=2&min_digits=1&max_digits=2"
# Of each kind a few that are quick: numbers, words, truth values, lists, grids.
QUICK = ["chain_sum", "spell_backward", "gcd", "syllogism", "number_sorting", "ab", "rotate_matrix", "dice"]


@pytest.mark.parametrize("dataset", QUICK)
def test_gold_scores_one_and_substring_tricks_earn_nothing(dataset):
    """Threats: the library pays for an answer that contains the gold one; here only the answer itself is
    paid, alone or in tags."""
    task = load_task(f"reasoning_gym?dataset={dataset}")
    reward = task.reward()
    for prompt in task.prompts("train", 12, 1) + task.prompts("hidden", 6, 1):
        gold = prompt.columns["answer"]
        right = [gold, f"<answer>{gold}</answer>", f"So:\n<answer>\n{gold}\n</answer>"]
        assert [r.value for r in reward.score([Sample(prompt, text) for text in right])] == [1.0] * 3, prompt
        tricks = [
            f"{gold} {gold}x",
            f"<answer>{gold} and 17</answer>",
            f"<answer>1</answer><answer>{gold}</answer>",
            f"<answer>{gold}",
            f"not <answer>{gold}</answer>",
            f"maybe {gold}",
            prompt.text,
            "",
        ]
        assert [r.value for r in reward.score([Sample(prompt, t) for t in tricks])] == [0.0] * 8, prompt


def test_the_library_does_pay_for_substrings():
    """Threats: why its scorers are not used: an answer that lists everything earns something there."""
    made = reasoning_gym.create_dataset("chain_sum", size=1, seed=1)
    entry = made[0]
    text = f"one of {entry['answer']} and 12345"
    assert 0 < made.score_answer(text, entry) < 1
    row = Prompt(
        "0", ({"role": "user", "content": "?"},), {"answer": entry["answer"], "dataset": "chain_sum"}
    )
    assert reasoning_gym_reward().score([Sample(row, text)])[0].value == 0.0


@pytest.mark.parametrize("dataset", ["chain_sum", "simple_equations", "knights_knaves", "emoji_mystery"])
def test_splits_are_disjoint_whatever_the_seeds(dataset):
    """R20: no question of the hidden split is trained on, for any seed."""
    task = load_task(f"reasoning_gym?dataset={dataset}")
    train = {p.text for seed in range(3) for p in task.prompts("train", 150, seed)}
    hidden = {p.text for seed in range(3) for p in task.prompts("hidden", 40, seed)}
    assert train
    assert hidden
    assert not train & hidden


def test_the_same_numbers_in_other_words_are_in_the_same_split():
    """R20: where the library says a thing in several ways, what it is made of decides as well."""
    train, hidden = {}, {}
    made = reasoning_gym.create_dataset("simple_equations", size=600, seed=5, max_value=9)
    for entry in (made[index] for index in range(600)):
        split = split_of("simple_equations", entry)
        content = (entry["metadata"]["equation"], entry["metadata"]["variable"])
        {"train": train, "hidden": hidden, None: {}}[split].setdefault(content, entry["question"])
    assert train
    assert hidden
    assert not train.keys() & hidden.keys()


def test_the_split_never_changes():
    """R20: the split is a fixed function of the content; this was written down once."""
    entries = [
        {
            "question": f"{a} + 5 =",
            "answer": str(a + 5),
            "metadata": {"expression": f"{a} + 5", "source_index": 3},
        }
        for a in range(30)
    ]
    found = [split_of("chain_sum", entry) for entry in entries]
    assert [a for a, split in enumerate(found) if split == "hidden"] == HIDDEN
    moved = [{**e, "metadata": {**e["metadata"], "source_index": 9, "difficulty": 1}} for e in entries]
    assert [split_of("chain_sum", entry) for entry in moved] == found


HIDDEN = [6, 14]


def test_prompts_are_seeded_different_and_start_over():
    """R12: the same seed gives the same prompts; a small train split starts over, a hidden one stops."""
    task = load_task("reasoning_gym?dataset=chain_sum&style=plain&max_terms=2&max_digits=1")
    first, again, other = (task.prompts("train", 60, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len({p.text for p in first}) == 60
    assert len(task.prompts("train", 500, 1)) == 500
    hidden = task.prompts("hidden", 500, 1)
    assert len({p.text for p in hidden}) == len(hidden) < 60


def test_options_reach_the_data_set():
    """R25: numbers, lists and texts of the query are the data set's configuration."""
    task = load_task(
        "reasoning_gym?dataset=chain_sum&style=plain&min_terms=4&max_terms=4&min_digits=1&max_digits=1"
    )
    assert all(len(p.text.split(":")[1].split()) == 8 for p in task.prompts("train", 5, 1))
    assert "<answer>" in load_task("reasoning_gym?dataset=gcd").prompts("train", 1, 1)[0].text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("reasoning_gym?dataset=chain_sun", "did you mean 'chain_sum'?"),
        ("reasoning_gym?dataset=nothing_like_it_there", "for example"),
        ("reasoning_gym?max_term=3", "did you mean 'max_terms'?"),
        ("reasoning_gym?min_terms=5&max_terms=2", "refuses its options"),
        ("reasoning_gym?style=tag", "did you mean 'tags'?"),
        ("reasoning_gym?dataset=countdown", "evaluates the text"),
        ("reasoning_gym?seed=3", "no option 'seed'"),
    ],
)
def test_errors_are_one_sentence(source, words):
    """R25: a data set or option that is not there is told with the nearest one."""
    with pytest.raises(DataError) as caught:
        load_task(source)
    assert words in str(caught.value)


def test_a_missing_package_is_one_sentence(monkeypatch):
    """R25: without the extra the task says what to install."""
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(DataError, match=r"pip install 'trimtab\[reasoning-gym\]'"):
        load_task("reasoning_gym")


def test_importing_the_task_does_not_import_the_library():
    """Design: the library takes over a second; only a task that is used pays for it."""
    import subprocess

    code = "import sys, trimtab.tasks, trimtab.rewards.registry; print('reasoning_gym' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_rows_that_cannot_be_graded_abstain():
    """R19: no gold answer, no data set: left out, not 0."""
    row = Prompt("0", ({"role": "user", "content": "?"},), {"answer": "1"})
    result = reasoning_gym_reward().score([Sample(row, "1")])[0]
    assert result.value is None
    assert "dataset" in result.error
    with pytest.raises(RewardError, match="workers"):
        reasoning_gym_reward(workers=0)


def test_refused_data_sets_exist_and_are_not_verified():
    """Design: the tables name data sets of the library, each in one of them."""
    from reasoning_gym.factory import DATASETS

    assert REFUSED.keys() <= DATASETS.keys()
    assert DATASETS.keys() >= VERIFIED
    assert not REFUSED.keys() & VERIFIED
    assert not is_right("countdown", "1", "{}")


@pytest.mark.slow
@pytest.mark.parametrize("dataset", sorted(VERIFIED))
def test_a_verified_puzzle_pays_for_solutions_only(dataset):
    """Threats: the gold answer is one, another spelling may be one, a part or an extension is none."""
    task = load_task(f"reasoning_gym?dataset={dataset}")
    reward = task.reward()
    for prompt in task.prompts("train", 3, 1):
        gold = prompt.columns["answer"]
        assert is_right(dataset, gold, prompt.columns["entry"])
        texts = [
            f"<answer>{gold}</answer>",
            f"<answer>{gold} x</answer>",
            f"<answer>{gold[:-2]}</answer>",
            "[]",
        ]
        assert [r.value for r in reward.score([Sample(prompt, t) for t in texts])] == [1.0, 0.0, 0.0, 0.0]
    reward.close()


@pytest.mark.slow
def test_another_solution_of_a_verified_puzzle_is_paid():
    """R19: a palindrome of the same letters that is not the gold one."""
    entry = {"answer": "abba", "metadata": {"letters": ["a", "a", "b", "b"]}}
    columns = {"answer": "abba", "dataset": "palindrome_generation", "entry": json.dumps(entry)}
    row = Prompt("0", ({"role": "user", "content": "?"},), columns)
    reward = reasoning_gym_reward(workers=1)
    texts = ["<answer>baab</answer>", "<answer>bab</answer>", "<answer>noon</answer>"]
    assert [r.value for r in reward.score([Sample(row, text) for text in texts])] == [1.0, 0.0, 0.0]
    reward.close()


def test_the_committed_demonstrations_are_those_of_the_generator():
    """R20: the SFT file is what the generator makes, from the train split alone."""
    path = ROOT / "data" / "logic" / "number_filtering_sft.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == demonstrations(FILTER, len(rows), 1)
    hidden = {p.text for p in load_task(FILTER).prompts("hidden", 300, 2)}
    assert not hidden & {row["prompt"] for row in rows}
