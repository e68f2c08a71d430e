"""What a function costs, from its traced program: nothing is computed or compiled."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Returns the multiply-adds of real numbers in a function's matrix products.

    A product of complex numbers counts as four of real ones. Elementwise operations,
    row look-ups and sums are not counted, and the body of a loop is counted once.

    Args:
      function: Any function of arrays.
      *arguments: Its arguments, or their shapes and types.
    """
    program = jax.make_jaxpr(function)(*arguments)
    return sum(map(_of_product, _equations(program)))


def kept_bytes(function: Callable[..., Any], params: Any, *others: Any) -> int:
    """Returns the bytes that JAX keeps between a function and its backward pass.

    These are the arrays that `jax.vjp` stores, among them arguments that the backward
    pass reads. The peak of memory is higher: it includes the outputs, their gradients,
    and temporaries.

    Args:
      function: (params, *others) -> arrays, differentiated by `params`.
      params: Arrays, or their shapes and types.
      *others: Further arguments, or their shapes and types.
    """

    def pull(params: Any, *others: Any) -> Any:
        return jax.vjp(lambda params: function(params, *others), params)[1]

    kept = jax.tree.leaves(jax.eval_shape(pull, params, *others))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in kept)


def _equations(program: Any) -> Iterator[Any]:
    """Yields every equation of a program and of the programs that it calls."""
    for equation in getattr(program, "jaxpr", program).eqns:
        yield equation
        values = list(equation.params.values())
        for inner in jax.tree.leaves(values, is_leaf=_is_program):
            if _is_program(inner):
                yield from _equations(inner)


def _is_program(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def _of_product(equation: Any) -> int:
    if equation.primitive.name != "dot_general":
        return 0
    # By its form, ((axes contracted), (axes of a batch)), each of left and right.
    (contracted, _), _ = next(filter(_is_axes, equation.params.values()))
    left, right = (variable.aval for variable in equation.invars)
    sizes = [left.shape[axis] for axis in contracted]
    both = [jnp.issubdtype(one.dtype, jnp.complexfloating) for one in (left, right)]
    out = equation.outvars[0].aval
    return math.prod(out.shape) * math.prod(sizes) * (4 if all(both) else 1)


def _is_axes(value: Any) -> bool:
    pairs = isinstance(value, tuple) and len(value) == 2
    return pairs and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value)
