"""Which attention a model runs, proved at load: ours where it computes the family's own, else that.

transformers loads the module as its authors wrote it. Then one short probe, on the loaded weights, asks:

- Does the module with our attention say what the untouched one says? Compared are the outputs of every
  attention layer, each relative to its own size, and the logits.
- Is it causal? The gradient of what is said before the last token, by that token's embedding, is exactly 0
  in a causal model, in any precision and however small the weights are. And exchanging the last token moves
  nothing before it.

The probe leaves the global random state and the module as they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.errors import ModelError
from trimtab.models.attention import NAME, register, supports_attention
from trimtab.models.forward import accepted, model_inputs
from trimtab.models.length_rule import length_rule
from trimtab.models.quiet import quiet

# Largest root-mean-square difference, relative to the size of what is compared. A wrong mask or position
# gives 0.28 and more; rounding 1e-6 in fp32 and up to 0.08 in bf16 (30 layers, random tokens).
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6, torch.bfloat16: 0.15, torch.float16: 0.05}
# Likewise for what the last token moves before it. Causal models give 0, but the experts of a mixture round
# a token's sums differently when they get another number of tokens.
LEAK = {torch.float32: 1e-4, torch.float64: 1e-6, torch.bfloat16: 0.1, torch.float16: 0.02}
LENGTH = 24  # tokens of the probe
_PROOF = "_trimtab_attention"  # attribute of a proved module
_SPECIAL = re.compile(r"_(token_id|token_ids|token_index)$")


@dataclass(frozen=True, slots=True)
class AttentionProof:
    """What the probe found of one module."""

    family: str  # the name of the module's class
    own: str  # the attention that the family has of itself: sdpa or eager
    in_use: str  # the attention that the module runs
    cause: str | None = None  # why ours is not in use, though it was wanted; None where it is

    @property
    def sentence(self) -> str:
        """What a user is told."""
        if self.cause is None:
            return f"{self.family} runs {self.in_use} attention, proved against its own and causal"
        return (
            f"{self.family} runs its own attention ({self.in_use}), since {self.cause}; rows are padded and "
            "transformers' generate samples, which is slower"
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one forward of the probe said."""

    logits: Tensor  # [2, T, V] (of a trunk: hidden states) fp32; the rows differ in their last token only
    layers: list[Tensor]  # the outputs of the attention layers, in the order of their calls
    leak: float | None  # gradient of the last token beside that of the others; None: not to be had


def proof_of(model: Any) -> AttentionProof | None:
    """What was found when ``model`` was loaded; None for a module that was built by hand."""
    found = getattr(model, _PROOF, None)
    return found if isinstance(found, AttentionProof) else None


def settle_attention(
    model: Any, wanted: str, prepare: Callable[[Any], None] = lambda _: None
) -> AttentionProof:
    """Give a freshly loaded, untouched ``model`` the attention that is ``wanted``, if it proves right.

    With ``wanted`` ours, the family's own is kept where ours is not proved. Any other is only proved causal.
    ``prepare`` is what else is done to the module; what it says may not change by that.

    Raises:
        ModelError: the module cannot run a plain row of tokens, or sees later tokens with its own attention.
    """
    family, own_name = type(model).__name__, str(model.config._attn_implementation)
    if model.device.type == "meta":  # there is nothing to run
        prepare(model)
        if wanted == NAME and supports_attention(model):
            model.set_attn_implementation(NAME)
        return AttentionProof(family, own_name, str(model.config._attn_implementation))
    if (rule := length_rule(model)) is not None:
        rule.reset(model)
    probe = _probe(model)
    with _untouched_random_state(model), quiet():
        own = _own_answer(model, probe, prepare)
        cause = _cause(model, probe, own) if wanted == NAME else None
        if (wanted != NAME or cause is not None) and (fault := _acausal(own, model.dtype)):
            raise ModelError(
                f"{family} is no causal language model: {fault}; if it was trained as a decoder, set "
                "is_decoder = true in its config.json, else use another model"
            )
    in_use = str(model.config._attn_implementation)
    proof = AttentionProof(family, own_name, in_use, cause)
    object.__setattr__(model, _PROOF, proof)
    return proof


