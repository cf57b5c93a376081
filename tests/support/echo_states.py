"""Networks for tests of `ctd.esn`, and one step of them in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from ctd import esn
from ctd.batch import Layout, Run, precision, program, run_items
from ctd.esn import EchoState, kernel
from ctd.esn.reservoir import draw
from ctd.kernel import inputs_of, static_of, traced_of, traced_type

SMALL = {"n": 40, "m": 2, "target": "sines", "train": 90, "passes": 3, "record": ("readout",)}
ONE_BY_ONE = Layout(16, 1)
ALONE = Layout(1, 1)
"""That of `begin`, with which a run of the same static fields shares its program."""


def run(columns=None, layout=ONE_BY_ONE, **params):
    return run_items(kernel, EchoState(**params), columns, layout=layout)


def begin(params):
    """A run of one item before its first advance, the group's data, and the item's initial state."""
    static, kind = static_of(params), traced_type(EchoState)
    with precision(static):
        shared = esn.load(inputs_of(params))
    traced = kind(*(np.asarray([v], static.dtype) for v in traced_of(params)))
    run = Run(program(kernel, static, ALONE), shared, 0, np.arange(1), traced)
    return run, shared, jax.tree.map(lambda leaf: np.asarray(leaf)[0], run._slots.state)


def finish(run):
    """The item's results."""
    while not run.finished:
        run.advance()
    return {name: values[0] for name, values in run.results.items()}


def network(**given):
    """Weights of a network, drawn outside a run."""
    params = EchoState(**given)
    static = static_of(params)
    shared = esn.load(inputs_of(params))
    traced = traced_type(EchoState)(*(jnp.float32(v) for v in traced_of(params)))
    return jax.jit(lambda key: draw(static, shared, traced, key)[0])(jax.random.key(0))


def numpy_step(static, w, a, h, x, z):
    drive, bias = np.asarray(w.drive, float), np.asarray(w.bias, float)
    rate = float(w.rate)
    into = np.concatenate([h, x, z]) if static.feedback else np.concatenate([h, x])
    s = drive @ into + bias
    if static.dynamics == "discrete":
        h = (1 - rate) * h + rate * np.tanh(s)
        return h, h
    a = a + rate * (s - a)
    return a, np.tanh(a)


def see(static, h):
    return np.append(h, 1.0) if static.intercept else h


def whole(P):
    A, B, C = map(np.asarray, P)
    return np.block([[A, B.T], [B, C]])


def relative(a, b):
    return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)
