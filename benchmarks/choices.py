"""Sampling and training with each way of computing forced, and with the measured one.

``python benchmarks/choices.py models/smollm2-135m-instruct``. Run it on a quiet machine.
"""

from __future__ import annotations

import os
import subprocess
import sys

WAYS = ("own", "onednn", "torch", "measured")


def main(words: list[str]) -> int:
    """Show ``trimtab bench`` under every setting, then ``trimtab doctor``."""
    for way in WAYS:
        print(f"TRIMTAB_CHOICE={way}", flush=True)
        command = [sys.executable, "-m", "trimtab.cli", "bench", *words]
        if subprocess.run(command, env={**os.environ, "TRIMTAB_CHOICE": way}).returncode:
            return 1
    environment = {**os.environ, "TRIMTAB_CHOICE": "measured"}
    return subprocess.run([sys.executable, "-m", "trimtab.cli", "doctor"], env=environment).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
