"""On a CUDA device: packed training through flash attention gives the padded path's gradients."""

from __future__ import annotations

import pytest
import torch
from tests.properties.packed_groups import PACKED, PLAIN, objective_of, random_groups, small_model
from torch import Tensor
from torch.nn.functional import cosine_similarity

from trimtab.distributed.worker import WorkerSettings, policy_learner

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def gradient(settings: WorkerSettings, dtype: torch.dtype, seed: int) -> tuple[float, Tensor]:
    """Loss and all gradients as one vector, of GRPO with KL over random groups."""
    model, rows = small_model(dtype=dtype).cuda(), random_groups(seed)
    learner = policy_learner(model, settings)
    metrics = learner.forward_backward(rows, objective_of("grpo with KL", rows))
    if settings.packing:
        assert learner.model_pass.packer.fault is None  # type: ignore[attr-defined]
    grads = [grad.flatten().float() for grad in learner.optimizer.gradients.values()]
    return metrics["loss/total"], torch.cat(grads)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_packed_is_padded_on_a_gpu(dtype: torch.dtype, seed: int) -> None:
    """Issue 3, exactness: flash attention over packed rows (bf16), one mask (fp32)."""
    (plain_loss, plain), (loss, packed) = gradient(PLAIN, dtype, seed), gradient(PACKED, dtype, seed)
    if dtype == torch.float32:
        assert loss == pytest.approx(plain_loss, rel=1e-5, abs=1e-6)
        assert float((packed - plain).abs().max() / plain.abs().max()) < 2e-5
    else:
        # The padded bf16 gradient is itself off by rounding; both are compared with the fp32 one.
        exact = gradient(PLAIN, torch.float32, seed)[1]
        assert cosine_similarity(packed, exact, dim=0) > min(
            0.995, float(cosine_similarity(plain, exact, dim=0)) - 0.003
        )
