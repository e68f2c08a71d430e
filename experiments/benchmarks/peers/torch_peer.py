"""PyTorch's `nn.RNN`, `nn.GRU` and `nn.LSTM`, with time first, their default."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np

from experiments.benchmarks.peers.problems import Problem, Weights

# On Linux its CPU build is meant; the plain one brings gigabytes of CUDA.
INSTALL = "pip install torch==2.13.0"


class TorchPeer(NamedTuple):
    """PyTorch's way to run one problem; each call ends when its work is done.

    Attributes:
      infer: () -> ys, without a graph for gradients.
      train: () -> loss, and gradients left in the parameters and the inputs.
      outputs: () -> ys as NumPy.
      gradients: () -> those of W_x, W_h, b and xs, in jrnn's layout, as NumPy.
      step: () -> one step of streaming, B = 1.
    """

    infer: Callable[[], Any]
    train: Callable[[], Any]
    outputs: Callable[[], np.ndarray]
    gradients: Callable[[], tuple[Weights, np.ndarray]]
    step: Callable[[], Any]


def torch_peer(
    problem: Problem, device: str = "cpu", dtype: str = "float32"
) -> TorchPeer:
    """Builds the module with the problem's weights.

    Args:
      problem: What is run.
      device: As PyTorch names it; on "cuda" the module is cuDNN's.
      dtype: Of parameters and inputs; the loss is computed in float32.

    Raises:
      ModuleNotFoundError: PyTorch is not installed.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports] optional
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"PyTorch is not installed. Run: {INSTALL}"
        ) from error
    I, H = problem.shape.I, problem.shape.H
    nn = torch.nn
    make = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[problem.cell]
    once = {"elman": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}[problem.cell]
    module, cell = make(I, H).to(device), once(I, H).to(device)
    put = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)
    weights = problem.weights
    values = (weights.W_x.T, weights.W_h.T, weights.b, np.zeros_like(weights.b))
    with torch.no_grad():
        for owner in (module, cell):
            for parameter, value in zip(owner.parameters(), values, strict=True):
                parameter.copy_(put(value))
    kind = getattr(torch, dtype)
    module, cell = module.to(kind), cell.to(kind)
    module.flatten_parameters()
    xs = put(problem.xs).to(kind).requires_grad_(True)
    readout, one = put(problem.readout), put(problem.xs[0, :1]).to(kind)
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def infer() -> Any:
        with torch.inference_mode():
            ys = module(xs)[0]
            wait()
            return ys

    def train() -> Any:
        module.zero_grad(set_to_none=True)
        xs.grad = None
        loss = torch.tanh(module(xs)[0].float() @ readout).mean()
        loss.backward()
        wait()
        return loss

    def gradients() -> tuple[Weights, np.ndarray]:
        train()
        W_x, W_h, b, _ = (p.grad.float().cpu().numpy() for p in module.parameters())
        assert xs.grad is not None
        return Weights(W_x.T, W_h.T, b), xs.grad.float().cpu().numpy()

    def step() -> Any:
        with torch.inference_mode():
            found = cell(one)
            wait()
            return found

    outputs = lambda: infer().float().cpu().numpy()
    return TorchPeer(infer, train, outputs, gradients, step)


def peak_on_gpu(call: Callable[[], Any]) -> int:
    """Returns the bytes that a call takes at most, beside those that were taken."""
    import torch  # pyright: ignore[reportMissingImports] optional

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


def without_onednn(call: Callable[[], Any]) -> Callable[[], Any]:
    """Returns a call that leaves oneDNN aside.

    On a CPU its primitive runs an LSTM's whole sequence in one operation, and of these
    cells the LSTM's alone; without it PyTorch runs operation after operation.
    """
    import torch  # pyright: ignore[reportMissingImports] optional

    flags = torch.backends.mkldnn.flags

    def run() -> Any:
        # None leaves TF32 as it is, of which PyTorch would warn.
        with flags(enabled=False, allow_tf32=cast(bool, None)):
            return call()

    return run
