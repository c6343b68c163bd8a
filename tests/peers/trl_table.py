"""Our mathematics against TRL's own code on random tensors: ``python -m tests.peers.trl_table``.

Prints losses and gradients in fp32 and fp64, gradients relative to their largest entry;
``test_trl_losses.py`` asserts them.
"""

from __future__ import annotations

import torch

from trimtab.functional import advantages_from_groups

from .trl_advantages import our_inputs, trl_advantages
from .trl_cases import cases

TRL_EPS = 1e-4  # what TRL adds to the standard deviation; ours is 1e-6 unless told otherwise


def advantage_difference(trl_scale: str, our_scale: str, eps: float = TRL_EPS) -> float:
    """Largest difference of GRPO's advantages; one reward abstains and one group has no variance."""
    ours = advantages_from_groups(*our_inputs(), "group_mean", our_scale, eps)
    return float((ours - trl_advantages(trl_scale)).abs().max())


def table() -> str:
    """The largest differences, one line per comparison."""
    import trl

    lines = [
        f"trimtab.functional against trl {trl.__version__}, torch {torch.__version__}",
        f"{'':53} {'fp32 loss':>10} {'gradient':>10} {'fp64 loss':>10} {'gradient':>10}",
    ]
    for case in cases():
        figures = [*case.differences(torch.float32), *case.differences(torch.float64)]
        lines.append(f"{case.name:53} " + " ".join(f"{figure:10.1e}" for figure in figures))
        if case.on_purpose:
            lines.append(f"    differs on purpose: {case.on_purpose}")
    advantages = {
        "advantages: group_std with TRL's eps 1e-4": ("group", "group_std", TRL_EPS),
        "advantages: no scale": ("none", "none", TRL_EPS),
        "advantages: group_std with our eps 1e-6 (on purpose)": ("group", "group_std", 1e-6),
        "advantages: batch_std (on purpose)": ("batch", "batch_std", TRL_EPS),
    }
    lines += [f"{name:53} {advantage_difference(*options):10.1e}" for name, options in advantages.items()]
    lines.append(
        "    batch_std is the deviation of the centred advantages (R8); TRL's that of the raw rewards"
    )
    lines.append(
        "    no value loss: trl 1.16 has no PPO trainer, so there is nothing of TRL's to compare with"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
