"""GRPO in one file: torch, transformers and `trimtab.functional`; no recipe, no run directory, no engine.

    python examples/grpo_single_file.py                                  # built-in model, one-digit sums
    python examples/grpo_single_file.py --model models/smollm2-135m-instruct --learning-rate 3e-6

Read it from the bottom up: `train` is the loop, `update` the optimizer step, and the mathematics is imported.
Left out on purpose, with where `trimtab run` has it: an engine that runs each prompt once for its whole group
(`rollout/native.py`), bf16 with fp32 masters (`models/optim.py`), top-p, checkpoints, records, guard and
evaluation.
"""

from __future__ import annotations

import argparse
import copy
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.functional import (
    advantages_from_groups,
    approx_kl,
    clipped_policy_loss,
    kl_estimate,
    kl_loss,
    logprobs_and_entropy,
    loss_denominator,
    masked_mean,
    reduce_loss,
)

# (logprobs, old_logprobs, advantages [B], mask) -> loss per token [B, T]; `custom_loss.py` passes its own.
PolicyLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """Every knob, with its default; each is an option of the command line."""

    model: str = str(files("trimtab") / "models" / "assets" / "tiny_zh")
    steps: int = 40
    num_prompts: int = 16  # different prompts per step
    num_generations: int = 8  # completions per prompt: the group
    max_new_tokens: int = 6
    temperature: float = 1.0
    learning_rate: float = 5e-5  # for the built-in model of four million parameters; a real one wants 3e-6
    kl_coef: float = 0.001
    clip_ratio: float = 10.0
    num_updates: int = 1  # optimizer steps on each batch; from the second on the ratio is not 1
    microbatch_size: int = 64  # rows per forward pass; does not change the result
    seed: int = 42


@dataclass(frozen=True)
class Batch:
    """Completions of one step: prompts padded on the left, completions on the right."""

    token_ids: Tensor  # [B, T]
    attention_mask: Tensor  # [B, T] bool
    mask: Tensor  # [B, T] bool: completion tokens, end token included
    advantages: Tensor  # [B]
    old_logprobs: Tensor  # [B, T] of the policy that sampled
    ref_logprobs: Tensor  # [B, T] of the frozen reference


def problems(rng: random.Random, count: int) -> list[tuple[str, int]]:
    """Questions and answers: sums of two digits."""
    pairs = [(rng.randint(0, 9), rng.randint(0, 9)) for _ in range(count)]
    return [(f"计算：{a}+{b}=？", a + b) for a, b in pairs]


def reward(completion: str, answer: int) -> float:
    """1 for the right number and nothing else; up to 0.5 for a number that is near; 0 for no number."""
    if not re.fullmatch(r"\d{1,3}", completion.strip()):
        return 0.0
    error = abs(int(completion) - answer)
    return 1.0 if error == 0 else max(0.0, 0.5 - error / 20)


