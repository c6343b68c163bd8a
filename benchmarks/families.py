"""Every family of causal language models that transformers has, tiny and random, through loader to engine.

    python -m benchmarks.families                    # all of them; prints the table of docs/models.md
    python -m benchmarks.families llama bloom mamba  # some

A family is built, saved, and loaded twice: by transformers alone, and by us. What ours says of a row is
compared with what the untouched module says of that row alone: plainly, beside other rows, packed, padded on
either side, in train mode, by the sampling engine, and in the gradients. Or it is refused, in one sentence.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from benchmarks.family_configs import FAMILIES, tiny_config, tiny_tokenizer
from torch import Tensor

from trimtab.config.model import ModelConfig
from trimtab.distributed.passes import PolicyPass, WorkerSettings
from trimtab.errors import TrimtabError
from trimtab.models.attention_proof import proof_of
from trimtab.models.forward import accepted
from trimtab.models.load import load_causal_lm
from trimtab.rollout.engine import SamplingParams, build_engine
from trimtab.types import TrainBatch

TOLERANCE = 1e-5  # nats, in fp32
GRADIENT_TOLERANCE = 1e-4  # of the gradient's size
Row = tuple[list[int], list[int]]  # prompt and completion


@dataclass(slots=True)
class Finding:
    """What was found of one family. Gaps are the largest, in nats."""

    family: str
    refusal: str | None = None  # the sentence
    fault: str | None = None  # what went wrong, and may not
    attention: str = ""
    rows: str = ""  # packed or padded
    engine: str = ""
    gaps: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    why: str = ""  # where it is slower than it could be

    @property
    def is_right(self) -> bool:
        """Whether the family runs and says what it should, or is refused."""
        if self.fault is not None:
            return False
        limit = {"gradient": GRADIENT_TOLERANCE}
        return all(gap <= limit.get(name, TOLERANCE) for name, gap in self.gaps.items())


def examine(family: str, directory: Path) -> Finding:
    """Build, save, load and compare one family; its files are left in ``directory``."""
    from transformers import AutoModelForCausalLM

    found = Finding(family)
    torch.manual_seed(0)
    try:
        built = AutoModelForCausalLM.from_config(tiny_config(family)).eval()
        draw_wide(built)
        built.save_pretrained(directory)
    except Exception as error:
        found.fault = f"not built: {type(error).__name__}: {error}".splitlines()[0][:200]
        return found
    tiny_tokenizer().save_pretrained(directory)
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            loaded = load_causal_lm(directory, dtype="float32", device="cpu")
    except TrimtabError as error:
        found.refusal = str(error).replace(str(directory), "its folder")
        return found
    plain = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    proof = proof_of(loaded)
    assert proof is not None
    found.attention = "ours" if proof.cause is None else f"own ({proof.in_use})"
    found.why = proof.cause or ""
    try:
        _compare(found, plain, loaded, directory)
    except TrimtabError as error:
        found.refusal = str(error)
    except Exception as error:
        found.fault = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return found


def draw_wide(model: Any) -> None:
    """Draw weights so wide that a wrong mask or position shows."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and not name.endswith(("A_log", "conv1d.weight")):
                parameter.normal_(std=0.15)


def _compare(found: Finding, plain: Any, loaded: Any, directory: Path) -> None:
    rows, gaps = _rows(int(loaded.config.get_text_config().vocab_size)), found.gaps
    right = [plain_logprobs(plain, row) for row in rows]
    batch = make_batch(rows)
    for packing in (True, False):
        learner = PolicyPass(loaded, WorkerSettings(learning_rate=1e-4, packing=packing))
        if packing:
            found.rows = "packed" if learner.packer.fault is None else "padded"
            found.why = found.why or learner.packer.fault or ""
        name = "packed" if packing and found.rows == "packed" else "padded"
        with torch.no_grad():
            gaps[name] = _gap(learner.scores(batch).logprobs, batch, right)
    learner = PolicyPass(loaded, WorkerSettings(learning_rate=1e-4))
    with torch.no_grad():
        gaps["alone"] = max(
            _gap(learner.scores(one).logprobs, one, [want])
            for one, want in ((make_batch([row]), want) for row, want in zip(rows, right, strict=True))
        )
        left = make_batch(rows, "left")
        gaps["left"] = _gap(learner.scores(left).logprobs, left, right)
        gaps["causal"] = _causal_gap(loaded, rows[1])
    gaps["train"] = _train_gap(found, directory, batch, right)
    gaps["gradient"] = _gradient_gap(plain, loaded, batch, rows)
    gaps["engine"] = _engine_gap(found, plain, loaded, rows)


def _train_gap(found: Finding, directory: Path, batch: TrainBatch, right: Sequence[Tensor]) -> float:
    """In train mode, with gradient checkpointing; 0 where that is refused."""
    config = ModelConfig(gradient_checkpointing=True)
    try:
        with warnings.catch_warnings(record=True):
            model = load_causal_lm(directory, config, dtype="float32", device="cpu")
    except (TrimtabError, ValueError) as error:
        found.notes.append(str(error))
        return 0.0
    model.train()
    with torch.no_grad():
        learner = PolicyPass(model, WorkerSettings(learning_rate=1e-4))
        return _gap(learner.scores(batch).logprobs, batch, right)


def _rows(vocabulary: int) -> list[Row]:
    """Three rows: two of one prompt, and a longer one; longer than every window of the tiny configs."""
    generator = torch.Generator().manual_seed(1)

    def draw(count: int) -> list[int]:
        return torch.randint(5, min(vocabulary, 150), (count,), generator=generator).tolist()

    prompt = draw(7)
    return [(prompt, draw(9)), (prompt, draw(6)), (draw(13), draw(11))]


