"""Issue 4, R20: an audit finds what a reward pays for, and leaves one alone that pays for the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimtab.cli.main import main
from trimtab.errors import RewardError
from trimtab.rewards.audit import audit_reward
from trimtab.rewards.final_number import final_number_reward
from trimtab.rewards.rules import RuleReward
from trimtab.rewards.sales import SalesVerifiableReward
from trimtab.types import Prompt, Sample


def rows(count: int = 12) -> list[Sample]:
    """Sums with honest answers."""
    return [
        Sample(
            Prompt(
                str(n), ({"role": "user", "content": f"What is {n} + {n + 5}?"},), {"answer": str(2 * n + 5)}
            ),
            f"{n} + {n + 5} = {2 * n + 5}. The answer is {2 * n + 5}.",
        )
        for n in range(11, 11 + count)
    ]


def test_the_plain_sales_reward_is_gameable() -> None:
    """R23: keywords in a form answer nobody and are paid like an answer."""
    samples = [
        Sample(Prompt(str(n), ({"role": "user", "content": f"第{n}款多少钱？"},)), text)
        for n, text in enumerate(
            ["感谢您的咨询！我理解您的顾虑。这款产品能节省成本。您想预约演示吗？", "您好，了解。可以试用？"]
        )
    ]
    report = audit_reward(SalesVerifiableReward(), samples, rounds=10)
    assert report.exploit is not None and report.exploit > 1.0
    paid = {attack.name: report.share(attack.mean) for attack in report.attacks}
    assert paid["keywords in a form"] > 0.5  # type: ignore[operator]
    assert report.attacks[0].mean == max(attack.mean for attack in report.attacks)
    assert {attack.name for attack in report.attacks if attack.has_answer} >= {"denied", "cut in half"}


def test_a_strict_grader_pays_for_nothing_else() -> None:
    """One final number: no attack comes near, an answer to another prompt included."""
    report = audit_reward(final_number_reward("answer"), rows(), rounds=10)
    assert (report.honest, report.empty) == (1.0, 0.0)
    assert report.exploit is not None and report.exploit <= 0.2, report.attacks[0]


def test_a_reward_for_length_is_found_by_name() -> None:
    """The example of the best attack is what a user needs to see."""
    long = RuleReward("long", lambda sample: min(len(sample.completion), 600) / 600)
    report = audit_reward(long, rows(), rounds=5)
    assert report.exploit is not None and report.exploit > 2.0
    assert len(report.attacks[0].example) == 300


def test_same_seed_same_report() -> None:
    """The search is drawn from the seed alone."""
    one, other = (audit_reward(SalesVerifiableReward(), rows(4), rounds=4, seed=5) for _ in range(2))
    assert one == other


def test_rewards_that_cannot_be_audited_are_told() -> None:
    """No rows, a reward that abstains from everything, and one that cannot tell honest from empty."""
    with pytest.raises(RewardError, match="needs rows"):
        audit_reward(SalesVerifiableReward(), [])
    with pytest.raises(RewardError, match="judges none"):
        audit_reward(final_number_reward("gold"), rows())
    assert audit_reward(RuleReward("same", lambda sample: 0.5), rows(), rounds=0).exploit is None


def test_a_hidden_forbidden_word_must_cost_as_much() -> None:
    """R24: evasion is 0 where every spelling is seen, 1 where none is, None where words are free."""
    naive = RuleReward(
        "naive", lambda sample: 0.0 if "垃圾" in sample.completion else len(sample.completion) > 0
    )
    strict = RuleReward(
        "strict", lambda sample: 0.0 if "圾" in sample.completion else len(sample.completion) > 0
    )
    blind = RuleReward("blind", lambda sample: len(sample.completion) > 0)
    found = [
        audit_reward(reward, rows(4), rounds=0, forbidden=["垃圾"]).evasion
        for reward in (naive, strict, blind)
    ]
    assert found == [1.0, 0.0, None]
    assert audit_reward(naive, rows(4), rounds=0).evasion is None


def test_gold_answers_and_slots_are_attacked() -> None:
    """R20: a reward that looks for the gold answer anywhere is found out; a strict one pays none of it."""
    loose = RuleReward("loose", lambda sample: str(sample.prompt.columns["answer"]) in sample.completion)
    report = audit_reward(loose, rows(), rounds=0)
    paid = {attack.name: attack.mean for attack in report.attacks}
    assert report.exploit == 1.0
    for name in (
        "several boxes",
        "a list with the right one",
        "the answer is not",
        "only thought",
        "box not closed",
    ):
        assert paid[name] == 1.0, name
    named = RuleReward("named", lambda sample: sample.prompt.text.split()[2] in sample.completion)
    slots = {attack.name: attack.mean for attack in audit_reward(named, rows(), rounds=0).attacks}
    assert slots["template with the name"] == 1.0 and slots["keywords"] < 0.5


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 above the threshold; the table and the file say why."""
    file = tmp_path / "audit.json"
    assert main(["rewards", "audit", "sales", "--rounds", "2", "--json", str(file)]) == 1
    assert "above the threshold" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["exploit"] > 0.5 and found["attacks"][0]["example"]
    assert main(["rewards", "audit", "sales", "--rounds", "0", "--threshold", "9"]) == 0
