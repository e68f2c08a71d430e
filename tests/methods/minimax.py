"""The polynomials of `jrnn/kernels/cpu/functions.h`, derived: run it to print them.

    python -m tests.methods.minimax

Each minimises the largest weighted error on an interval, by the exchange algorithm of
Remez, in decimal arithmetic: given degree + 2 points, solve for the polynomial whose
error alternates between them with equal size; replace the points by the extrema of its
error; repeat.

    E. W. Cheney, Introduction to Approximation Theory (1966), chapter 3.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, getcontext
from typing import NamedTuple

getcontext().prec = 70
LN2 = Decimal(2).ln()
ROOT_PI = Decimal("1.77245385090551602729816748334114518279754945612238712821381")
GRID = 600
TINY = Decimal(10) ** -9

Real = Callable[[Decimal], Decimal]


class Fit(NamedTuple):
    """A polynomial, lowest coefficient first, and its largest weighted error."""

    coefficients: list[Decimal]
    error: Decimal


class Problem(NamedTuple):
    """What is approximated: (function - polynomial) * weight on [low, high]."""

    function: Real
    weight: Real
    low: Decimal
    high: Decimal


def cosine(x: Decimal) -> Decimal:
    """Returns cos(x), by its series."""
    term = total = Decimal(1)
    n = 0
    while abs(term) > Decimal(10) ** -58:
        n += 2
        term *= -x * x / (n * (n - 1))
        total += term
    return total


def solve(rows: list[list[Decimal]]) -> list[Decimal]:
    """Solves a linear system, given with its right-hand side as the last column."""
    n = len(rows)
    for i in range(n):
        best = max(range(i, n), key=lambda j: abs(rows[j][i]))
        rows[i], rows[best] = rows[best], rows[i]
        for j in range(i + 1, n):
            ratio = rows[j][i] / rows[i][i]
            rows[j] = [a - ratio * b for a, b in zip(rows[j], rows[i], strict=True)]
    found = [Decimal(0)] * n
    for i in reversed(range(n)):
        rest = sum(rows[i][j] * found[j] for j in range(i + 1, n))
        found[i] = (rows[i][n] - rest) / rows[i][i]
    return found


def horner(coefficients: list[Decimal], x: Decimal) -> Decimal:
    """Returns the value of a polynomial."""
    total = Decimal(0)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def alternating(errors: list[Decimal], count: int) -> list[int]:
    """Returns where the error has its extrema, `count` of them of alternating sign."""
    found: list[int] = []
    for i, error in enumerate(errors):
        if found and (error > 0) == (errors[found[-1]] > 0):
            if abs(error) > abs(errors[found[-1]]):
                found[-1] = i
        else:
            found.append(i)
    while len(found) > count:
        ends = 0, len(found) - 1
        found.pop(min(ends, key=lambda end: abs(errors[found[end]])))
    return found


def minimax(given: Problem, degree: int) -> Fit:
    """Returns the polynomial of that degree whose largest weighted error is least."""
    pi = ROOT_PI * ROOT_PI
    middle, half = (given.low + given.high) / 2, (given.high - given.low) / 2
    nodes = [middle - half * cosine(pi * i / GRID) for i in range(GRID + 1)]
    nodes = [x for x in nodes if abs(x) > half * TINY]  # 0 / 0 at 0
    values = [(x, given.function(x), given.weight(x)) for x in nodes]
    count = degree + 2
    chosen = [round(i * (len(values) - 1) / (count - 1)) for i in range(count)]
    coefficients, level = [Decimal(0)], Decimal(0)
    for _ in range(30):
        rows = []
        for sign, i in enumerate(chosen):
            x, f, w = values[i]
            rows.append([x**n for n in range(degree + 1)] + [(-1) ** sign / w, f])
        *coefficients, level = solve(rows)
        errors = [(f - horner(coefficients, x)) * w for x, f, w in values]
        largest = max(map(abs, errors))
        if largest < abs(level) * Decimal("1.0001"):
            break
        chosen = alternating(errors, count)
    return Fit(coefficients, max(map(abs, errors)))


def erf(x: Decimal) -> Decimal:
    """Returns erf(x) by a series of positive terms, exp(-x^2) sum (2 x^2)^n / ..."""
    term = total = x
    n = 0
    while abs(term) > abs(total) * Decimal(10) ** -58:
        n += 1
        term *= 2 * x * x / (2 * n + 1)
        total += term
    return 2 / ROOT_PI * (-x * x).exp() * total


def erfcx(x: Decimal) -> Decimal:
    """Returns exp(x^2) erfc(x)."""
    return (x * x).exp() * (1 - erf(x))


def exponential() -> Problem:
    """(e^r - 1 - r - r^2 / 2) / r^3, so that the error of e^r - 1 is small."""
    half = LN2 / 2 * Decimal("1.001")  # what rounding may add to |r|
    rest = lambda r: (r.exp() - 1 - r - r * r / 2) / r**3
    return Problem(rest, lambda r: r**3 / (r.exp() - 1), -half, half)


def hyperbolic_tangent() -> Problem:
    """(e^(2r) - 1 - 2r - 2r^2) / (2 r^3)."""
    of_exp = exponential()
    return Problem(
        lambda r: 4 * of_exp.function(2 * r),
        lambda r: of_exp.weight(2 * r) / 4,
        of_exp.low / 2,
        of_exp.high / 2,
    )


def logarithm() -> Problem:
    """(log((1 + s) / (1 - s)) / s - 2) / z with z = s^2, for sqrt(1/2) .. sqrt(2)."""
    root = Decimal(2).sqrt()
    top = (root - 1) / (root + 1) * Decimal("1.001")
    log = lambda z: ((1 + z.sqrt()) / (1 - z.sqrt())).ln() / z.sqrt()
    return Problem(lambda z: (log(z) - 2) / z, lambda z: z / log(z), Decimal(0), top**2)


def small_erf() -> Problem:
    """erf(x) / x - 1 in z = x^2, for |x| up to 3/4."""
    ratio = lambda z: erf(z.sqrt()) / z.sqrt()
    high = Decimal("0.75") ** 2
    return Problem(lambda z: ratio(z) - 1, lambda z: 1 / ratio(z), Decimal(0), high)


def large_erf(end: int) -> Problem:
    """exp(x^2) erfc(x) in t = (x - 3) / (x + 3), for x from 3/4 to `end`."""
    x = lambda t: 3 * (1 + t) / (1 - t)
    weight = lambda t: (-(x(t) ** 2)).exp() / erf(x(t))
    t = lambda x: (Decimal(x) - 3) / (Decimal(x) + 3)
    return Problem(lambda u: erfcx(x(u)), weight, t("0.75"), t(end))


# For each table and type the problem and the degree.
TABLES = {
    "EXP": {"float": (exponential(), 3), "double": (exponential(), 9)},
    "TANH": {"float": (hyperbolic_tangent(), 3), "double": (hyperbolic_tangent(), 9)},
    "LOG": {"float": (logarithm(), 2), "double": (logarithm(), 6)},
    "ERF": {"float": (small_erf(), 5), "double": (small_erf(), 10)},
    "ERFCX": {"float": (large_erf(4), 6), "double": (large_erf(6), 12)},
}


def tables(
    names: Iterable[str] = TABLES, reals: Iterable[str] = ("float", "double")
) -> Iterator[str]:
    """Yields each table in C, with its error in units of the rounding error."""
    for name, real in itertools.product(names, reals):
        bits, digits, suffix = (24, 9, "f") if real == "float" else (53, 17, "")
        given, degree = TABLES[name][real]
        fit = minimax(given, degree)
        error = f"{float(fit.error * 2**bits):.2g}"
        numbers = ", ".join(f"{float(c):.{digits}g}{suffix}" for c in fit.coefficients)
        yield f"static const real {name}_TABLE[] = {{ /* {error} u */ {numbers}, }};"


if __name__ == "__main__":
    print(*tables(), sep="\n")
