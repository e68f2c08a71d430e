"""How to call exported programs, for programs to read and for people."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.export  # older jax does not import it

from jrnn.interop.export.functions import Function, Settings

FORMAT = "jrnn export 1"
SHARED = ("params", "state")  # arguments of several functions
STARTS = (
    "state.npz has the state of one sequence at its start; b sequences take b copies.",
    "start(params) computes it: call it in the loss to train a learned initial state.",
)
TWO_STEPS = "number of steps, 2 or more; for one step call step"
SYMBOLS = {"t": "number of steps", "b": "number of sequences"}


def signature(
    made: Any,
    functions: Mapping[str, Function],
    exported: Mapping[str, jax.export.Exported],
    settings: Settings,
    vjp_order: int,
) -> dict[str, Any]:
    """Returns names, shapes and types of all arguments and results, for JSON."""
    first = next(iter(exported.values()))
    return {
        "format": FORMAT,
        "made": str(made),
        "jax": jax.__version__,
        "calling_convention": first.calling_convention_version,
        "platforms": list(first.platforms),
        "vjp_order": vjp_order,
        "sizes": {"t": settings.steps, "b": settings.batch},
        "functions": {
            name: {
                "arguments": {n: _told(like) for n, like in one.arguments.items()},
                "results": _results(one, exported[name]),
            }
            for name, one in functions.items()
        },
    }


def _results(function: Function, exported: jax.export.Exported) -> dict[str, Any]:
    made = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    each = made if len(function.results) > 1 else (made,)
    return {n: _told(one) for n, one in zip(function.results, each, strict=True)}


def _told(like: Any) -> Any:
    if isinstance(like, dict):
        return {name: _told(like[name]) for name in sorted(like)}
    sizes = [size if isinstance(size, int) else str(size) for size in like.shape]
    return {"dtype": str(like.dtype), "shape": sizes}


def readme(name: str, told: Mapping[str, Any]) -> str:
    """Returns the signature as text, and code that calls the first function.

    Args:
      name: Of the folder.
      told: The result of `signature`.
    """
    every = told["functions"]
    first = next(iter(every.values()))["arguments"]
    lines = [
        f"{told['made']}, exported by jrnn with jax {told['jax']} for "
        f"{', '.join(told['platforms'])}.",
        "",
        "A function is a file NAME.jax. Parameters and states are dictionaries:",
    ]
    for shared in (name for name in SHARED if name in first):
        lines += ["", shared]
        lines += [f"  {n:14s} {_shown(like)}" for n, like in first[shared].items()]
    for own, one in every.items():
        arguments, results = ", ".join(one["arguments"]), ", ".join(one["results"])
        lines += ["", f"{own}({arguments}) -> {results}"]
        both = (one["arguments"] | one["results"]).items()
        both = {n: like for n, like in both if n not in SHARED and like}
        lines += [f"  {n:14s} {_shown(like)}" for n, like in both.items()]
    if "start" in every:
        lines += ["", *STARTS]
    told_of = SYMBOLS | ({"t": TWO_STEPS} if "log_prob" in every else {})
    symbols = [f"  {s:14s} {words}" for s, words in told_of.items() if _uses(told, s)]
    lines += ["", "Sizes", *symbols] * bool(symbols)
    if told["vjp_order"]:
        lines += ["", f"Reverse derivatives up to order {told['vjp_order']} are kept."]
    code = _code(name, told)
    return "\n".join([*lines, "", "It needs jax and flatbuffers:", "", *code, ""])


def _uses(told: Any, symbol: str) -> bool:
    if isinstance(told, dict):
        return any(_uses(one, symbol) for one in told.values())
    return isinstance(told, list) and symbol in told


def _shown(like: Mapping[str, Any]) -> str:
    if set(like) == {"dtype", "shape"}:
        return f"{like['dtype']} ({', '.join(map(str, like['shape']))})"
    return ", ".join(f"{name}: {_shown(one)}" for name, one in like.items())


def _code(name: str, told: Mapping[str, Any]) -> list[str]:
    """Returns the lines of a program that calls the first function with zeros."""
    own, function = next(iter(told["functions"].items()))
    arguments = function["arguments"]
    types = {n: like["dtype"] for n, like in arguments["params"].items()}
    wide = "float64" in str(arguments)
    lines = ["import jax, jax.export, jax.numpy as jnp, numpy as np", ""]
    lines += ['jax.config.update("jax_enable_x64", True)'] * wide
    lines += [
        f"folder = {f'{name}/'!r}",
        f'raw = open(folder + "{own}.jax", "rb").read()',
        f"{own} = jax.export.deserialize(bytearray(raw)).call",
        f"types = {types}",
        'loaded = np.load(folder + "params.npz")',
        "params = {name: jnp.asarray(loaded[name], types[name]) for name in types}",
        f"t, b = {told['sizes']['t'] or 3}, {told['sizes']['b'] or 2}",
    ]
    if "state" in arguments:
        lines += [
            'start = np.load(folder + "state.npz")',
            "state = {name: jnp.stack([start[name]] * b) for name in start.files}",
        ]
    given = {n: like for n, like in arguments.items() if n not in ("params", "state")}
    for argument, like in given.items():
        shape = ", ".join(map(str, like["shape"]))
        value = "t" if argument == "lengths" else "0"
        lines += [f'{argument} = jnp.full([{shape}], {value}, "{like["dtype"]}")']
    results = ", ".join(function["results"])
    lines += [f"{results} = {own}({', '.join(arguments)})"]
    return [f"    {line}".rstrip() for line in lines]
