"""Control arms: what replaces the reward, what is measured, and that nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.pipeline.tiny_recipe import VARIED, changed, tiny_tree

from trimtab.cli.main import main
from trimtab.errors import ConfigError
from trimtab.pipeline.control import (
    ArmResult,
    ControlReport,
    ControlReward,
    compare_rewards,
    for_control,
    refuse_overwriting,
)
from trimtab.rewards.rules import length
from trimtab.types import Prompt, Sample

PROMPT = Prompt("0", ({"role": "user", "content": "q"},))


def samples(*lengths: int) -> list[Sample]:
    return [Sample(PROMPT, "x" * n, token_ids=tuple(range(n))) for n in lengths]


def values(reward: ControlReward, rows: list[Sample]) -> list[float | None]:
    return [result.value for result in reward.score(rows)]


def test_what_the_arms_pay() -> None:
    """R21: coin flips of one seed, bounded length, and the batch's own rewards in another order."""
    rows = samples(*range(1, 65))
    coins = [values(ControlReward("random", length(), 8, seed), rows) for seed in (1, 1, 2)]
    assert coins[0] == coins[1] != coins[2]
    assert set(coins[0]) == {0.0, 1.0} and 20 < sum(v or 0 for v in coins[0]) < 44
    assert values(ControlReward("length", length(), 8, 1), samples(2, 8, 20)) == [0.25, 1.0, 1.0]
    real = [result.value for result in length(1, 4).score(rows)]
    shuffled = values(ControlReward("shuffled", length(1, 4), 8, 1), rows)
    assert shuffled != real and sorted(v or 0 for v in shuffled) == sorted(v or 0 for v in real)


def test_differences_are_paired_by_hand() -> None:
    """R21: gains of 0.5, 0.3 on two prompts: mean 0.4, error 0.1; abstentions are left out."""
    arm = compare_rewards("real", [0.0, 0.2, None], [0.5, 0.5, 1.0])
    assert (arm.num_prompts, arm.gain) == (2, pytest.approx(0.4))
    assert arm.error == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="abstained from every hidden answer"):
        compare_rewards("real", [None], [1.0])


def arm(name: str, gain: float, error: float = 0.01) -> ArmResult:
    return ArmResult(name, 0.2, 0.2 + gain, error, 50)


def test_the_verdict_divides_the_gain() -> None:
    """R21: of +0.40, +0.10 comes without the reward, so 75 % is its own; noise is said to be noise."""
    report = ControlReport(arm("real", 0.4), arm("random", 0.1))
    assert report.contribution == pytest.approx(0.75)
    assert "the reward itself contributes +0.300 ± 0.028 (75%)" in report.verdict
    assert "random arm gained +0.100" in report.verdict and "noise" not in report.verdict
    assert "does not show" in ControlReport(arm("real", 0.4), arm("random", 0.39)).verdict
    assert ControlReport(arm("real", 0.01, 0.1), arm("random", 0.0)).contribution is None
    assert "nothing to divide" in ControlReport(arm("real", 0.01, 0.1), arm("random", 0.0)).verdict


def test_the_recipes_own_places_are_safe(tmp_path: Path) -> None:
    """R21: an output that is, holds or lies in a place of the recipe is refused; arms write elsewhere."""
    recipe = changed(tiny_tree(tmp_path))
    for place in (tmp_path / "out", tmp_path / "out" / "run", tmp_path / "out" / "policy" / "x", tmp_path):
        with pytest.raises(ConfigError, match="would mix with"):
            refuse_overwriting(recipe, place)
    refuse_overwriting(recipe, tmp_path / "control")
    small = for_control(recipe, tmp_path / "control" / "random", 1)
    assert small.paths.sft == recipe.paths.sft
    assert small.rl is not None and small.rl.steps == 1
    assert small.paths.run == str(tmp_path / "control" / "random" / "run")


def test_the_command_runs_both_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R21: a table, a sentence and figures; files only under --output; the same again for the same seed."""
    tree = tiny_tree(tmp_path)
    lines = [
        f'name = "t"\nseed = 3\nthreads = 1\n[model]\npath = "{tree["model"]["path"]}"\ndtype = "float32"',
        f'[paths]\nrun = "{tmp_path}/own/run"\npolicy = "{tmp_path}/own/policy"',
        f'[rl]\ndata = "{tree["rl"]["data"]}"\nhidden_data = "{tree["rl"]["hidden_data"]}"',
        f'rewards = ["{VARIED}"]\nsteps = 2\nnum_prompts = 2\nnum_generations = 2\nmax_new_tokens = 8',
    ]
    recipe = tmp_path / "r.toml"
    recipe.write_text("\n".join(lines))
    found = []
    for name in ("a", "b"):
        out = ["--output", str(tmp_path / name), "--json", str(tmp_path / f"{name}.json")]
        assert main(["rewards", "control", str(recipe), "--arm", "length", "--steps", "1", *out]) == 0
        found.append(json.loads((tmp_path / f"{name}.json").read_text()))
    assert found[0] == found[1]
    assert [a["arm"] for a in found[0]["arms"]] == ["real", "length"]
    assert found[0]["arms"][0]["before"] == found[0]["arms"][1]["before"]
    shown = capsys.readouterr().out
    assert "hidden before" in shown and found[0]["verdict"] in shown
    assert not (tmp_path / "own").exists()
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"real", "length"}
    assert main(["rewards", "control", str(recipe), "--steps", "0"]) == 2
