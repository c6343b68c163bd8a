"""Where and with what a benchmark ran: options that all scripts share, versions, models, memory, results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_MODEL = "smollm2-135m-instruct"
PACKAGES = ("trimtab", "torch", "transformers", "trl", "accelerate", "numpy", "scipy")

# hidden, layers, heads, key-value heads, intermediate, vocabulary: sizes of models that people use, with
# random weights, for machines that cannot fetch any.
CONFIGS: dict[str, tuple[int, ...]] = {
    "tiny": (64, 2, 4, 2, 128, 512),
    "135m": (576, 30, 9, 3, 1536, 49152),
    "0.5b": (896, 24, 14, 2, 4864, 151936),
    "1.5b": (1536, 28, 12, 2, 8960, 151936),
}


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", metavar="DIR", help=f"model directory (models/{DEFAULT_MODEL})")
    parser.add_argument("--random-model", metavar="HIDDEN,LAYERS[,HEADS,KV,INTERMEDIATE,VOCABULARY]")
    parser.add_argument("--config", choices=sorted(CONFIGS), help="a random model of a known size")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--threads", type=int, help="CPU threads (torch's own default)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--generations", type=int, default=8, help="completions per prompt (8)")
    parser.add_argument("--prompt-tokens", type=int, default=25)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--quick", action="store_true", help="fewer repeats: under 10 minutes")
    parser.add_argument("--json", metavar="FILE", help="write the results")
    return parser


def settle(args: argparse.Namespace) -> str:
    """Set the threads, and return the directory of the model under test (made first if it is a random one).

    Raises:
        SystemExit: there is no such model; the sentence says how to get one.
    """
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here: leave --device out, or use a machine that has one.")
    if args.config or args.random_model:
        sizes = CONFIGS[args.config] if args.config else sizes_of(args.random_model)
        return random_model(sizes, args.seed)
    known = [base / "models" / DEFAULT_MODEL for base in (Path(), ROOT)]
    wanted = [Path(args.model)] if args.model else known
    for path in wanted:
        if (path / "config.json").is_file():
            return str(path)
    raise SystemExit(
        f"There is no model at {wanted[0]}: run `trimtab models get {DEFAULT_MODEL}` first, or give "
        "--model DIR, or --config 0.5b for random weights."
    )


def sizes_of(text: str) -> tuple[int, ...]:
    """``"HIDDEN,LAYERS[,HEADS,KV,INTERMEDIATE,VOCABULARY]"`` as six numbers; what is left out follows.

    Raises:
        SystemExit: not two to six whole numbers.
    """
    try:
        given = [int(part) for part in text.split(",")]
        hidden, layers, *rest = given
    except ValueError:
        raise SystemExit(f"--random-model {text!r} must be whole numbers such as 896,24.") from None
    heads = rest[0] if rest else max(hidden // 64, 1)
    usual = [heads, max(heads // 4, 1), 4 * hidden, 32000]
    return (hidden, layers, *rest, *usual[len(rest) :])


def random_model(sizes: Sequence[int], seed: int) -> str:
    """Write a Llama of these sizes with random weights and one word per token; return its directory."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, heads, kv_heads, intermediate, vocabulary = sizes
    name = f"trimtab-bench-{'-'.join(map(str, sizes))}-{seed}"
    folder = Path(tempfile.gettempdir()) / name
    if (folder / "complete").is_file():
        return str(folder)
    config = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=intermediate,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # transformers leaves padding's embedding at zero, whose norm has no gradient
        model.get_input_embeddings().weight.normal_(std=config.initializer_range)
    model.to(torch.bfloat16).save_pretrained(folder)
    word_tokenizer(vocabulary).save_pretrained(folder)
    (folder / "complete").touch()
    return str(folder)


def word_tokenizer(vocabulary: int) -> Any:
    """A tokenizer whose tokens are the words ``w3``, ``w4``, ... after padding, beginning and end."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, vocabulary)}
    inner = Tokenizer(models.WordLevel(words, unk_token="w3"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return tokenizer


def peak_bytes(device: str = "cpu") -> int:
    """The most memory that this process has held so far: resident, or allocated on the accelerator."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def versions() -> dict[str, str]:
    """Versions of what takes part; packages that are missing are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine(device: str) -> dict[str, Any]:
    """Processor or accelerator, cores, threads, memory, and how busy the machine was."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {"processor": _processor(), "cores": cores, "threads": torch.get_num_threads()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    if hasattr(os, "getloadavg"):
        found["load_at_start"] = round(os.getloadavg()[0], 2)
    if device.startswith("cuda"):
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def about(args: argparse.Namespace, model: str) -> dict[str, Any]:
    """What belongs to every result: command, date, versions, machine, model."""
    return {
        "command": " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(args.device),
        "model": Path(model).name,
        "dtype": args.dtype,
    }


def save(results: dict[str, Any], file: str | None) -> None:
    """Write the results as JSON where a file was asked for."""
    if file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(results, indent=2, ensure_ascii=False)
        Path(file).write_text(text + "\n", encoding="utf-8")
        print(f"written to {file}")
