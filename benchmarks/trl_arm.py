"""TRL's GRPO step in a process of its own. Requests: ``step``, ``memory``.

The trainer's own loop runs, dataset, sampler and callbacks included; a callback waits for a request before
each step and replies after it, so a step is what TRL itself calls one.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import peak_bytes
from benchmarks.process import open_replies, requests
from benchmarks.workload import PLAIN_TEMPLATE, StepSpec, make_prompts


@dataclass(frozen=True, slots=True)
class Variant:
    """How TRL is set up: mixed precision, checkpointing, the cache of ``generate``, the parameters' dtype."""

    is_bf16: bool | None = False  # None: what TRL does unasked on this device
    checkpointing: bool = True
    cache: str | None = None
    weights: str = "float32"


# ``float32`` is the gate's; ``default`` is what TRL does unasked: fp32 on a CPU, bf16 on an accelerator.
# ``bf16_weights`` keeps no fp32 masters, so it is not the same training; it is there for the speed alone.
VARIANTS: dict[str, Variant] = {
    "float32": Variant(checkpointing=False),
    "default": Variant(is_bf16=None),
    "tuned": Variant(is_bf16=True, checkpointing=False),
    "tuned_static": Variant(is_bf16=True, checkpointing=False, cache="static"),
    "bf16_weights": Variant(is_bf16=True, checkpointing=False, weights="bfloat16"),
}


def options_of(spec: StepSpec, variant: Variant) -> dict[str, Any]:
    """The arguments of ``GRPOConfig``: ours in every key that changes the result."""
    rows = spec.num_prompts * spec.num_generations
    size = min(spec.microbatch_size, rows)
    on_cpu = spec.device == "cpu"
    return {
        "output_dir": tempfile.mkdtemp(prefix="trimtab-bench-trl-"),
        "use_cpu": on_cpu,
        "bf16": not on_cpu if variant.is_bf16 is None else variant.is_bf16,
        "gradient_checkpointing": variant.checkpointing,
        "cache_implementation": variant.cache,
        "model_init_kwargs": {"dtype": variant.weights},
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": rows // size,
        "num_generations": spec.num_generations,
        "max_completion_length": spec.new_tokens,
        "generation_kwargs": {"min_new_tokens": spec.new_tokens},
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "beta": spec.beta,
        "loss_type": "dapo",
        "epsilon": 0.2,
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "max_steps": 1_000_000,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "shuffle_dataset": False,
        "dataloader_pin_memory": False,
        "seed": spec.seed,
    }


def build_trainer(spec: StepSpec, options: dict[str, Any], callbacks: Sequence[Any] = ()) -> Any:
    """TRL's trainer on the spec's model and prompts, with random rewards."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    if spec.threads:
        torch.set_num_threads(spec.threads)
    tokenizer = AutoTokenizer.from_pretrained(spec.model, local_files_only=True)
    tokenizer.chat_template = PLAIN_TEMPLATE
    messages = make_prompts(tokenizer, [spec.prompt_tokens] * spec.num_prompts, spec.seed)
    rng = random.Random(spec.seed)

    def random_reward(completions: Sequence[Any], **_: Any) -> list[float]:
        return [rng.random() for _ in completions]

    return GRPOTrainer(
        model=spec.model,
        reward_funcs=random_reward,
        args=GRPOConfig(**options),
        train_dataset=Dataset.from_list([{"prompt": row} for row in messages]),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )


def main() -> int:
    """Train step by step as the parent asks, until it goes."""
    from transformers import TrainerCallback

    replies = open_replies()
    raw = json.loads(sys.argv[1])
    spec = StepSpec(**raw["step"])

    class OnRequest(TrainerCallback):
        """Waits before each step and reports after it."""

        def __init__(self) -> None:
            self.asked, self.start = requests(), 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for request in self.asked:
                if request["do"] == "step":
                    self.start = time.perf_counter()
                    return
                replies({"peak_bytes": peak_bytes(spec.device)})
            raise SystemExit(0)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if spec.device != "cpu":
                import torch

                torch.cuda.synchronize()
            seconds = time.perf_counter() - self.start
            tokens = spec.num_prompts * spec.num_generations * spec.new_tokens
            replies({"seconds": seconds, "tokens": tokens, "peak_bytes": peak_bytes(spec.device)})

    trainer = build_trainer(spec, options_of(spec, VARIANTS[raw["variant"]]), [OnRequest()])
    replies({"ready": True})
    trainer.train()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
