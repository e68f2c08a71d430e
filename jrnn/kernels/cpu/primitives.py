"""The elementwise primitives of JAX, written in C with the functions of `vectors.h`.

Floating arrays of JAX are vectors in C and boolean ones masks, element by element.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

VECTOR, MASK = "vec", "ivec"

# Vectors to a vector.
ARITHMETIC = {
    "add": "{0} + {1}",
    "add_any": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "square": "{0} * {0}",
    "one_minus_square": "(1 - {0}) * (1 + {0})",
    "log2": "v_log({0}) / splat((real)0.6931471805599453)",
    "rsqrt": "1 / v_sqrt({0})",
    "max": "v_max({0}, {1})",
    "min": "v_min({0}, {1})",
    "clamp": "v_min(v_max({1}, {0}), {2})",
    "convert_element_type": "{0}",
} | {
    name: f"v_{name}({{0}})"
    for name in "exp exp2 expm1 log log1p tanh logistic erf sin cos sqrt sign "
    "abs".split()
}

# Vectors to a mask.
QUESTIONS = {
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "is_finite": "v_is_finite({0})",
    "convert_element_type": "{0} != 0",
}

# Masks to a mask.
LOGIC = {
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "xor": "{0} ^ {1}",
    "not": "~{0}",
    "eq": "~({0} ^ {1})",
    "ne": "{0} ^ {1}",
    "select_n": "({0} & {2}) | (~{0} & {1})",
    "convert_element_type": "{0}",
}

# The type of the result, the primitive, the types of its operands: the expression.
TEMPLATES = {
    (to, name, *(of for i in range(3) if f"{{{i}}}" in text)): text
    for of, to, table in (
        (VECTOR, VECTOR, ARITHMETIC),
        (VECTOR, MASK, QUESTIONS),
        (MASK, MASK, LOGIC),
    )
    for name, text in table.items()
} | {
    (VECTOR, "select_n", MASK, VECTOR, VECTOR): "v_select({0}, {2}, {1})",
    (VECTOR, "convert_element_type", MASK): "v_select({0}, splat(1), splat(0))",
}

# x^y for these y; x + 0 is 0 for -0, as JAX's power is.
ROOTS = {
    0.5: "v_select({0} == -INFINITE, splat(INFINITE), v_sqrt({0} + 0))",
    -0.5: "v_select({0} == -INFINITE, splat(0), 1 / v_sqrt({0} + 0))",
}
POWERS = {-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0}  # products are exact enough

# The result has the operand's elements, in their order.
SAME = set(
    "broadcast_in_dim reshape squeeze expand_dims copy copy_p stop_gradient name "
    "optimization_barrier".split()
)

# The program that is called takes their place.
CALLS = set(
    "pjit jit closed_call core_call core_closed_call call named_call remat remat2 "
    "checkpoint custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr".split()
)

# These are computed here if all operands are constants, as NumPy computes them.
FOLDED: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "select_n": lambda which, *cases: cases[int(which)],
    "convert_element_type": lambda value: value,
}


def literal(value: np.generic) -> str:
    """Returns a constant in C: exact, with infinities, NaN and the sign of zero."""
    if value.dtype == np.bool_:
        return "isplat(-1)" if value else "isplat(0)"
    number = float(value)
    if np.isnan(number):
        return 'splat((real)__builtin_nan(""))'
    if np.isinf(number):
        return "splat(-INFINITE)" if number < 0 else "splat(INFINITE)"
    digits, exponent = number.hex().split("p")
    return f"splat((real){digits.rstrip('0').rstrip('.')}p{exponent})"
