"""The tests that train, on this machine as if it were others: ``python -m tests.matrix [--slow | --all]``.

A processor chooses kernels of oneDNN and ATen, and they and the number of threads decide the order of sums.
No test may depend on what one of them happens to round to, or on one seed. Each row is pytest in a process
of its own with the environment below; the exit code is 1 where a row fails. ``--row NAME`` runs single rows.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ("tests/learning", "tests/golden", "tests/faults", "tests/unit/pipeline", "tests/unit/trainers")
# Markers that pyproject.toml leaves out beside `slow`: they need something that may be missing.
SPECIAL = ("network", "browser", "ray", "vllm", "gpu", "peer")
ROWS: dict[str, dict[str, str]] = {
    "default": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "AVX512_CORE": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX512_CORE_BF16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "ATEN default": {"ATEN_CPU_CAPABILITY": "default"},
    "2 threads": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "no kernels": {"TRIMTAB_NO_KERNELS": "1"},
    "measured ways": {"TRIMTAB_CHOICES": "measure"},
    "seeds + 100": {"TRIMTAB_TEST_SEED_SHIFT": "100"},
    "seeds + 200": {"TRIMTAB_TEST_SEED_SHIFT": "200"},
}
LEARNING_ONLY = ("seeds + 100", "seeds + 200")  # the other tests do not read the variable
OWN = {name for row in ROWS.values() for name in row}


@dataclass(frozen=True, slots=True)
class Result:
    """What pytest said of a row; ``code`` is its exit code."""

    row: str
    passed: int
    failed: tuple[str, ...]
    seconds: float
    code: int

    @property
    def is_green(self) -> bool:
        """Whether tests ran, and all of them passed."""
        return self.code == 0 and self.passed > 0 and not self.failed


def environment_of(row: str) -> dict[str, str]:
    """The caller's environment with the settings of this row, and of no other one."""
    kept = {name: value for name, value in os.environ.items() if name not in OWN}
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **ROWS[row]}


def command_of(row: str, arguments: argparse.Namespace) -> list[str]:
    """pytest with as many processes as there are cores for the row's threads."""
    threads = int(environment_of(row)["OMP_NUM_THREADS"])
    processes = arguments.processes or max(1, len(os.sched_getaffinity(0)) // threads)
    paths = ["tests/learning"] if row in LEARNING_ONLY else ["tests"] if arguments.all else TRAINING
    command = [sys.executable, "-m", "pytest", "-n", str(processes if processes > 1 else 0), "-rfE", *paths]
    if arguments.slow:
        command += ["-m", " and ".join(f"not {name}" for name in SPECIAL)]
    return command


def result_of(row: str, output: str, seconds: float, code: int) -> Result:
    """Read pytest's summary.

    Example:
        >>> result_of("x", "FAILED a.py::b - AssertionError\\n1 failed, 7 passed in 3s", 3.0, 1).failed
        ('a.py::b',)
    """
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+(?:\[.*?\])?)(?= - |$)", output, re.MULTILINE)
    passed = re.findall(r"\b(\d+) passed", output)
    return Result(row, int(passed[-1]) if passed else 0, tuple(failed), seconds, code)


def run_row(row: str, arguments: argparse.Namespace) -> Result:
    """Run one row; what pytest says goes to the screen where it was asked for."""
    start = time.monotonic()
    done = subprocess.run(
        command_of(row, arguments),
        cwd=ROOT,
        env=environment_of(row),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    found = result_of(row, done.stdout, time.monotonic() - start, done.returncode)
    if arguments.verbose or (not found.is_green and not found.failed):  # it died, or found nothing to run
        print(done.stdout, flush=True)
    return found


def line_of(result: Result) -> str:
    """One row of the table."""
    state = "green" if result.is_green else "RED"
    ended = f" (exit code {result.code})" if result.code not in (0, 1) else ""
    return f"{result.row:<18}{result.passed:>8}{len(result.failed):>8}{result.seconds:>10.0f}  {state}{ended}"


def main() -> int:
    """Run the rows and print the table; 1 where one is red."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slow", action="store_true", help="the slow tests, too")
    parser.add_argument("--all", action="store_true", help="the whole suite, not only the tests that train")
    parser.add_argument("--row", action="append", choices=list(ROWS), metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--processes", type=int, metavar="N", help="of pytest at once (cores / threads)")
    parser.add_argument("--verbose", action="store_true", help="print what pytest says")
    arguments = parser.parse_args()
    print(f"{'row':<18}{'passed':>8}{'failed':>8}{'seconds':>10}", flush=True)
    results = []
    for row in arguments.row or ROWS:
        results.append(run_row(row, arguments))
        print(line_of(results[-1]), flush=True)
    for result in results:
        for name in result.failed:
            print(f"{result.row}: {name}")
    return int(not all(result.is_green for result in results))


if __name__ == "__main__":
    sys.exit(main())
