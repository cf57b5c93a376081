"""Make `torch_nets/`: networks as torch.save writes them, and 50 steps of each in PyTorch.

    python tests/data/make_torch_nets.py      (needs torch and numpy; made with torch 2.13.0)

NAME.pt is the state_dict of a module with `rnn` and `fc`, or of a cell alone; states.npz has NAME.inputs (time, 3),
NAME.states (time, state), where an LSTM's state is h and c after each other, and NAME.outputs (time, 2). The
remaining files are refused: two layers, both directions, projections, a whole pickled module, TorchScript.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

N, N_IN, N_OUT, N_STEPS = 6, 3, 2, 50
FOLDER = Path(__file__).with_name("torch_nets")


class Net(nn.Module):
    """A recurrent layer and a linear readout."""

    def __init__(self, layer: type[nn.Module], **options: object) -> None:
        super().__init__()
        self.rnn = layer(N_IN, N, batch_first=True, **options)
        self.fc = nn.Linear(N, N_OUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.rnn(x)[0])


NETS = {
    "rnn": (lambda: Net(nn.RNN), torch.float64),
    "gru": (lambda: Net(nn.GRU), torch.float64),
    "lstm": (lambda: Net(nn.LSTM), torch.float64),
    "rnn32": (lambda: Net(nn.RNN), torch.float32),
    "gru32": (lambda: Net(nn.GRU), torch.float32),
    "lstm32": (lambda: Net(nn.LSTM), torch.float32),
    "no_bias": (lambda: Net(nn.GRU, bias=False), torch.float64),
    "rnn_cell": (lambda: nn.RNNCell(N_IN, N), torch.float64),
}
REFUSED = {
    "two_layers": lambda: Net(nn.GRU, num_layers=2),
    "bidirectional": lambda: Net(nn.LSTM, bidirectional=True),
    "projections": lambda: Net(nn.LSTM, proj_size=4),
}


def states(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """(time, state) from zeros, step by step."""
    if isinstance(model, nn.RNNCell):
        rows, h = [], torch.zeros(N, dtype=inputs.dtype)
        for x in inputs:
            h = model(x, h)
            rows.append(h)
        return torch.stack(rows)
    rows, hidden = [], None
    for x in inputs:
        _, hidden = model.rnn(x[None, None], hidden)
        rows.append(
            torch.cat([part.flatten() for part in hidden])
            if isinstance(hidden, tuple)
            else hidden.flatten()
        )
    return torch.stack(rows)


def numbers() -> None:
    """Write the networks and their numbers."""
    torch.manual_seed(0)
    FOLDER.mkdir(exist_ok=True)
    arrays = {}
    with torch.no_grad():
        for name, (make, dtype) in NETS.items():
            model = make().to(dtype)
            for value in model.parameters():
                # Larger than torch's own, so that the gates leave their linear range.
                value.copy_(0.7 * torch.randn_like(value))
            inputs = torch.randn(N_STEPS, N_IN, dtype=dtype)
            torch.save(model.state_dict(), FOLDER / f"{name}.pt")
            arrays |= {f"{name}.inputs": inputs, f"{name}.states": states(model, inputs)}
            if isinstance(model, Net):
                arrays[f"{name}.outputs"] = model(inputs[None])[0]
        half = Net(nn.GRU).to(torch.bfloat16)
        torch.save(half.state_dict(), FOLDER / "bfloat16.pt")
        arrays["bfloat16.weight"] = half.rnn.weight_hh_l0.float()
    found = {name: value.numpy() for name, value in arrays.items()}
    np.savez_compressed(FOLDER / "states.npz", **found)


def others() -> None:
    """Write what is no state_dict of one cell."""
    for name, make in REFUSED.items():
        torch.save(make().state_dict(), FOLDER / f"{name}.pt")
    model = Net(nn.GRU)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(1, 2, N_IN)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
    }
    torch.save(checkpoint, FOLDER / "checkpoint.ckpt")
    torch.save(model, FOLDER / "whole.pt")
    torch.jit.script(model.fc).save(FOLDER / "script.pt")
    torch.save(model.fc.state_dict(), FOLDER / "old.pt", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    numbers()
    others()
