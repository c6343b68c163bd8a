"""Decode steps as CUDA graphs: the whole forward of a batch size is launched at once.

A decode step of a small model is hundreds of kernels of a few microseconds; launching them one by one from
Python takes longer than they run. A graph is captured once per batch size and replayed; it reads weights and
caches where they lie, so updates of the weights are seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trimtab.models.kv_rows import RowState


class GraphedDecode:
    """Calls ``step(tokens [R]) -> logits [R, V]`` through a graph; ``state`` is what the step advances."""

    def __init__(self, step: Callable[[Tensor], Tensor], state: RowState) -> None:
        self._step, self._state = step, state
        self._graphs: dict[int, tuple[Any, Tensor, Tensor]] = {}
        self._pool: Any = None

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits ``[R, V]``, valid until the next call."""
        self.prepare(tokens)
        graph, inputs, logits = self._graphs[len(tokens)]
        inputs.copy_(tokens)
        graph.replay()
        return logits

    def prepare(self, tokens: Tensor) -> None:
        """Capture the graph for so many rows, unless that was done."""
        if len(tokens) not in self._graphs:
            self._graphs[len(tokens)] = self._capture(tokens)

    def _capture(self, tokens: Tensor) -> tuple[Any, Tensor, Tensor]:
        inputs, state = tokens.clone(), self._state
        before = (state.lengths.clone(), state.is_running.clone(), tokens.clone())

        def restore() -> None:
            for now, kept in zip((state.lengths, state.is_running, tokens), before, strict=True):
                now.copy_(kept)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up outside the capture
            for _ in range(2):
                self._step(inputs)
                restore()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._step(inputs)
        self._pool = self._pool or graph.pool()
        restore()
        return graph, inputs, logits