@torch.no_grad()
def sample(
    model: Any, tokenizer: Any, questions: Sequence[str], settings: Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample a group for each question: token ids, attention mask and completion mask, ``[B, T]`` each."""
    chats = [[{"role": "user", "content": question}] for question in questions]
    prompts = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    token_ids = model.generate(
        **prompts,
        do_sample=True,
        temperature=settings.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=settings.max_new_tokens,
        num_return_sequences=settings.num_generations,
        pad_token_id=tokenizer.pad_token_id,
    )
    width = prompts["input_ids"].shape[1]
    ends = torch.isin(token_ids, torch.tensor(model.generation_config.eos_token_id).flatten())
    ends[:, :width] = False
    # A token belongs to the completion when no end token comes before it: the end itself is trained.
    mask = ends.long().cumsum(dim=1) - ends.long() == 0
    mask[:, :width] = False
    attention = prompts["attention_mask"].bool().repeat_interleave(settings.num_generations, dim=0)
    return token_ids, torch.cat([attention, mask[:, width:]], dim=1), mask


def token_scores(
    model: Any, token_ids: Tensor, attention_mask: Tensor, mask: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of the completion tokens, ``[B, T]``, aligned to ``token_ids``."""
    positions = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
    logits = model(input_ids=token_ids, attention_mask=attention_mask.long(), position_ids=positions).logits
    # Position t − 1 predicts token t. The temperature is the sampler's: the ratio compares like with like.
    logprobs, entropy = logprobs_and_entropy(logits[:, :-1], token_ids[:, 1:], temperature)
    blank = torch.zeros(len(token_ids), 1)
    logprobs, entropy = torch.cat([blank, logprobs], dim=1), torch.cat([blank, entropy], dim=1)
    return logprobs * mask, entropy * mask


def collect(
    model: Any, reference: Any, tokenizer: Any, rng: random.Random, settings: Settings
) -> tuple[Batch, dict[str, float]]:
    """Sample and score one step's groups; return the batch and what is worth printing of it."""
    tasks = problems(rng, settings.num_prompts)
    rows = sample(model, tokenizer, [question for question, _ in tasks], settings)
    token_ids, _, mask = rows
    texts = [
        tokenizer.decode(ids[m], skip_special_tokens=True) for ids, m in zip(token_ids, mask, strict=True)
    ]
    answers = [answer for _, answer in tasks for _ in range(settings.num_generations)]
    rewards = torch.tensor([reward(text, answer) for text, answer in zip(texts, answers, strict=True)])
    group_ids = torch.arange(len(rewards)) // settings.num_generations
    is_valid = torch.ones(len(rewards), dtype=torch.bool)  # no reward abstains here
    advantages = advantages_from_groups(rewards, is_valid, group_ids, "group_mean", "group_std")
    with torch.no_grad():
        old, _ = token_scores(model, *rows, settings.temperature)
        ref, _ = token_scores(reference, *rows, settings.temperature)
    kl = float(masked_mean(kl_estimate(old, ref, "k3", mask=mask), mask))
    figures = {"reward": float(rewards.mean()), "right": float((rewards == 1).float().mean()), "kl": kl}
    return Batch(*rows, advantages, old, ref), figures


def update(
    model: Any, optimizer: torch.optim.Optimizer, batch: Batch, settings: Settings, policy_loss: PolicyLoss
) -> float:
    """One optimizer step over the whole batch, micro-batch by micro-batch; return approx_kl after sampling.

    The denominator is that of the whole batch, so the size of the micro-batches changes nothing.
    """
    denominator = loss_denominator(batch.mask, "token_mean")
    logprobs = []
    for part in torch.arange(len(batch.token_ids)).split(settings.microbatch_size):
        inputs = batch.token_ids[part], batch.attention_mask[part], batch.mask[part]
        current, _ = token_scores(model, *inputs, settings.temperature)
        old, ref, mask = batch.old_logprobs[part], batch.ref_logprobs[part], batch.mask[part]
        per_token = policy_loss(current, old, batch.advantages[part], mask)
        per_token = per_token + settings.kl_coef * kl_loss(current, ref, "k3", old, mask=mask)
        reduce_loss(per_token, mask, "token_mean", denominator).backward()
        logprobs.append(current.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return approx_kl(torch.cat(logprobs), batch.old_logprobs, batch.mask)


def factor_clip(clip_ratio: float) -> PolicyLoss:
    """GRPO's loss with the ratio kept in [1/c, c]."""

    def loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        return clipped_policy_loss(logprobs, old_logprobs, advantages, mask, clip_ratio=clip_ratio)

    return loss


def train(settings: Settings, policy_loss: PolicyLoss | None = None) -> list[dict[str, float]]:
    """Train on sums and return the figures of every step."""
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(settings.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32).eval()  # no dropout
    reference = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    history = []
    for step in range(settings.steps):
        batch, figures = collect(model, reference, tokenizer, rng, settings)
        for _ in range(settings.num_updates):
            figures["approx_kl"] = update(
                model, optimizer, batch, settings, policy_loss or factor_clip(settings.clip_ratio)
            )
        history.append(figures)
        print(f"step {step + 1:3}  " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    return history


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from the command line; every field is an option."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in vars(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return Settings(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    train(parse_settings())
