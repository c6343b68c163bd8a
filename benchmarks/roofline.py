"""What this machine could do: the ceilings of matmul and memory, and the rooflines that follow for a model.

    python benchmarks/roofline.py --json benchmarks/results/roofline.json

Every linear layer and the head are measured in bf16 and fp32 at the rows of a decode step and of a training
batch. The rooflines say how fast sampling and training would be if nothing else took time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from benchmarks.machine import about, parser_of, save, settle

from trimtab.models.roofline import (
    Ceilings,
    ModelShape,
    Workload,
    measure_ceilings,
    rollout_roofline,
    shape_from,
    training_ceiling,
    training_flops,
    training_roofline,
)


def rooflines(shape: ModelShape, ceilings: Ceilings, work: Workload, train_rows: int) -> dict[str, float]:
    """The figures of one precision: tokens per second, FLOPs and the ceiling of training."""
    return {
        "rollout_tokens_per_s": rollout_roofline(shape, ceilings, work),
        "train_tokens_per_s": training_roofline(shape, ceilings, work, train_rows),
        "train_seconds": work.distinct / training_roofline(shape, ceilings, work, train_rows),
        "train_flops": training_flops(shape, work),
        "train_ceiling_flops": training_ceiling(shape, ceilings, work, train_rows),
    }


def main() -> int:
    """Measure, print, write; return the exit code."""
    parser = parser_of(__doc__)
    parser.add_argument("--train-rows", type=int, default=2048, help="rows of a training micro-batch (2048)")
    args = parser.parse_args()
    model = settle(args)
    shape = shape_from(model)
    work = Workload(args.prompts, args.generations, args.prompt_tokens, args.new_tokens)
    results: dict[str, Any] = about(args, model)
    results["workload"] = {
        "prompts": args.prompts,
        "generations": args.generations,
        "prompt_tokens": args.prompt_tokens,
        "new_tokens": args.new_tokens,
        "train_rows": args.train_rows,
    }
    for dtype in (torch.bfloat16, torch.float32):
        rows = [work.rows, args.train_rows]
        ceilings = measure_ceilings(shape, rows, dtype, args.device, 0.05 if args.quick else 0.3)
        figures = rooflines(shape, ceilings, work, args.train_rows)
        results[ceilings.dtype] = {"ceilings": ceilings.as_dict(), "roofline": figures}
        print(f"{ceilings.dtype} on {ceilings.device}: memory {ceilings.read_bytes_per_s / 1e9:.0f} GB/s")
        for (count, inputs, outputs), rate in ceilings.products.items():
            print(f"  {count:>6} x {inputs} x {outputs:<7} {rate / 1e9:10.0f} GFLOP/s")
        print(f"  rollout {figures['rollout_tokens_per_s']:.0f} tokens/s at {work.rows} rows")
        print(f"  training {figures['train_tokens_per_s']:.0f} tokens/s, {figures['train_seconds']:.1f} s")
    save(results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
