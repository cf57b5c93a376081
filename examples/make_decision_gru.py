"""Make `decision_gru.h5`: a GRU of 100 units, trained on the binary decision task.

    python examples/make_decision_gru.py [PATH]

It takes about four minutes on one core.
"""

import sys
from pathlib import Path

from ctd.batch import Layout, run_items
from ctd.cells import get_cell
from ctd.data import write_weights
from ctd.train_rnn import Network, kernel

PATH = Path(__file__).with_name("decision_gru.h5")


def main(path: Path) -> None:
    network = Network()  # the defaults are this network
    results = run_items(kernel, network, layout=Layout(1, 1))
    outcome = kernel.outcomes[results["outcome"][0]]
    print(f"{outcome.name}: evaluation loss {results['eval_loss'][0]:.4f}")
    weights = {name: results[f"weights.{name}"][0] for name in get_cell(network.cell).axes}
    write_weights(path, weights, network.cell)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PATH)
