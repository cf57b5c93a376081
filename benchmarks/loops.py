"""K GRUs trained on the decision task as one writes it without ctd: loops of PyTorch and JAX, beside which train_rnn.py stands.

Each function returns another one, which takes so many steps of all K networks. All train n units of `gru_torch` on
minibatches of the same size by Adam with a clipped gradient, a rate that decays, and an L2 penalty, as `train_rnn` does
unless told otherwise. PyTorch is of the group `frameworks`; without it there are only the loops of JAX.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ctd.cells import get_cell
from ctd.tasks import Decision, batch
from ctd.train_rnn import Network

type Advance = Callable[[int], None]


def loops(network: Network, k: int) -> dict[str, Advance]:
    """Name -> loop, of those that can run here."""
    found = {"JAX loop": jax_loop(network, k), "JAX vmap": jax_vmap(network, k)}
    if find_spec("torch"):
        found |= {"PyTorch loop": torch_loop(network, k), "torch.func": torch_func(network, k)}
    return found


# --- JAX and Optax --------------------------------------------------------------------------------


def _jax_parts(network: Network) -> tuple[Callable, Callable]:
    """(key -> weights and the optimiser's state, those and a key -> the next ones)."""
    cell = get_cell("gru_torch")
    rate = optax.exponential_decay(network.learning_rate, 1, network.decay)
    optimizer = optax.chain(
        optax.clip_by_global_norm(network.clip_norm), optax.adam(rate, eps=network.adam_eps)
    )

    def loss(weights, trials):
        def step(h, x):
            h = jax.vmap(lambda h, x: cell.step(weights, h, x))(h, x)
            return h, h @ weights["wO"].T + weights["bO"]

        h0 = jnp.tile(weights["h0"], (network.batch_size, 1))
        _, outputs = jax.lax.scan(step, h0, jnp.swapaxes(trials.inputs, 0, 1))
        errors = trials.mask[..., None] * (jnp.swapaxes(outputs, 0, 1) - trials.targets) ** 2
        penalty = sum(jnp.sum(w**2) for w in weights.values())
        return jnp.sum(errors) / jnp.sum(trials.mask) + network.l2 * penalty

    def start(key):
        weights = cell.init(key, network.n, 1, 1)
        return weights, optimizer.init(weights)

    def step(carry, key):
        weights, state = carry
        gradient = jax.grad(loss)(weights, batch(network.task, key, network.batch_size))
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(weights, updates), state

    return start, step


def jax_loop(network: Network, k: int) -> Advance:
    """One network after the other, a compiled step at a time."""
    start, step = _jax_parts(network)
    step = jax.jit(step)
    carries, keys = [start(jax.random.key(i)) for i in range(k)], [jax.random.key(0)]

    def advance(steps: int) -> None:
        for _ in range(steps):
            keys[0], key = jax.random.split(keys[0])
            carries[:] = [
                step(carry, jax.random.fold_in(key, i)) for i, carry in enumerate(carries)
            ]
        jax.block_until_ready(carries)

    return advance


def jax_vmap(network: Network, k: int) -> Advance:
    """All networks side by side in one compiled step."""
    start, step = _jax_parts(network)
    step = jax.jit(jax.vmap(step))
    carry = [jax.vmap(start)(jax.random.split(jax.random.key(0), k)), jax.random.key(0)]

    def advance(steps: int) -> None:
        for _ in range(steps):
            carry[1], key = jax.random.split(carry[1])
            carry[0] = step(carry[0], jax.random.split(key, k))
        jax.block_until_ready(carry[0])

    return advance


# --- PyTorch --------------------------------------------------------------------------------------


def _torch_trials(network: Network, *shape: int) -> tuple[Any, Any]:
    """(inputs (..., trial, time, 1), targets of the last step (..., trial, 1)) of the decision task."""
    import torch

    task, steps = network.task, network.task.n_steps
    assert isinstance(task, Decision)
    mean = 2 * task.bias * (torch.randn(*shape, 1, 1) - 0.5)
    x = mean + task.sd * (task.duration / steps) ** -0.5 * torch.randn(*shape, steps, 1)
    return x, torch.where(x.sum(dim=-2) > 0, 1.0, -1.0)


def _torch_nets(network: Network, k: int) -> list:
    """K times torch.nn.GRU with a readout and a trained initial state."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.GRU(1, network.n, batch_first=True)
            self.readout = torch.nn.Linear(network.n, 1)
            self.h0 = torch.nn.Parameter(0.1 * torch.randn(network.n))

        def forward(self, x):
            h0 = self.h0.expand(1, len(x), -1).contiguous()
            return self.readout(self.rnn(x, h0)[0])

    return [Net() for _ in range(k)]


def _torch_optimizer(network: Network, parameters) -> tuple:
    """(Adam, the decay of its rate)."""
    import torch

    adam = torch.optim.Adam(parameters, network.learning_rate, eps=network.adam_eps)
    return adam, torch.optim.lr_scheduler.ExponentialLR(adam, network.decay)


def torch_loop(network: Network, k: int) -> Advance:
    """One network after the other: autograd and torch.optim."""
    import torch

    nets = _torch_nets(network, k)
    made = [_torch_optimizer(network, net.parameters()) for net in nets]

    def advance(steps: int) -> None:
        for _ in range(steps):
            for net, (optimizer, decay) in zip(nets, made, strict=True):
                x, target = _torch_trials(network, network.batch_size)
                penalty = sum((p**2).sum() for p in net.parameters())
                loss = ((net(x)[:, -1] - target) ** 2).mean() + network.l2 * penalty
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), network.clip_norm)
                optimizer.step()
                decay.step()

    return advance


def torch_func(network: Network, k: int) -> Advance:
    """All networks side by side, by torch.func.vmap."""
    import torch

    nets = _torch_nets(network, k)
    params, _ = torch.func.stack_module_state(nets)
    optimizer, decay = _torch_optimizer(network, params.values())

    def loss(p, x, target):
        outputs = torch.func.functional_call(nets[0], p, (x,))
        penalty = sum((w**2).sum() for w in p.values())
        return ((outputs[:, -1] - target) ** 2).mean() + network.l2 * penalty

    gradient = torch.func.vmap(torch.func.grad(loss))

    def advance(steps: int) -> None:
        for _ in range(steps):
            given = {name: p.detach() for name, p in params.items()}
            found = gradient(given, *_torch_trials(network, k, network.batch_size))
            norm = sum(g.flatten(1).square().sum(1) for g in found.values()).sqrt()
            factor = (network.clip_norm / norm).clamp(max=1)
            for name, g in found.items():
                params[name].grad = factor.reshape(-1, *[1] * (g.ndim - 1)) * g
            optimizer.step()
            decay.step()

    return advance