def _own_answer(model: Any, probe: Tensor, prepare: Callable[[Any], None]) -> _Answer:
    """What the untouched module says; positions that are given must be those that it counts itself."""
    family = type(model).__name__
    try:
        bare = _run(model, probe, is_bare=True)
        prepare(model)
        own = _run(model, probe)
        if len(own.layers) != len(bare.layers):  # some make parts of themselves anew in their first forward
            prepare(model)
            bare, own = _run(model, probe, is_bare=True), _run(model, probe)
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(
            f"{family} cannot run plain rows of tokens ({line}); use a decoder-only causal language model"
        ) from error
    if (fault := _difference(own, bare, model.dtype)) is not None:
        raise ModelError(
            f"{family} does not count positions from 0 at the first token (with such, {fault}); "
            "use a causal language model that does"
        )
    return own


def check_train_mode(model: Any) -> None:
    """Gradient checkpointing runs in train mode, which must say what eval mode says (trap 8).

    Raises:
        ModelError: it says something else: the family draws at random there.
    """
    probe = _probe(model)
    with _untouched_random_state(model), quiet():
        still = _run(model, probe)
        model.train()
        try:
            fault = _difference(_run(model, probe), still, model.dtype)
        finally:
            model.eval()
    if fault is not None:
        raise ModelError(
            f"{type(model).__name__} is another model in train mode ({fault}), which gradient checkpointing "
            "needs; set model.gradient_checkpointing = false"
        )


def _cause(model: Any, probe: Tensor, own: _Answer) -> str | None:
    """Switch to our attention and say why it is not the family's; None, and it stays, where it is."""
    before = model.config._attn_implementation
    if not supports_attention(model):
        return "the architecture takes no attention function from outside"
    register()
    try:
        model.set_attn_implementation(NAME)
        ours = _run(model, probe)
        fault = _difference(ours, own, model.dtype) or _acausal(ours, model.dtype)
        cause = None if fault is None else f"with ours {fault}"
    except Exception as error:  # any failure of an unknown architecture means: keep its own
        cause = f"ours fails in it ({type(error).__name__}: {error})".splitlines()[0][:160]
    if cause is not None:
        model.set_attn_implementation(before)
    return cause


def _difference(ours: _Answer, own: _Answer, dtype: torch.dtype) -> str | None:
    """Say how far the two are apart, or None where they agree."""
    if not bool(torch.isfinite(own.logits).all()):
        return None  # broken weights, which is told elsewhere
    if len(ours.layers) != len(own.layers):
        return "it takes another way through its layers"
    pairs = [*zip(ours.layers, own.layers, strict=True), (ours.logits, own.logits)]
    gap = max(_relative(a, b) for a, b in pairs)
    if gap <= TOLERANCE.get(dtype, 0.05):
        return None
    return f"what it says differs by {gap:.2g} of its size on the same tokens"


def _acausal(answer: _Answer, dtype: torch.dtype) -> str | None:
    """Say how much the last token changes what is said before it, or None for a causal model."""
    first, second = answer.logits
    if not bool(torch.isfinite(answer.logits).all()):
        return None
    moved = float((first[:-1] - second[:-1]).abs().max())
    scale = float((first[-1] - second[-1]).abs().max())
    if scale > 0 and moved > LEAK.get(dtype, 0.05) * scale:
        return (
            f"its last token changes what is said before it ({moved / scale:.2g} of what it changes itself)"
        )
    if answer.leak is not None and answer.leak > 1e-6:
        return f"what is said depends on a later token (its gradient is {answer.leak:.2g} of the others')"
    return None


def _relative(found: Tensor, expected: Tensor) -> float:
    size = float(expected.pow(2).mean().sqrt())
    gap = float((found - expected).pow(2).mean().sqrt())
    return gap / size if size > 0 else gap


