"""Run the tests that train as other processors, thread numbers and seeds would: ``python -m tests.matrix``.

Prints a table and ends with exit code 1 when a row is red. ``--all`` runs the default suite; further
arguments go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys

TRAINS = ["tests/learning", "tests/golden", "tests/faults/test_signals.py", "tests/unit/models"]
ROWS: dict[str, dict[str, str]] = {
    "as it is": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "AVX512_CORE": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX512_CORE_BF16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "plain torch": {"ATEN_CPU_CAPABILITY": "default"},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "no kernels": {"TRIMTAB_NO_KERNELS": "1"},
    "measured ways": {"TRIMTAB_CHOICES": "measure"},
    "other seeds": {"TRIMTAB_TEST_SEED_SHIFT": "100"},
}


def main(words: list[str]) -> int:
    """Run every row; return the exit code."""
    paths = ["tests"] if "--all" in words else TRAINS
    extra = [word for word in words if word != "--all"]
    is_red = False
    for name, settings in ROWS.items():
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "--no-header", *paths, *extra]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        is_red |= done.returncode != 0
        print(f"{name:<18} {'green' if done.returncode == 0 else 'RED'}", flush=True)
        for line in done.stdout.splitlines():
            if line.startswith(("FAILED", "ERROR")):
                print(f"    {line}", flush=True)
    return int(is_red)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
