"""Read the weights that PyTorch, Flax, Equinox or Keras wrote as networks of `ctd.cells`, and write such files.

    network     `read_weights`: finds the cell of a file and its weights; `write_weights`
    formats     a file's tensors by name, read and written by its ending; HDF5, NumPy, safetensors
    tensors     Tensors: the arrays of one file   torch_zip   PyTorch's files, without PyTorch
    jax_files   Flax, Orbax, Equinox              keras_file  Keras
    names_torch, names_flax, names_keras          the cell among tensors with a framework's names
    gates       from a cell's weights in PyTorch's order to those of a cell of ctd, and back
    disproof    the units that are taken where a file does not tell them, against states of the network
    rest        the tensors beside the cell: a linear readout and h0, or an error

Reading executes no code of a file. Tensors that no network of ctd can express are refused by name.
"""

from ctd.weights.disproof import check_guess
from ctd.weights.formats import check_ending, read_tensors, write_tensors
from ctd.weights.network import Loaded, read_weights, understand, write_named, write_weights
from ctd.weights.tensors import Tensors

__all__ = [
    "Loaded", "Tensors", "check_ending", "check_guess", "read_tensors", "read_weights", "understand", "write_named",
    "write_tensors", "write_weights",
]  # fmt: skip