def plain_logprobs(model: Any, row: Row, *, with_gradient: bool = False) -> Tensor:
    """What the untouched module says of each completion token, ``[len(completion)]``, the row alone."""
    prompt, completion = row
    forget_lengths(model)
    with torch.set_grad_enabled(with_gradient):
        ids = torch.tensor([prompt + completion])
        logits = model(ids, **accepted(model, use_cache=False)).logits[0].float()
    scores = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
    return scores.gather(1, torch.tensor(completion)[:, None])[:, 0]


def forget_lengths(model: Any) -> None:
    """Nothing that transformers remembers of a row before may count: dynamic tables start anew."""
    for module in model.modules():
        first = getattr(module, "original_inv_freq", None)
        if first is None:
            continue
        if first is module.inv_freq or first.data_ptr() == module.inv_freq.data_ptr():
            module.original_inv_freq = first.clone()  # transformers 5.24 writes over the one in use
        module.register_buffer("inv_freq", module.original_inv_freq.clone(), persistent=False)
        module.max_seq_len_cached = module.original_max_seq_len


def make_batch(rows: Sequence[Row], side: str = "right") -> TrainBatch:
    """The rows as one batch, padded on one side; advantages 1 and −1 in turn."""
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    present, trained = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for number, (prompt, completion) in enumerate(rows):
        length = len(prompt) + len(completion)
        start = 0 if side == "right" else width - length
        ids[number, start : start + length] = torch.tensor(prompt + completion)
        present[number, start : start + length] = True
        trained[number, start + len(prompt) : start + length] = True
    signs = torch.tensor([1.0, -1.0]).repeat(len(rows))[: len(rows), None]
    return TrainBatch(ids, present, trained, trained * signs)


def _gap(logprobs: Tensor, batch: TrainBatch, right: Sequence[Tensor]) -> float:
    return float((logprobs[batch.completion_mask] - torch.cat(list(right))).abs().max())


def _causal_gap(loaded: Any, row: Row) -> float:
    """How far the last token moves what is said before it."""
    ids = torch.tensor([row[0] + row[1]] * 2)
    ids[1, -1] = 5 if int(ids[0, -1]) != 5 else 6
    one, other = (torch.log_softmax(loaded(ids[i : i + 1]).logits[0, :-1].float(), -1) for i in (0, 1))
    return float((one - other).abs().max())


def _gradient_gap(plain: Any, loaded: Any, batch: TrainBatch, rows: Sequence[Row]) -> float:
    """A policy-gradient pass: the difference of all gradients, relative to their size."""
    learner = PolicyPass(loaded, WorkerSettings(learning_rate=1e-4))
    (learner.scores(batch).logprobs * batch.advantages).sum().backward()
    for row, advantages in zip(rows, batch.advantages, strict=True):
        (
            plain_logprobs(plain, row, with_gradient=True).sum()
            * advantages.abs().max()
            * advantages.sum().sign()
        ).backward()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    ours = {name: p.grad for name, p in loaded.named_parameters() if p.grad is not None}
    size = sum(float(g.pow(2).sum()) for g in expected.values()) ** 0.5
    missing = torch.zeros(())
    gap = (
        sum(
            float((ours.get(name, missing) - expected.get(name, missing)).pow(2).sum())
            for name in expected | ours
        )
        ** 0.5
    )
    for model in (plain, loaded):
        model.zero_grad()
    return gap / size if size > 0 else float("inf")


def _engine_gap(found: Finding, plain: Any, loaded: Any, rows: Sequence[Row]) -> float:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine = build_engine(loaded, tiny_tokenizer())
    inner = getattr(engine, "inner", engine)
    found.engine = type(inner).__name__.removesuffix("Engine").lower()
    ways = getattr(inner, "ways", None)
    if ways is not None and not ways.caches:
        found.engine += ", without a cache"
    elif ways is not None and not ways.pads and inner is engine:
        found.engine += ", equal lengths together"
    if caught and not found.why:
        found.why = str(caught[-1].message)
    prompts = [rows[0][0], rows[2][0]]
    groups = engine.generate(prompts, 2, SamplingParams(max_new_tokens=10, seed=3))
    gaps = []
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            want = plain_logprobs(plain, (prompt, list(completion.token_ids)))
            gaps.append(float((torch.tensor(completion.logprobs) - want).abs().max()))
    return max(gaps)


def run(families: Sequence[str]) -> Iterator[Finding]:
    """Examine families one after another."""
    for family in families:
        with tempfile.TemporaryDirectory() as directory:
            yield examine(family, Path(directory))


def line(found: Finding) -> str:
    """One line of the table."""
    if found.fault or found.refusal:
        said = f"**fault** | | | | {found.fault}" if found.fault else f"refused | | | | {found.refusal}"
        return f"| {found.family} | {said} |"
    gap = max((gap for name, gap in found.gaps.items() if name != "gradient"), default=0.0)
    verdict = f"{gap:.0e}" if found.is_right else f"**{worst(found)}**"
    return f"| {found.family} | {found.attention} | {found.rows} | {found.engine} | {verdict} | {found.why} |"


def worst(found: Finding) -> str:
    """The gaps that are too wide."""
    limit = {"gradient": GRADIENT_TOLERANCE}
    return ", ".join(f"{n} {g:.1e}" for n, g in found.gaps.items() if not g <= limit.get(n, TOLERANCE))


HEAD = (
    "| family | attention | rows | engine | largest gap, nats | why it is slower, or refused |\n"
    "|---|---|---|---|---|---|"
)


def main(arguments: Sequence[str]) -> int:
    """Print the table; 1 where a family is wrong."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    print(HEAD)
    wrong = 0
    for found in run(arguments or FAMILIES):
        wrong += not found.is_right
        print(line(found), flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
