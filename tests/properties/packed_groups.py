"""Random groups as the sampler leaves them, and a small model to learn from them with and without packing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from tests.unit.trainers.systems import rl_config
from torch import Tensor

from trimtab.config import RLConfig
from trimtab.distributed.worker import LocalLearner, WorkerSettings, critic_learner, policy_learner
from trimtab.models.attention import register
from trimtab.models.value_head import build_critic
from trimtab.trainers.objectives import JointObjective, PolicyObjective, Supervised, ValueObjective
from trimtab.types import TrainBatch

VOCABULARY, LIMIT = 67, 9  # tokens; longest completion

PLAIN = WorkerSettings(learning_rate=1e-3, temperature=0.9, packing=False, skip_zero=False)
PACKED = WorkerSettings(learning_rate=1e-3, temperature=0.9)


@dataclass(frozen=True)
class Shape:
    """What the model looks like."""

    heads: int = 4
    kv_heads: int = 2
    is_tied: bool = True
    head_size: int = 8  # the compiled kernels want multiples of 16 (rotary: of 32)


def small_model(shape: Shape = Shape(), dtype: torch.dtype = torch.float32) -> Any:
    """Two layers of a Llama with attention that matters."""
    register()
    config = transformers.LlamaConfig(
        hidden_size=shape.head_size * shape.heads,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=VOCABULARY,
        max_position_embeddings=128,
        tie_word_embeddings=shape.is_tied,
    )
    config._attn_implementation = "trimtab"
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.075)  # wider ones blow rounding up: it is packing that is tested
    return model.to(dtype).eval()


def random_groups(seed: int) -> TrainBatch:
    """Two to four prompts, one to five completions each: empty ones, single tokens, duplicates, some cut at
    the limit, some with holes as in several turns, groups of equal rewards, rows whose reward abstained."""
    draw = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=draw))

    def tokens(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=draw).tolist()

    rows: list[tuple[list[int], list[bool], float]] = []
    for _ in range(number(2, 5)):
        prompt, is_equal = tokens(number(1, 12)), number(0, 3) == 0
        group: list[tuple[list[int], list[bool], float]] = []
        for _ in range(number(1, 6)):
            kind = number(0, 8)
            completion = tokens({0: 0, 1: 1, 2: LIMIT}.get(kind, number(2, LIMIT)))
            trained = [kind != 4 or bool(number(0, 2)) for _ in completion]
            if kind == 3 and group:
                completion, trained = group[-1][0][len(prompt) :], group[-1][1][len(prompt) :]
            if kind == 5:
                trained = [False] * len(completion)
            advantage = 0.0 if is_equal else float(torch.randn((), generator=draw))
            group.append((prompt + completion, [False] * len(prompt) + trained, advantage))
        rows += group
    width = max(len(row) for row, _, _ in rows)

    def padded(values: list[Any], fill: Any) -> list[Any]:
        return values + [fill] * (width - len(values))

    mask = torch.tensor([padded(trained, False) for _, trained, _ in rows])
    ids = torch.tensor([padded(row, 0) for row, _, _ in rows])

    def noise(scale: float) -> Tensor:
        return torch.randn(ids.shape, generator=draw) * scale * mask

    near = policy_learner(small_model(), PLAIN).logprobs(
        TrainBatch(ids, torch.ones_like(mask), mask, mask.float())
    )
    return TrainBatch(
        token_ids=ids,
        attention_mask=torch.tensor([padded([True] * len(row), False) for row, _, _ in rows]),
        completion_mask=mask,
        advantages=torch.tensor([advantage for _, _, advantage in rows])[:, None] * mask,
        rollout_logprobs=near + noise(0.05),
        sampling_logprobs=near + noise(0.3),
        old_logprobs=near + noise(0.3),
        ref_logprobs=near + noise(0.4),
        old_values=noise(0.5),
        returns=noise(1.0),
    )


# What is minimised, by name: settings of the recipe, and the coefficient of the KL in the loss.
OBJECTIVES: dict[str, tuple[dict[str, Any], float]] = {
    "grpo": ({"algorithm": "grpo"}, 0.0),
    "grpo with KL": ({"algorithm": "grpo"}, 0.1),
    "dapo with entropy": ({"algorithm": "dapo", "overlong": {"buffer": 2}, "entropy_coef": 0.05}, 0.0),
    "dr_grpo": ({"algorithm": "dr_grpo"}, 0.0),
    "cispo": ({"algorithm": "cispo"}, 0.0),
    "gspo": ({"algorithm": "gspo", "importance_correction": "sequence_mean"}, 0.1),
    "sequence mean": ({"algorithm": "grpo", "reduction": "sequence_mean", "entropy_coef": 0.05}, 0.0),
    "supervised": ({}, 0.0),
    "ppo, shared": ({"algorithm": "ppo"}, 0.0),
    "ppo, critic": ({"algorithm": "ppo"}, 0.0),
}


def recipe(name: str) -> RLConfig:
    """The settings of an objective."""
    return rl_config(**{"max_new_tokens": LIMIT, **OBJECTIVES[name][0]})


def objective_of(name: str, rows: TrainBatch) -> Any:
    """An objective with the denominators of ``rows``."""
    if name == "supervised":
        return Supervised(float(rows.completion_mask.sum()) or 1.0)
    policy = PolicyObjective.of(recipe(name), rows, OBJECTIVES[name][1])
    value = ValueObjective(0.2, 0.5, policy.num_tokens)
    return {"ppo, shared": JointObjective(policy, value), "ppo, critic": value}.get(name, policy)


def learner_of(name: str, settings: WorkerSettings, model: Any) -> LocalLearner:
    """A learner of the policy, of the policy with a value head, or of a critic."""
    if not name.startswith("ppo"):
        return policy_learner(model, settings)
    critic: Any = build_critic("shared" if name == "ppo, shared" else "separate", None, model)
    with torch.no_grad():
        critic.head.linear.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    return (
        policy_learner(model, settings, critic) if name == "ppo, shared" else critic_learner(critic, settings)
    )


Measured = tuple[dict[str, float], dict[str, Tensor]]


def measure(
    name: str,
    rows: TrainBatch,
    settings: WorkerSettings,
    shape: Shape = Shape(),
    dtype: torch.dtype = torch.float32,
) -> Measured:
    """Metrics and every parameter's gradient of one mini-batch."""
    learner = learner_of(name, replace(settings), small_model(shape, dtype))
    fields: dict[str, Any] = {field: getattr(rows, field) for field in rows.__slots__}
    fields |= {k: x.to(dtype) for k, x in fields.items() if x is not None and x.is_floating_point()}
    rows = TrainBatch(**fields)
    metrics = learner.forward_backward(rows, objective_of(name, rows))
    return metrics, {
        parameter: p.grad for parameter, p in learner.module.named_parameters() if p.grad is not None
    }


def gaps(one: Measured, other: Measured) -> tuple[float, float]:
    """How far loss and gradients of ``other`` are from those of ``one``.

    First the largest difference of any number over the largest number; then the norm of the difference over
    the norm (the measure of ``test_invariance``), where single roundings do not stand out. The difference of
    the losses is in both.
    """
    assert one[1].keys() == other[1].keys()
    name = "loss/total" if "loss/total" in one[0] else "loss/value"
    loss = abs(one[0][name] - other[0][name]) / max(1.0, abs(one[0][name]))
    first, second = (torch.cat([grad.double().flatten() for grad in m[1].values()]) for m in (one, other))
    difference = first - second
    largest = float(difference.abs().max()) / (float(first.abs().max()) or 1.0)
    return max(largest, loss), max(float(difference.norm()) / (float(first.norm()) or 1.0), loss)


def are_equal(one: Measured, other: Measured) -> bool:
    """Whether loss and gradients are the same but for fp32's rounding.

    1e-6 by the norm. A single number may be off by twice that of the largest one: so far the plain path is
    from itself when its rows come one by one, or from fp64.
    """
    largest, norm = gaps(one, other)
    return largest <= 2e-6 and norm <= 1e-6
