"""Techniques that no recipe key switches off: replaced here from outside, for ablations only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any


class _Alone(bytes):
    """Bytes that equal nothing but themselves, so that no two rows share a prompt."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _no_sharing() -> None:
    from trimtab.models import packing

    original = packing._Rows.prompt
    packing._Rows.prompt = lambda self, row: _Alone(original(self, row))  # type: ignore[method-assign]


def _two_pass_head() -> None:
    from trimtab.distributed.passes import PolicyPass

    assert hasattr(PolicyPass, "_is_one_pass")
    PolicyPass._is_one_pass = lambda self, micro, objective: False  # type: ignore[method-assign]


def _plain_modules() -> None:
    from trimtab.rollout.native import NativeEngine

    assert hasattr(NativeEngine, "_faster")
    NativeEngine._faster = lambda self, *_: nullcontext()  # type: ignore[method-assign]


def _library_products() -> None:
    from trimtab.models import packed_linear

    assert hasattr(packed_linear, "_kernel")
    packed_linear._kernel = lambda: None  # type: ignore[assignment]


def _layers_of_their_own() -> None:
    from trimtab.models import fast_modules

    assert hasattr(fast_modules, "decode_layer")
    fast_modules.decode_layer = lambda *_: None  # type: ignore[assignment]


def _plain_training() -> None:
    from trimtab.distributed.passes import Packer

    assert hasattr(Packer, "faster")
    Packer.faster = lambda self: nullcontext()  # type: ignore[method-assign]


def _attention_in_parts() -> None:
    from trimtab.models import packed_context

    assert hasattr(packed_context, "compiled_kernel")
    packed_context.compiled_kernel = lambda *_: None  # type: ignore[assignment]


WITHOUT: dict[str, Callable[[], Any]] = {
    "shared prompts in training": _no_sharing,
    "one-pass head": _two_pass_head,
    "compiled modules in decode": _plain_modules,
    "linear kernel in decode": _library_products,
    "layers without their Python in decode": _layers_of_their_own,
    "compiled modules in training": _plain_training,
    "compiled attention in training": _attention_in_parts,
}


def switch_off(names: list[str]) -> None:
    """Switch techniques off in this process.

    Raises:
        KeyError: there is no such technique.
        AttributeError, AssertionError: the code has changed, so that it cannot be replaced this way.
    """
    for name in names:
        WITHOUT[name]()
