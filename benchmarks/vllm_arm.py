"""vLLM in an environment of its own: standard library and vllm only. Requests: ``sample``, ``memory``.

The options are vLLM's defaults but for what makes the work equal: the type, the lengths, no text. Prefix
caching stays on, so a prompt runs once for its group; the cache is emptied between repeats, which would
otherwise find their prompts there. Log-probabilities, which our engine returns, are not asked for.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any


def main() -> int:
    """Load the model, then answer requests until the parent goes."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    spec = json.loads(sys.argv[1])
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    start = time.perf_counter()
    import vllm

    longest = spec["max_length"]
    llm = vllm.LLM(model=spec["model"], dtype=spec["dtype"], max_model_len=longest, seed=spec["seed"])

    def reply(data: dict[str, Any]) -> None:
        pipe.write(json.dumps(data) + "\n")
        pipe.flush()

    reply({"ready": True, "version": vllm.__version__, "startup_seconds": time.perf_counter() - start})
    for line in sys.stdin:
        request = json.loads(line)
        reply(sample(llm, request) if request["do"] == "sample" else {"peak_bytes": peak_bytes()})
    return 0


def sample(llm: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Sample a group for each prompt; return seconds and the number of tokens."""
    from vllm import SamplingParams

    new_tokens = request["new_tokens"]
    params = SamplingParams(
        n=request["num_generations"],
        temperature=1.0,
        top_p=1.0,
        max_tokens=new_tokens,
        min_tokens=new_tokens if request["is_forced"] else 0,
        ignore_eos=request["is_forced"],
        detokenize=False,
    )
    llm.reset_prefix_cache()
    start = time.perf_counter()
    prompts = [{"prompt_token_ids": ids} for ids in request["prompts"]]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "tokens": sum(len(o.token_ids) for out in outputs for o in out.outputs)}


def peak_bytes() -> int:
    """The largest resident size among this process and its children."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024


if __name__ == "__main__":
    raise SystemExit(main())
