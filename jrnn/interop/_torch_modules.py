"""Reads and makes modules of PyTorch; `torch` is passed in, not imported."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jrnn.core.check import is_traced
from jrnn.interop._torch_spec import TorchSpec

# The types in which PyTorch makes layers.
DTYPES = ("float64", "float32", "bfloat16", "float16")


def spec_of_module(nn: Any, module: Any) -> TorchSpec:
    """Returns the attributes of a module; raises TypeError if it is not recurrent."""
    if isinstance(module, nn.RNN | nn.LSTM | nn.GRU):
        named = (name for name in TorchSpec._fields if name != "is_cell")
        return TorchSpec(*(getattr(module, name) for name in named))
    for kind in ("RNN", "LSTM", "GRU"):
        if isinstance(module, getattr(nn, f"{kind}Cell")):
            tail = f"_{module.nonlinearity}".upper() if kind == "RNN" else ""
            sizes = module.input_size, module.hidden_size
            return TorchSpec(kind + tail, *sizes, bias=module.bias, is_cell=True)
    raise TypeError(
        "Expected module to be a torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU, or an "
        f"RNNCell, LSTMCell or GRUCell, got {type(module).__name__}"
        f"{_inside(nn, module)}."
    )


def _inside(nn: Any, module: Any) -> str:
    """Returns the remedy for a model that holds recurrent modules."""
    if not isinstance(module, nn.Module):
        return ""
    kinds = nn.RNNBase | nn.RNNCell | nn.LSTMCell | nn.GRUCell
    held = [name for name, one in module.named_modules() if isinstance(one, kinds)]
    return f"; pass the recurrent modules in it, one by one: {held}" if held else ""


def constructor(nn: Any, spec: TorchSpec) -> tuple[Any, dict[str, Any]]:
    """Returns a class of PyTorch, and its arguments."""
    kind, _, nonlinearity = spec.mode.partition("_")
    given = spec._asdict()
    del given["mode"], given["is_cell"]
    if spec.is_cell:
        given = {n: given[n] for n in ("input_size", "hidden_size", "bias")}
    elif kind != "LSTM":
        del given["proj_size"]
    if nonlinearity:
        given["nonlinearity"] = nonlinearity.lower()
    return getattr(nn, f"{kind}Cell" if spec.is_cell else kind), given


def dtype_of(arrays: Mapping[str, Any]) -> str:
    """Returns the dtype of a module's parameters.

    Raises:
      TypeError: They are traced.
      ValueError: They have several dtypes, or one in which PyTorch makes no module.
    """
    if any(is_traced(array) for array in arrays.values()):
        raise TypeError(
            "Expected params with values for a module of PyTorch, got traced ones, "
            "which have none; call to_torch outside of jit, or to_arrays inside."
        )
    dtypes = sorted({str(array.dtype) for array in arrays.values()})
    if len(dtypes) > 1:
        raise ValueError(
            f"Expected params of one dtype, as a module of PyTorch has, got {dtypes}."
        )
    if dtypes[0] not in DTYPES:
        raise ValueError(
            f"Expected params of a dtype of PyTorch's layers, {', '.join(DTYPES)}, got "
            f"{dtypes[0]}; cast them."
        )
    return dtypes[0]


def tensor(torch: Any, array: Any) -> Any:
    """Returns a copy as a tensor; NumPy's bfloat16 is unknown to PyTorch."""
    if str(array.dtype) == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())
