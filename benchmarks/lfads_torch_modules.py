"""The recurrent modules of lfads-torch (Sedler & Pandarinath 2023) as benchmarks time and train them; needs torch.

    x, h -> update, reset, candidate; h' = clip(update h + (1 - update) candidate), the reset gate before the product

The first weights are N(0, 1 / fan-in), as there; those of a `Bidirectional` N(0, 1 / (inputs + units)). The biases of
update and reset gate start at 1. States stay within [-CLIP, CLIP].
"""

from typing import Any

import torch
from torch import nn

CLIP = 5.0


class Cell(nn.Module):
    """A GRU cell of elementary operations, as the clipping asks for."""

    def __init__(self, n_in: int, n: int, fan_in: int | None = None) -> None:
        """fan_in: of all weights; without it that of each matrix."""
        super().__init__()
        self.from_input = nn.Linear(n_in, 3 * n)
        self.gates = nn.Linear(n, 2 * n, bias=False)
        self.candidate = nn.Linear(n, n, bias=False)
        for layer in (self.from_input, self.gates, self.candidate):
            nn.init.normal_(layer.weight, std=(fan_in or layer.in_features) ** -0.5)
        with torch.no_grad():
            self.from_input.bias.copy_(torch.cat([torch.ones(2 * n), torch.zeros(n)]))

    def forward(self, x: Any, h: Any) -> Any:
        x_update, x_reset, x_candidate = self.from_input(x).chunk(3, 1)
        h_update, h_reset = self.gates(h).chunk(2, 1)
        update, reset = torch.sigmoid(x_update + h_update), torch.sigmoid(x_reset + h_reset)
        new = torch.tanh(x_candidate + self.candidate(reset * h))
        return (update * h + (1 - update) * new).clamp(-CLIP, CLIP)


class Bidirectional(nn.Module):
    """Two such GRUs over time, one backwards, from learned initial states."""

    def __init__(self, n_in: int, n: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList([Cell(n_in, n, n_in + n) for _ in range(2)])
        self.h0 = nn.Parameter(torch.zeros(2, 1, n))

    def forward(self, x: Any) -> tuple[Any, Any]:
        """States (trial, time, 2 n), and the last one of each direction (trial, 2 n)."""
        found, ends = [], []
        for cell, h0, backwards in zip(self.cells, self.h0, (False, True), strict=True):
            h, states = h0.expand(len(x), -1), []
            for now in (x.flip(1) if backwards else x).unbind(1):
                h = cell(now, h)
                states.append(h)
            made = torch.stack(states, 1)
            found.append(made.flip(1) if backwards else made)
            ends.append(h)
        return torch.cat(found, 2), torch.cat(ends, 1)
