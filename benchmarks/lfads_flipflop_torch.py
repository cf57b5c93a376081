"""The two models of lfads_flipflop.py in PyTorch, as CtDBenchmark and lfads-torch build them; needs torch and h5py.

    PYTHON benchmarks/lfads_flipflop_torch.py autoencoder|lfads SPIKES.h5 MADE.npz '{"steps": 1200, ...}'

lfads_flipflop.py calls it, with an interpreter that has torch, and scores what it makes: the rates and states of the
evaluation trials, and the readout, from states to log rates. Sizes, dropout, learning rates and their cosine are
`MODELS` of lfads_flipflop.py, so that both see the same steps of the same batches' size on the same spikes. As in the originals:

    autoencoder  GRUs of PyTorch, weights U(-1, 1) / sqrt(units); dropout on the encoder's ends and on the initial
                 state, which is no draw; log rates read the states themselves
    lfads        `lfads_torch_modules`; N(0, 1 / fan-in); the posterior's variance at least 1e-4, its mean alone
                 evaluated; factors with rows of norm 1; coordinated dropout counts the hidden entries, without weights
    both         the mean over entries is minimised, gradients are clipped to norm .01 (lfads: of 1e4 times the loss)
"""

import json
import sys
import time
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from lfads_flipflop import COMMON, HELD_IN, HELD_OUT, MODELS
from lfads_torch_modules import Bidirectional, Cell
from torch import nn
from torch.nn import functional

N, N_INPUTS, FLOOR, PRIOR_VARIANCE = COMMON["generator"], 3, 1e-4, 0.1


class Made(NamedTuple):
    log_rates: Any
    """(trial, time, unit)"""
    states: Any
    kl: Any
    """Of the initial state, mean over trials, in nats."""


class Autoencoder(nn.Module):
    loss_scale, hidden, eps = 1.0, 0.0, 1e-8

    def __init__(self, encoder: int, dropout: float) -> None:
        super().__init__()
        self.encoder = nn.GRU(HELD_IN, encoder, bidirectional=True, batch_first=True)
        self.to_state = nn.Linear(2 * encoder, N)
        self.generator = nn.GRUCell(N_INPUTS, N)
        self.rates = nn.Linear(N, HELD_IN + HELD_OUT)
        self.dropout = nn.Dropout(dropout)

    def forward(self, seen: Any, inputs: Any) -> Made:
        _, ends = self.encoder(seen)
        h = self.dropout(self.to_state(self.dropout(torch.cat([*ends], 1))))
        states = unroll(self.generator, h, inputs)
        return Made(self.rates(states), states, torch.zeros(()))

    def readout(self) -> Any:
        return self.rates.weight


class Lfads(nn.Module):
    loss_scale, eps = 1e4, 1e-7

    def __init__(self, encoder: int, dropout: float, coordinated_dropout: float) -> None:
        super().__init__()
        self.hidden = coordinated_dropout
        self.encoder = Bidirectional(HELD_IN, encoder)
        self.ic, self.to_state = linear(2 * encoder, 2 * N), linear(N, N)
        self.generator = Cell(N_INPUTS, N)
        self.factors = linear(N, COMMON["n_factors"], bias=False)
        self.rates = linear(COMMON["n_factors"], HELD_IN + HELD_OUT)
        self.dropout = nn.Dropout(dropout)
        self.prior_mean = nn.Parameter(torch.zeros(N))

    def forward(self, seen: Any, inputs: Any) -> Made:
        _, ends = self.encoder(self.dropout(seen))
        mean, log_variance = self.ic(self.dropout(ends)).chunk(2, 1)
        variance = log_variance.exp() + FLOOR
        drawn = mean + variance.sqrt() * torch.randn_like(mean) if self.training else mean
        states = unroll(self.generator, self.to_state(drawn), self.dropout(inputs))
        log_rates = self.rates(functional.linear(self.dropout(states), self.unit()))
        ratio = (variance + (mean - self.prior_mean) ** 2) / PRIOR_VARIANCE
        kl = 0.5 * (ratio - 1 - (variance / PRIOR_VARIANCE).log()).sum(1).mean()
        return Made(log_rates, states, kl)

    def unit(self) -> Any:
        """The factors' weights with rows of norm 1."""
        return functional.normalize(self.factors.weight, dim=1)

    def readout(self) -> Any:
        return self.rates.weight @ self.unit()


def linear(n_in: int, n_out: int, bias: bool = True) -> Any:
    """A layer as lfads-torch starts it: N(0, 1 / n_in), biases 0."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.normal_(layer.weight, std=n_in**-0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def unroll(cell: Any, h: Any, inputs: Any) -> Any:
    """(trial, time, state)"""
    states = []
    for now in inputs.unbind(1):
        h = cell(now, h)
        states.append(h)
    return torch.stack(states, 1)


def loss_of(model: Any, counts: Any, inputs: Any, kl_scale: float) -> Any:
    """The mean over entries and the scaled KL, of a minibatch."""
    seen = counts[..., :HELD_IN]
    if model.hidden:
        shown = (torch.rand_like(seen) >= model.hidden).float()
        seen = seen * shown / (1 - model.hidden)
    made = model(seen, inputs)
    nll = functional.poisson_nll_loss(made.log_rates, counts, full=True, reduction="none")
    if model.hidden:
        nll = nll * functional.pad(1 - shown, (0, HELD_OUT), value=1.0)
    return model.loss_scale * (nll.mean() + kl_scale * made.kl)


def train(model: Any, counts: Any, inputs: Any, asked: dict[str, Any]) -> None:
    steps, warm_up, ramp = asked["n_batches"], asked["warm_up"], max(asked["kl_ramp"], 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=asked["learning_rate"], eps=model.eps)
    cosine = lambda k: 0.5 * (1 + np.cos(np.pi * max(k - warm_up, 0) / max(steps - warm_up, 1)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min((k + 1) / max(warm_up, 1), 1) * cosine(k)
    )
    for k in range(steps):
        rows = torch.randint(0, len(counts), (asked["batch_size"],))
        kl_scale = asked["kl_ic"] * min(k / ramp, 1)
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, counts[rows], inputs[rows], kl_scale).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        schedule.step()


def main() -> None:
    name, file, to, told = sys.argv[1:]
    asked = MODELS[name] | json.loads(told)
    torch.set_num_threads(1)
    torch.manual_seed(asked["seed"])
    with h5py.File(file) as found:
        array = lambda part: torch.from_numpy(found[part][:].astype(np.float32))
        counts, inputs, new, new_inputs = map(
            array, ("train", "train_external", "eval", "eval_external")
        )
    if name == "autoencoder":
        model: Any = Autoencoder(asked["encoder"], asked["dropout"])
    else:
        model = Lfads(asked["encoder"], asked["dropout"], asked["coordinated_dropout"])
    with torch.no_grad():
        model.rates.bias.copy_(counts.mean((0, 1)).clamp_min(1e-3).log())
    start = time.process_time()
    train(model, counts, inputs, asked)
    seconds = time.process_time() - start
    model.eval()
    with torch.no_grad():
        made = model(new[..., :HELD_IN], new_inputs)
        arrays = {"rates": made.log_rates.exp(), "states": made.states, "readout": model.readout()}
    np.savez(to, **{part: value.detach().numpy() for part, value in arrays.items()})
    print(json.dumps({"seconds": seconds, "version": torch.__version__}))


if __name__ == "__main__":
    main()
