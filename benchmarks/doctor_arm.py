"""Replays runs through rl-doctor's live monitor; started by ``benchmarks/detectors.py``.

Standard input: one JSON object per line, {"records": [one dictionary per step], "check_every": n}. Standard
output: one JSON list per line, [step, detector, severity] for each finding that was announced.
"""

from __future__ import annotations

import json
import sys


def main() -> int:
    """Read runs, write findings."""
    from rl_doctor.live import LiveMonitor

    for line in sys.stdin:
        job = json.loads(line)
        found: list[list[object]] = []
        monitor = LiveMonitor(
            config={"algorithm": "grpo", "num_generations": 8},
            check_every=job["check_every"],
            on_finding=lambda finding: None,
        )
        for step, record in enumerate(job["records"]):
            for finding in monitor.log(record, step=step):
                found.append([step, finding.detector, finding.severity.name])
        for finding in monitor.check():  # a short run is judged at its end, at least
            found.append([len(job["records"]) - 1, finding.detector, finding.severity.name])
        if monitor._errored:
            found.append([-1, "error", "ERROR"])
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
