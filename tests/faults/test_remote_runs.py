"""Training goes on while a reward server is away, and ends at once where it never answers.

``python -m tests.faults.remote_runs`` prints it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .remote_runs import GARBAGE, Outcome, all_runs

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

SAID = {
    "dead": "ConnectError",
    "slow": "no answer within",
    "html": "no JSON (text/html",
    "nan": "not a finite number",
    "short": "values came back for",
    "strings": "not a number",
    "500": "HTTP 500",
    "truncated": "without sending complete message body",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_run_finishes_and_says_what_failed(tmp_path: Path) -> None:
    """R31, R19, A.10: what failed abstained with its cause, no failure became a value, and a server that
    answers nothing in the first step ends the run there."""
    steps = 4
    outcomes: dict[str, Outcome] = {outcome.name: outcome for outcome in all_runs(tmp_path, steps)}
    assert set(outcomes) == {"healthy", "dead", "killed", "slow", *GARBAGE}
    assert outcomes["healthy"].abstained == [0.0] * steps
    assert not outcomes["healthy"].errors
    for name, words in SAID.items():
        assert outcomes[name].abstained == [1.0], name
        assert any(words in error for error in outcomes[name].errors), outcomes[name].errors
        assert sum(outcomes[name].errors.values()) == 32
    killed = outcomes["killed"].abstained
    assert killed[:3] == [0.0] * 3 and max(killed) == 1.0
    assert all(0.0 <= share <= 1.0 for share in killed)
