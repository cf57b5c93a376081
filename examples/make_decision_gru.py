"""Make `decision_gru.h5`: a GRU of 100 units, trained on the binary decision task.

    python examples/make_decision_gru.py [PATH]

It takes about four minutes on one core.
"""

import sys
from pathlib import Path

import numpy as np

from ctd.batch import Layout, run_items
from ctd.cells import get_cell
from ctd.train_rnn import Network, kernel
from ctd.weights import write_weights

PATH = Path(__file__).with_name("decision_gru.h5")


def as_gru(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same network as a `gru`: both cells are one family (ctd.cells)."""
    n = len(weights["bC"])
    moved = np.repeat(np.array([0, 0.5], weights["bRU"].dtype), n)
    return weights | {"bC": weights["bC"] + moved[n:], "bRU": weights["bRU"] - moved}


def main(path: Path) -> None:
    # The defaults but for the cell: this network is older than the tutorials' correction of it.
    network = Network(cell="gru_candidate_bias")
    results = run_items(kernel, network, layout=Layout(1, 1))
    outcome = kernel.outcomes[results["outcome"][0]]
    print(f"{outcome.name}: evaluation loss {results['eval_loss'][0]:.4f}")
    weights = {name: results[f"weights.{name}"][0] for name in get_cell(network.cell).axes}
    write_weights(path, as_gru(weights), "gru")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PATH)
