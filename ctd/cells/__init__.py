"""Recurrent cells: one-step maps h -> F(h, x) of a network's state, and their weights.

Everything here is a pure function of one network and one example; batches and ensembles are vmaps.
A network is a dict name -> array: the cell's weights, and three that every cell may have:

    wO (n_out, n), bO (n_out,)   readout, z = wO hidden(h) + bO
    h0 (state,)                  the state before the first step; zeros where it is left out

n is the number of units. The state is the vector that F updates: the hidden vector, or for an LSTM the
hidden vector followed by the memory cells, 2n entries in all.

    cell       Cell: what one is               tanh       vanilla, leaky
    gated      the GRUs and the LSTM           names      cells by name
    network    states and outputs in a trial; whether weights fit
"""

from ctd.cells.cell import READOUT_AXES, Cell, Scales, Weights
from ctd.cells.gated import UPDATE_BIAS, gru, gru_candidate_bias, gru_torch, lstm
from ctd.cells.names import CELLS, CellName, get_cell
from ctd.cells.network import Sizes, check_params, check_real, initial_state, readout, run, sizes
from ctd.cells.tanh import leaky, vanilla

__all__ = [
    "CELLS",
    "READOUT_AXES",
    "UPDATE_BIAS",
    "Cell",
    "CellName",
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
    "lstm",
    "readout",
    "run",
    "sizes",
    "vanilla",
]
