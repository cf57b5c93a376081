"""Files of networks' weights, as the frameworks write them, as networks of `ctd.cells`, and back.

    network     `read_weights`: which cell a file holds, and its weights      `write_weights`
    formats     a file's tensors by name: one reader and one writer for each ending
    tensors     what a file holds: names -> arrays
    plain       HDF5, NumPy, safetensors          torch_zip   PyTorch, without PyTorch
    jax_files   Flax, Orbax, Equinox              keras_file  Keras
    layouts     the cell among the tensors: PyTorch and Equinox, Flax, Keras
    gates       a cell's weights in PyTorch's order, as those of a cell of ctd
    rest        what is left beside the cell: a linear readout and h0, or a refusal

No file's code is executed. What ctd's networks cannot express is refused by the names of its tensors.
"""

from ctd.weights.formats import ENDINGS, check_ending, read_tensors, write_tensors
from ctd.weights.network import Loaded, read_weights, understand, write_named, write_weights
from ctd.weights.tensors import Tensors

__all__ = [
    "ENDINGS",
    "Loaded",
    "Tensors",
    "check_ending",
    "read_tensors",
    "read_weights",
    "understand",
    "write_named",
    "write_tensors",
    "write_weights",
]
