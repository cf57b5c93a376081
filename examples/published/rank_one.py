"""Kernel: where a random network of rank one goes, beside the mean field of Mastrogiuseppe & Ostojic 2018 (Neuron 99:609).

The network is that which `train_rnn` draws with rank 1, overlap s and recurrent_scale 0: wR = m n' / N with n = s m, m ~ N(0, 1). Its states go to
kappa m; for infinitely many units kappa is 0 for s <= 1, else the solution of 1 = s E[sech^2(kappa z)], z ~ N(0, 1).
"""

from typing import Any

from ctd.cells import get_cell, run
from ctd.kernel import Params, Static, Traced, Var, inputs_of, one_shot, static_of, traced_of
from ctd.late import jax, jnp
from ctd.train_rnn import Network
from ctd.train_rnn import kernel as train_rnn
from ctd.train_rnn.connections import connections
from ctd.train_rnn.parameters import initial, weights_of
from ctd.training import item_keys

STEPS = 400
"""Steps of dt = tau / 2: at s = 1.2 a deviation shrinks to a tenth within 15 tau or so."""


class RankOne(Params):
    """The parameters of one network."""

    n: Static[int] = 4000
    overlap: Traced[float] = 2.0
    seed: Traced[int] = 0


def settle(static: Any, shared: Any, traced: Any, key: jax.Array) -> dict[str, jax.Array]:
    """|n' tanh(h)| / N after `STEPS` steps without input, which is kappa."""
    network = Network(
        cell="leaky", n=static.n, rank=1, recurrent_scale=0, alpha=0.5, n_eval=1, n_saved=0
    )
    fields, cell = static_of(network), get_cell("leaky")
    numbers = traced_of(network)
    numbers = type(numbers)(*(jnp.asarray(value, static.dtype) for value in numbers))
    numbers = numbers._replace(seed=traced.seed, overlap=traced.overlap)
    key, _ = item_keys(key, numbers)
    links = connections(fields, train_rnn.load(inputs_of(network)).masks, numbers, key)
    p = initial(fields, (1, 1), links, numbers, key)
    states, _ = run(cell, weights_of(fields, links, numbers, p), jnp.zeros((STEPS, 1)))
    return {"kappa": jnp.abs(p["n"][:, 0] @ jnp.tanh(states[-1])) / static.n}


kernel = one_shot("rank_one", RankOne, {"kappa": Var((), "1", "states are kappa m")}, settle)
