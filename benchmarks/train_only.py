"""Training speed alone: a fixed batch through forward, backward and optimizer step, again and again.

    python benchmarks/train_only.py --json benchmarks/results/train_only.json

Tokens are those that must be computed: every completion token, and each prompt once for its group. Operations
are six per weight and token (the head on completion tokens only) and those of attention. The ceiling is what
the model's own matrix products reach in bf16 at the rows of a training batch, weighted by their share of the
work, measured in the same process before and after.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import about, parser_of, save, settle
from benchmarks.process import ArmProcess
from benchmarks.ratios import middle
from benchmarks.workload import step_of

from trimtab.models.roofline import Workload, shape_from, training_flops


def main() -> int:
    """Measure, print, write; return the exit code."""
    parser = parser_of(__doc__)
    parser.add_argument("--train-rows", type=int, default=2048, help="rows of the ceiling (2048)")
    parser.add_argument("--repeats", type=int, help="steps that are timed (7; 3 with --quick)")
    args = parser.parse_args()
    model = settle(args)
    results, shape = about(args, model), shape_from(model)
    work = Workload(args.prompts, args.generations, args.prompt_tokens, args.new_tokens)
    spec = step_of(args, model)
    bracket = {"do": "ceilings", "rows": [args.train_rows], "seconds": 0.05 if args.quick else 0.3}
    with ArmProcess("ours", "ours_arm.py", spec.as_dict()) as arm:
        before = arm(bracket)
        replay = arm({"do": "replay", "repeats": args.repeats or (3 if args.quick else 7)})
        after = arm(bracket)
    seconds, flops = middle(replay["seconds"]), training_flops(shape, work)
    ceiling = max(reply["roofline"]["train_ceiling_flops"] for reply in (before, after))
    results = {
        "train_tokens_per_s": work.distinct / seconds,
        "flops_per_s": flops / seconds,
        "ceiling_flops_per_s": ceiling,
        "ceiling_fraction": flops / seconds / ceiling,
        "seconds": replay["seconds"],
        "tokens": work.distinct,
        "flops": flops,
        "peak_bytes": replay["peak_bytes"],
        "brackets": [before, after],
    } | results
    print(f"{results['train_tokens_per_s']:.0f} tokens/s, {flops / seconds / 1e9:.0f} GFLOP/s")
    print(f"{results['ceiling_fraction']:.1%} of the ceiling of {ceiling / 1e9:.0f} GFLOP/s")
    save(results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
