"""Recurrent cells: one-step maps h -> F(h, x) of a network's state, and their weights.

Everything here is a pure function of one network and one example; batches and ensembles are vmaps.
A network is a dict name -> array: the cell's weights, and three that every cell may have:

    wO (n_out, n), bO (n_out,)   readout, z = wO hidden(h) + bO
    h0 (state,)                  the state before the first step; zeros where it is left out

n is the number of units. The state is the vector that F updates: the hidden vector, or for an LSTM the
hidden vector followed by the memory cells, 2n entries in all.

    cell       Cell: what one is               ungated    vanilla, leaky, leaky_per_unit
    gated      the GRUs and the LSTM           units      nonlinearities by name
    flow       node, in continuous time
    names      cells by name                   low_rank   recurrent weights of low rank
    spectrum   the spectral radius             first_units   a readout that shows rates
    network    states and outputs in a trial; whether weights fit
"""

from ctd.cells.cell import READOUT_AXES, Cell, Scales, Weights
from ctd.cells.first_units import FirstUnits
from ctd.cells.flow import node, runge_kutta
from ctd.cells.gated import UPDATE_BIAS, gru, gru_candidate_bias, gru_torch, lstm
from ctd.cells.low_rank import LowRank
from ctd.cells.names import CELL_NAMES, CELLS, CellName, get_cell
from ctd.cells.network import Sizes, check_params, check_real, initial_state, readout, run, sizes
from ctd.cells.spectrum import spectral_radius
from ctd.cells.ungated import UNGATED, leaky, leaky_per_unit, vanilla
from ctd.cells.units import UNITS

__all__ = [
    "CELLS",
    "CELL_NAMES",
    "READOUT_AXES",
    "UNGATED",
    "UNITS",
    "UPDATE_BIAS",
    "Cell",
    "CellName",
    "FirstUnits",
    "LowRank",
    "Scales",
    "Sizes",
    "Weights",
    "check_params",
    "check_real",
    "get_cell",
    "gru",
    "gru_candidate_bias",
    "gru_torch",
    "initial_state",
    "leaky",
    "leaky_per_unit",
    "lstm",
    "node",
    "readout",
    "run",
    "runge_kutta",
    "sizes",
    "spectral_radius",
    "vanilla",
]
