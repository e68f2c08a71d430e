"""A traced function as a straight-line program of elementwise C expressions.

Calls are opened, constants are folded, and equal expressions are computed once. Only
what JAX's guide to jaxpr interpreters documents is read: equations, the names of their
primitives, their variables, and the values of their parameters.

    https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike

from jrnn.kernels.cpu import primitives
from jrnn.kernels.cpu.primitives import MASK, VECTOR


class Unsupported(ValueError):
    """A cell has gates that cannot be written in C."""


class Expression(NamedTuple):
    """A C expression of others.

    Attributes:
      type: Its C type.
      template: The expression, with {0}, {1}, ... for its operands; an argument of the
        function has none.
      operands: The numbers of other expressions, or the text of constants.
    """

    type: str
    template: str
    operands: tuple[int | str, ...] = ()


class Refused(NamedTuple):
    """A value that C cannot compute; an error if a result needs it."""

    cause: str


Known = int | np.generic  # the number of an expression, or a constant
Value = Known | Refused


class Program:
    """The expressions of one function, numbered in an order of computation.

    Attributes:
      expressions: The expressions, by their numbers.
    """

    def __init__(self, dtype: DTypeLike, size: int, place: str):
        """Starts without expressions.

        Args:
          dtype: float32 or float64, the type of all real numbers.
          size: The number of elements of the arrays that the function was traced for.
          place: The name of the function, for errors.
        """
        self.expressions: list[Expression] = []
        self._numbers: dict[Expression, int] = {}
        self._dtype = jnp.dtype(dtype)
        self._size = size
        self._place = place

    def argument(self, text: str) -> int:
        """Returns the number of an argument, such as "u[0]"."""
        return self._add(VECTOR, text)

    def run(self, program: Any, arguments: Sequence[Value]) -> list[Value]:
        """Adds the expressions of a jaxpr, open or closed, and returns its results."""
        jaxpr = getattr(program, "jaxpr", program)
        consts = [constant(value) for value in getattr(program, "consts", ())]
        known: dict[Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
        known.update(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> Value:
            is_literal = hasattr(atom, "val")
            return constant(atom.val, atom.aval.dtype) if is_literal else known[atom]

        for equation in jaxpr.eqns:
            values = self._results(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, values, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def vector(self, value: Value) -> int:
        """Returns the number of a result, which must be a vector.

        Raises:
          Unsupported: It is not, or it cannot be computed.
        """
        if not isinstance(value, Refused) and self._type(value) != VECTOR:
            value = Refused(f"a result that is not {self._dtype}")
        if isinstance(value, Refused):
            raise self._error(value)
        return value if isinstance(value, int) else self._add(VECTOR, "{0}", value)

    def _error(self, refused: Refused) -> Unsupported:
        return Unsupported(
            "Expected gates of elementwise operations that jrnn.fused() can write in "
            f"C, got {refused.cause} in {self._place}; run it with jrnn.bptt()."
        )

    def _add(self, type_: str, template: str, *operands: Known) -> int:
        """Returns the number of an expression, the same for equal ones."""
        texts = [
            primitives.literal(one) if isinstance(one, np.generic) else one
            for one in operands
        ]
        expression = Expression(type_, template, tuple(texts))
        number = self._numbers.setdefault(expression, len(self.expressions))
        if number == len(self.expressions):
            self.expressions.append(expression)
        return number

    def _type(self, value: Known) -> str | None:
        """Returns the C type of a value; None: it has none."""
        if isinstance(value, int):
            return self.expressions[value].type
        return self._type_of(value.dtype)

    def _type_of(self, dtype: Any) -> str | None:
        return {self._dtype: VECTOR, np.dtype(bool): MASK}.get(dtype)

    def _is_uniform(self, value: Value | str) -> bool:
        """Returns whether all elements are known to be equal."""
        if not isinstance(value, int):
            return True
        operands = self.expressions[value].operands
        return bool(operands) and all(map(self._is_uniform, operands))

    def _results(self, equation: Any, operands: list[Value]) -> list[Value]:
        """Returns the results of an equation."""
        name, outputs = equation.primitive.name, equation.outvars
        if equation.effects:
            raise self._error(Refused(f"the primitive {name!r}, which has an effect"))
        inner = [value for value in equation.params.values() if _is_program(value)]
        if name in primitives.CALLS and len(inner) == 1:
            return self.run(inner[0], operands)
        known = [one for one in operands if not isinstance(one, Refused)]
        if len(known) < len(operands):
            refused = next(one for one in operands if isinstance(one, Refused))
            return [refused] * len(outputs)
        if name in primitives.SAME:
            pairs = zip(known, outputs, strict=True)
            return [self._same(equation, *pair) for pair in pairs]
        if len(outputs) > 1:
            return [Refused(f"the primitive {name!r}")] * len(outputs)
        return [self._result(equation, known, outputs[0].aval.dtype)]

    def _same(self, equation: Any, operand: Known, output: Any) -> Value:
        """Returns an operand whose elements keep their number and order."""
        sizes = [
            value for value in equation.params.values() if isinstance(value, tuple)
        ]
        in_order = equation.primitive.name != "reshape" or len(sizes) == 1
        if in_order and math.prod(output.aval.shape) == self._size:
            return operand
        if self._is_uniform(operand):
            return operand
        return Refused(
            f"the primitive {equation.primitive.name!r}, which repeats or moves numbers"
        )

    def _result(self, equation: Any, operands: list[Known], dtype: Any) -> Value:
        """Returns the only result of a primitive."""
        name = equation.primitive.name
        if name in primitives.FOLDED and not any(isinstance(a, int) for a in operands):
            with np.errstate(all="ignore"):
                return constant(primitives.FOLDED[name](*operands), dtype)
        types, wanted = [self._type(one) for one in operands], self._type_of(dtype)
        if name in ("integer_pow", "pow") and types[0] == VECTOR:
            return self._power(name, operands, equation)
        template = primitives.TEMPLATES.get((wanted, name, *types))
        if template == "{0}":
            return operands[0]
        if wanted is None or template is None:
            given = ", ".join(str(atom.aval.dtype) for atom in equation.invars)
            return Refused(f"the primitive {name!r} from {given} to {dtype}")
        return self._add(wanted, template, *operands)

    def _power(self, name: str, operands: list[Known], equation: Any) -> Value:
        """Returns x^y: by products if y is an integer, by a root if y is a half."""
        x = operands[0]
        if name == "integer_pow":
            (y,) = filter(_is_int, equation.params.values())  # its only integer
            return self._integer_power(x, y)
        y = None if isinstance(operands[1], int) else float(operands[1])
        if y in primitives.ROOTS:
            return self._add(VECTOR, primitives.ROOTS[y], x)
        if y in primitives.POWERS:
            return self._integer_power(x, int(y))
        return Refused("the primitive 'pow'" + ("" if y is None else f" with y = {y}"))

    def _integer_power(self, x: Known, y: int) -> Known:
        """Returns x^y by repeated squaring, for y < 0 one divided by x^-y."""
        one = self._dtype.type(1)
        found, power, left = None, x, abs(y)
        while left:
            if left & 1:
                found = power if found is None else self._times(found, power)
            left >>= 1
            power = self._times(power, power) if left else power
        if found is None:
            return one
        return found if y > 0 else self._add(VECTOR, "{0} / {1}", one, found)

    def _times(self, a: Known, b: Known) -> int:
        return self._add(VECTOR, "{0} * {1}", a, b)


def constant(value: Any, dtype: Any = None) -> np.generic | Refused:
    """Returns a number, of its own type or `dtype`; larger arrays are refused."""
    if isinstance(value, Tracer):
        return Refused("a constant that is traced")
    array = np.asarray(value)
    if array.size != 1:
        return Refused(f"a constant array of shape {array.shape}")
    return array.astype(dtype or array.dtype).flat[0]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_program(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")