def _probe(model: Any) -> Tensor:
    """Two rows ``[2, T]`` of ordinary tokens that differ in the last one."""
    config = model.config.get_text_config()
    taken = set[int]()
    for part in (config, model.config):
        for name, value in part.to_dict().items():
            if _SPECIAL.search(name):
                taken |= {int(v) for v in (value if isinstance(value, list) else [value]) if v is not None}
    vocabulary = int(config.vocab_size)
    generator = torch.Generator().manual_seed(0)
    room = min(LENGTH, int(getattr(config, "max_position_embeddings", None) or LENGTH))
    ids = torch.randint(vocabulary, (room + 1 + len(taken),), generator=generator)
    ordinary = [i for i in ids.tolist() if i not in taken] or ids.tolist()
    while len(ordinary) < room + 1:  # a vocabulary of almost nothing but special tokens
        ordinary += ordinary
    row, other = ordinary[:room], ordinary[room]
    if other == row[-1]:
        other = next((i for i in ordinary if i != row[-1]), (row[-1] + 1) % vocabulary)
    return torch.tensor([row, [*row[:-1], other]], device=model.device)


def _run(model: Any, probe: Tensor, *, is_bare: bool = False) -> _Answer:
    """One forward over the probe, with the gradient of what the first row says before its last token.

    ``is_bare``: token ids are all that the module is given.
    """
    layers: list[Tensor] = []
    leaves: list[Tensor] = []

    def listen(_: nn.Module, __: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor):
            layers.append(first.detach().float())

    def cut(_: nn.Module, __: Any, output: Any) -> Any:
        if leaves or not isinstance(output, Tensor):
            return output
        leaves.append(output.detach().requires_grad_(True))
        return leaves[0].clone()  # some write into it

    with _hooks(model, listen, cut), torch.inference_mode(False), torch.enable_grad():
        # A classifier of rows says one thing of each row; its trunk says one of each token.
        body = model.base_model if "SequenceClassification" in type(model).__name__ else model
        inputs = {"input_ids": probe} if is_bare else model_inputs(probe, torch.ones_like(probe), body)
        output = body(**inputs, **accepted(body, use_cache=False))
        said, heard = output.logits if hasattr(output, "logits") else output[0], list(layers)
        leak = _gradient_leak(said, leaves, [p for p in body.parameters() if p.ndim == 1 and p.requires_grad])
    _let_go(model)
    return _Answer(said.detach().float(), heard, leak)


def _let_go(model: nn.Module) -> None:
    """Cut the graph off what modules keep of a pass (RecurrentGemma's state), or no copy is possible."""
    for module in model.modules():
        for name, kept in list(vars(module).items()):
            if isinstance(kept, Tensor) and kept.grad_fn is not None:
                setattr(module, name, kept.detach())


def _gradient_leak(said: Tensor, leaves: list[Tensor], small: list[nn.Parameter]) -> float | None:
    """See ``_Answer.leak``. ``small`` parameters are asked for too, to see that they have gradients."""
    if not leaves or not said.requires_grad or said.ndim != 3:
        return None
    weights = torch.randn(said[0, :-1].shape, generator=torch.Generator().manual_seed(1))
    try:
        total = (said[0, :-1].float() * weights.to(said.device)).sum()
        gradient = torch.autograd.grad(total, [leaves[0], *small], allow_unused=True)[0]
    except RuntimeError as error:
        if "inplace operation" in str(error):
            raise  # it writes over what its gradient needs, so it cannot learn
        return None  # a kernel without gradients; the exchanged token is left
    if gradient is None or gradient.ndim != 3 or gradient.shape[1] != said.shape[1]:
        return None
    before, last = float(gradient[0, :-1].abs().max()), float(gradient[0, -1].abs().max())
    return last / before if 0 < before < float("inf") else None


@contextmanager
def _hooks(model: Any, listen: Callable[..., Any], cut: Callable[..., Any]) -> Iterator[None]:
    attention = [m for m in model.modules() if type(m).__name__.endswith(("Attention", "SelfAttention"))]
    handles = [module.register_forward_hook(listen) for module in attention]
    handles.append(model.get_input_embeddings().register_forward_hook(cut))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _untouched_random_state(model: Any) -> Iterator[None]:
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
