"""The walk of the toy kernel, which stays at half of its steps while the file `gate` is there.

A test says when it goes on, however busy the machine is.
"""

from pathlib import Path

import toy

KERNEL = """
import os
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import toy
from ctd.kernel import Static

time.sleep(float(os.environ.get("SLOW_START", 0)))


class Gated(toy.Walk):
    gate: Static[str] = ""


def advance(static, shared, traced, key, state):
    def shut(step, n_steps):
        here = step >= n_steps // 2 and Path(static.gate).exists()
        time.sleep(0.2 if here else 0)
        return np.bool_(here)

    stays = jax.pure_callback(
        shut, jax.ShapeDtypeStruct((), jnp.bool_), state["step"], traced.n_steps, vmap_method="sequential"
    )
    moved = toy.advance(static, shared, traced, key, state)
    return jax.tree.map(lambda old, new: jnp.where(stays, old, new), state, moved)


kernel = replace(toy.kernel, Params=Gated, advance=advance)
"""


def prepare(folder: Path) -> None:
    """Put the kernel where jobs of this folder find it."""
    (folder / "gated_walk.py").write_text(KERNEL)
    (folder / "toy.py").write_text(Path(toy.__file__).read_text())
