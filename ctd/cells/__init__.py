"""Recurrent cells: one-step maps h -> F(h, x) of a network's state, and their weights.

Every function takes one network and one example, and is pure: `jax.vmap` makes batches and ensembles of them.
A network is a dict name -> array: the cell's own weights, and three that a network of any cell may have:

    wO (n_out, n), bO (n_out,)   readout, z = wO hidden(h) + bO
    h0 (state,)                  the state before the first step; zeros where it is left out

n is the number of units, n_in that of inputs, n_out that of outputs. The state is the vector that F updates: the
hidden vector, n entries, or for an LSTM the hidden vector and then the memory cells, 2n entries. Arrays have the dtype of
the weights, float32 or float64.

    cell       Cell: what one is               names      cells by name
    ungated    vanilla, leaky, leaky_per_unit, leaky_rates, and the nonlinearities of their units
    gated      the GRUs and the LSTM           flow       node, in continuous time
    piecewise  shplrnn, alrnn, linear by pieces
    network    states and outputs of a trial; checks that weights fit
    matrices   weights of low rank, a readout of single units, the spectral radius

>>> from ctd.cells import get_cell, run
>>> cell = get_cell("gru")
>>> weights = cell.init(jax.random.key(0), n=8, n_in=3, n_out=2)
>>> states, outputs = run(cell, weights, jnp.zeros((20, 3)))
>>> states.shape, outputs.shape
((20, 8), (20, 2))
"""

from ctd.cells.cell import READOUT_AXES, Cell, Scales, Weights
from ctd.cells.flow import node, runge_kutta
from ctd.cells.gated import UPDATE_BIAS, gru
from ctd.cells.matrices import FirstUnits, LowRank, spectral_radius
from ctd.cells.names import CELL_NAMES, CELLS, FORMS, CellName, get_cell, weight_dims
from ctd.cells.network import (
    as_weights,
    cells_with,
    check_params,
    check_real,
    initial_state,
    readout,
    run,
    sizes,
)
from ctd.cells.piecewise import draw_almost, draw_shallow
from ctd.cells.ungated import UNGATED, UNITS

__all__ = [
    "CELLS", "CELL_NAMES", "FORMS", "READOUT_AXES", "UNGATED", "UNITS", "UPDATE_BIAS", "Cell", "CellName", "FirstUnits",
    "LowRank", "Scales", "Weights", "as_weights", "cells_with", "check_params", "check_real", "draw_almost", "draw_shallow",
    "get_cell", "gru", "initial_state", "node", "readout", "run", "runge_kutta", "sizes", "spectral_radius", "weight_dims",
]  # fmt: skip
