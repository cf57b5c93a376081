"""Random networks of rank one against the mean field of Mastrogiuseppe & Ostojic 2018.

    python benchmarks/mean_field.py [--units 4000] [--draws 20] [--overlap 0.8 1 1.2 1.5 2 4]

The network is that which `train_rnn` draws with rank 1, overlap s and recurrent_scale 0: wR = m n' / N with n = s m,
m ~ N(0, 1). Its states go to h = kappa m, and for infinitely many units kappa is 0 for s <= 1, else the solution of

    1 = s E[sech^2(kappa z)],  z ~ N(0, 1)

The table has kappa of that equation (SciPy), the mean of |n' tanh(h)| / N over the draws, its standard error, and
the deviation. The benchmark fails where the deviation is above 2 %, or above N^-1/4 for s <= 1: so far a sample's
own m' m / N moves kappa at s = 1.
"""

import argparse
import sys

import jax
import jax.numpy as jnp
import numpy as np
from options import parse
from scipy.integrate import quad
from scipy.optimize import brentq

from ctd.cells import get_cell, run
from ctd.kernel import inputs_of, static_of, traced_of
from ctd.train_rnn import Network, item_keys, kernel
from ctd.train_rnn.connections import connections
from ctd.train_rnn.parameters import initial, weights_of

STEPS = 400
"""Steps of dt = tau / 2: at s = 1.2 a deviation shrinks to a tenth within 15 tau or so."""


def mean_field(s: float) -> float:
    """Kappa > 0 of 1 = s E[sech^2(kappa z)], or 0."""
    if s <= 1:
        return 0.0
    weight = lambda z: np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    gain = lambda k: 2 * quad(lambda z: weight(z) / np.cosh(k * z) ** 2, 0, 10)[0]
    return float(brentq(lambda k: s * gain(k) - 1, 1e-3, 20))


def kappas(n: int, draws: int, s: float) -> np.ndarray:
    """(draws,) |n' tanh(h)| / N after `STEPS` steps without input."""
    params = Network(
        cell="leaky", n=n, rank=1, overlap=s, recurrent_scale=0, alpha=0.5, n_eval=1, n_saved=0
    )
    static, cell = static_of(params), get_cell("leaky")
    given = traced_of(params)
    traced = type(given)(*(jnp.asarray(value, static.dtype) for value in given))
    traced = traced._replace(seed=0)
    masks = kernel.load(inputs_of(params)).masks

    def one(key: jax.Array) -> jax.Array:
        key, _ = item_keys(key, traced)
        links = connections(static, masks, traced, key)
        p = initial(static, cell, (1, 1), links, traced, key)
        states, _ = run(cell, weights_of(static, links, traced, p), jnp.zeros((STEPS, 1)))
        return jnp.abs(p["n"][:, 0] @ jnp.tanh(states[-1])) / n

    keys = jax.vmap(lambda k: jax.random.fold_in(jax.random.key(0), k))(jnp.arange(draws))
    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(keys))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--units", type=int, default=4000)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--overlap", type=float, nargs="+", default=[0.8, 1, 1.2, 1.5, 2, 4])
    options = parse(parser, units=1000, draws=4, overlap=[0.8, 4])
    print(f"N = {options.units}, {options.draws} draws\n")
    print("| s | mean field | mean kappa | standard error | deviation |\n|---|---|---|---|---|")
    wrong = False
    for s in options.overlap:
        found, expected = kappas(options.units, options.draws, s), mean_field(s)
        mean, error = found.mean(), found.std(ddof=1) / np.sqrt(len(found))
        off = abs(mean - expected) / (expected or 1)
        wrong |= off > (0.02 if expected else options.units**-0.25)
        deviation = f"{100 * off:.2f} %" if expected else f"{off:.4f}"
        print(f"| {s:g} | {expected:.4f} | {mean:.4f} | {error:.4f} | {deviation} |", flush=True)
    if wrong:
        sys.exit("a deviation is above its bound")


if __name__ == "__main__":
    main()
