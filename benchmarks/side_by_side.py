"""A command alone and beside its copy: how much of its speed each keeps.

``python benchmarks/side_by_side.py -- trimtab bench MODEL``; the time of the whole command counts. For a run
give ``{}`` where the number of the copy belongs: ``-- trimtab run recipes/sales/demo.toml --output out{}``.
"""

from __future__ import annotations

import subprocess
import sys
import time


def seconds_of(command: list[str], copies: int) -> list[float]:
    """Start the copies at once; the seconds of each.

    Raises:
        SystemExit: one of them failed.
    """
    start = time.perf_counter()
    alive = {}
    for copy in range(copies):
        words = [word.replace("{}", f"{copies}{copy}") for word in command]
        alive[copy] = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    taken: dict[int, float] = {}
    while alive:
        for copy, process in list(alive.items()):
            if process.poll() is not None:
                taken[copy] = time.perf_counter() - start
                if process.returncode:
                    raise SystemExit(f"copy {copy} ended with exit code {process.returncode}")
                del alive[copy]
        time.sleep(0.02)
    return [taken[copy] for copy in sorted(taken)]


def main(words: list[str]) -> int:
    """Print both times; exit code 1 where a copy keeps less than 0.4 of the speed."""
    command = words[1:] if words[:1] == ["--"] else words
    if not command:
        raise SystemExit(str(__doc__))
    (alone,) = seconds_of(command, 1)
    beside = seconds_of(command, 2)
    shares = [alone / seconds for seconds in beside]
    print(f"alone {alone:.1f} s; side by side {', '.join(f'{s:.1f} s' for s in beside)}")
    print(f"share of the speed: {', '.join(f'{share:.2f}' for share in shares)} (wanted: 0.4 each)")
    return int(min(shares) < 0.4)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
