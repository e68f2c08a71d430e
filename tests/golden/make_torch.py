"""python tests/golden/make_torch.py

Writes what PyTorch computes, one .npz for each case, for tests that have no PyTorch.

Made with torch 2.13.0 on a CPU; each file says which versions made it. Parameters and
their gradients keep PyTorch's names, after `param/` and `grad/`. The loss is a sum of
outputs and final states with fixed random weights, so that each has its own gradient.
All is float32, time first and padded; `lengths` is there where PyTorch packed it.
"""

import json
import platform
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

HERE = Path(__file__).parent
SEED = 0
STEPS, INPUTS, UNITS = 6, 3, 4
# Attributes that say what a module is.
SPEC = (
    "mode",
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "dropout",
    "bidirectional",
    "proj_size",
)


class Case(NamedTuple):
    """A module, and lengths where its input is packed."""

    module: type[torch.nn.RNNBase]
    options: dict
    lengths: tuple[int, ...] | None = None
    sorted: bool = True


DEEP = {"num_layers": 2, "bidirectional": True}
CASES = {
    "rnn_packed": Case(torch.nn.RNN, DEEP, (5, 3, 1)),
    "lstm_packed": Case(torch.nn.LSTM, DEEP, (3, 5, 1), sorted=False),
    "gru_packed": Case(torch.nn.GRU, DEEP, (1, 5, 3), sorted=False),
    "lstm_projection_packed": Case(
        torch.nn.LSTM, {**DEEP, "proj_size": 2}, (3, 6, 1), sorted=False
    ),
    "rnn": Case(torch.nn.RNN, {}),
    "rnn_relu": Case(torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": Case(torch.nn.LSTM, {}),
    "gru": Case(torch.nn.GRU, {}),
    "gru_no_bias": Case(torch.nn.GRU, {"num_layers": 2, "bias": False}),
}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, requires_grad=True)


def run(
    module: torch.nn.RNNBase, case: Case, xs: torch.Tensor, state: list[torch.Tensor]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Outputs (T, B, features), 0 past the lengths, and final states."""
    given = tuple(state) if len(state) == 2 else state[0]
    if case.lengths is None:
        ys, final = module(xs, given)
    else:
        lengths = torch.tensor(case.lengths)
        packed = pack_padded_sequence(xs, lengths, enforce_sorted=case.sorted)
        packed, final = module(packed, given)
        ys, _ = pad_packed_sequence(packed, total_length=STEPS)
    return ys, list(final) if isinstance(final, tuple) else [final]


def starts(module: torch.nn.RNNBase, batch: int) -> list[torch.Tensor]:
    """h_0, and an LSTM's c_0."""
    rows = module.num_layers * (1 + module.bidirectional)
    h_0 = draw(rows, batch, module.proj_size or UNITS)
    return [h_0, draw(rows, batch, UNITS)] if module.mode == "LSTM" else [h_0]


def compute(case: Case) -> dict[str, np.ndarray]:
    torch.manual_seed(SEED)
    module = case.module(INPUTS, UNITS, **case.options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    batch = len(case.lengths or (1, 1))
    xs, state = draw(STEPS, batch, INPUTS), starts(module, batch)
    ys, final = run(module, case, xs, state)
    weights = [torch.randn(y.shape) for y in (ys, *final)]
    sum((w * y).sum() for w, y in zip(weights, (ys, *final), strict=True)).backward()

    arrays = {"xs": xs, "grad_xs": xs.grad, "ys": ys, "weight_ys": weights[0]}
    for i, name in enumerate("hc"[: len(state)]):
        arrays |= {f"{name}_0": state[i], f"grad_{name}_0": state[i].grad}
        arrays |= {f"{name}_n": final[i], f"weight_{name}_n": weights[i + 1]}
    for name, parameter in module.named_parameters():
        arrays |= {f"param/{name}": parameter, f"grad/{name}": parameter.grad}
    golden = {name: array.detach().numpy() for name, array in arrays.items()}
    spec = {name: getattr(module, name) for name in SPEC}
    versions = {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    golden |= {"spec": json.dumps(spec), "versions": json.dumps(versions)}
    return golden | ({"lengths": np.int32(case.lengths)} if case.lengths else {})


def main() -> None:
    torch.set_num_threads(1)  # one order of summation
    for name, case in CASES.items():
        path = HERE / f"torch_{name}.npz"
        np.savez_compressed(path, **compute(case))
        print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
