"""Make `torch_cells.h5`: ten steps of torch.nn.GRUCell and torch.nn.LSTMCell in float64.

    python tests/data/make_torch_cells.py      (needs torch, numpy and h5py; made with torch 2.13.0)

For each cell: weight_ih, weight_hh, bias_ih, bias_hh, inputs (time, 3), start (state,) and states
(time, state), where the LSTM's state is its h and c after each other.
"""

from pathlib import Path

import h5py
import torch

N, N_IN, N_STEPS = 7, 3, 10


def states(cell: torch.nn.Module, inputs: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    rows = []
    if isinstance(cell, torch.nn.LSTMCell):
        h, c = start.chunk(2)
        for x in inputs:
            h, c = cell(x, (h, c))
            rows.append(torch.cat([h, c]))
    else:
        h = start
        for x in inputs:
            h = cell(x, h)
            rows.append(h)
    return torch.stack(rows)


def main() -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    with h5py.File(Path(__file__).with_name("torch_cells.h5"), "w") as file, torch.no_grad():
        file.attrs["torch"] = str(torch.__version__)
        for name, cell, size in (
            ("gru_torch", torch.nn.GRUCell(N_IN, N), N),
            ("lstm", torch.nn.LSTMCell(N_IN, N), 2 * N),
        ):
            group = file.create_group(name)
            # Larger than torch's own, so that the gates leave their linear range.
            for weight, value in cell.named_parameters():
                value.copy_(torch.randn_like(value))
                group.create_dataset(weight, data=value.numpy(), track_times=False)
            inputs, start = torch.randn(N_STEPS, N_IN), torch.randn(size)
            for key, value in (
                ("inputs", inputs),
                ("start", start),
                ("states", states(cell, inputs, start)),
            ):
                group.create_dataset(key, data=value.numpy(), track_times=False)


if __name__ == "__main__":
    main()
