"""The elementary functions of CPU kernels: errors in units in the last place."""

import numpy as np
import pytest

from tests.methods import minimax
from tests.native import HEADERS, call, compile_c, needs_compiler

pytestmark = needs_compiler

LONG = np.longdouble
PI = LONG("3.14159265358979323846264338327950288")
TYPES = {"float": np.float32, "double": np.float64}
MOST = 2.0  # units in the last place


def erf(x):
    """By a series of positive terms, which loses nothing by cancellation."""
    y = np.minimum(np.abs(x), LONG(7))
    term = total = y
    for n in range(1, 220):
        term = term * (2 * y * y / (2 * n + 1))
        total = total + term
    return np.copysign(2 / np.sqrt(PI) * np.exp(-y * y) * total, x)


TRUTH = {
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "erf": erf,
    "sqrt": np.sqrt,
}
ODD = "expm1", "log1p", "tanh", "erf", "sqrt"  # of a zero, they are that zero

# XLA's threads take subnormal numbers for zeros: bits 6 and 15 of this register.
LOOP = """
void run_{name}(const real *x, real *y, long n) {{
#if defined(FLUSHED) && defined(__SSE__)
  const unsigned before = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(before | 0x8040);
#endif
  for (long i = 0; i < n; i += LANES) {{
    const int count = n - i < LANES ? (int)(n - i) : LANES;
    store_some(y + i, v_{name}(load_some(x + i, count)), count);
  }}
#if defined(FLUSHED) && defined(__SSE__)
  __builtin_ia32_ldmxcsr(before);
#endif
}}
"""
TWICE = "rounded twice"  # as where there is no fused multiply-add


@pytest.fixture(
    scope="module", params=["fused", pytest.param(TWICE, marks=pytest.mark.slow)]
)
def libraries(request, tmp_path_factory):
    """The functions by the C type: as XLA runs them, or as another machine does."""
    loops = "".join(LOOP.format(name=name) for name in TRUTH)
    flags = ("-ffp-contract=off",) if request.param == TWICE else ("-DFLUSHED",)
    return {
        real: compile_c(
            f'#define JRNN_REAL {real}\n#include "vectors.h"\n{loops}',
            tmp_path_factory.mktemp(real),
            *flags,
        )
        for real in TYPES
    }


def run(library, name, x):
    y = np.empty_like(x)
    call(getattr(library, f"run_{name}"), x, y, x.size)
    return y


def points(dtype, count):
    """Numbers of all exponents and signs, most where functions change their way."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2 ** (8 * dtype().itemsize) - 1, count, np.uint64)
    whole = bits.astype(f"u{dtype().itemsize}").view(dtype)
    near = rng.normal(size=count) * np.exp(rng.uniform(-8, 5, count))
    exponents = rng.uniform(-760, 760, count) * (1 if dtype is np.float64 else 0.14)
    around_1 = 1 + rng.normal(size=count) * np.exp(rng.uniform(-10, 0, count))
    # Where 1 is lost in 1 + e^-x by a rounding that halves it.
    tie = -(np.finfo(dtype).nmant + 1) * np.log(2) + rng.uniform(-0.4, 0.4, count)
    rest = np.concatenate([near, exponents, around_1, tie]).astype(dtype)
    return np.concatenate([whole, rest])


def errors(y, truth, dtype):
    """In units in the last place, where the true result is a normal number."""
    info = np.finfo(dtype)
    normal = (np.abs(truth) >= info.tiny) & (np.abs(truth) <= info.max)
    exponent = np.frexp(np.abs(truth[normal]))[1] - 1 - info.nmant
    return normal, np.abs(y[normal] - truth[normal]) / np.ldexp(LONG(1), exponent)


def check(library, name, dtype, x):
    """Compares with long doubles, and where the result is not normal with its type."""
    info = np.finfo(dtype)
    x = x[::10] if name == "erf" else x  # whose series is slow
    x = x[(np.abs(x) >= info.tiny) | (x == 0) | np.isnan(x)]
    with np.errstate(all="ignore"):
        y, truth = run(library, name, x), TRUTH[name](x.astype(LONG))
        normal, found = errors(y, truth, dtype)
        worst = found.argmax()
        assert found[worst] <= MOST, (name, x[normal][worst], found[worst])
        rest, wanted = y[~normal], truth[~normal].astype(dtype)
        flushed = (np.abs(wanted) < info.tiny) & (np.abs(rest) <= info.tiny)
        same = (rest == wanted) | flushed | (np.isnan(rest) & np.isnan(wanted))
        assert same.all(), (name, x[~normal][~same][:5], rest[~same][:5])


@pytest.mark.parametrize("name", TRUTH)
def test_floats_are_within_two_units(libraries, name):
    every = np.arange(0, 2**32, 2**13 + 1, dtype=np.uint32).view(np.float32)
    x = np.concatenate([every, points(np.float32, 50_000)])
    check(libraries["float"], name, np.float32, x)


@pytest.mark.skipif(np.finfo(LONG).nmant < 63, reason="a long double is a double here")
@pytest.mark.parametrize("name", TRUTH)
def test_doubles_are_within_two_units(libraries, name):
    check(libraries["double"], name, np.float64, points(np.float64, 50_000))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUTH)
def test_a_million_points_are_within_two_units(libraries, name):
    if np.finfo(LONG).nmant >= 63:
        check(libraries["double"], name, np.float64, points(np.float64, 250_000))
    draws = np.random.default_rng(1).integers(0, 2**32, 2**20, np.uint32)
    check(libraries["float"], name, np.float32, draws.view(np.float32))
    # All floats where tanh has its largest errors.
    low, high = np.array([0.12, 0.26], np.float32).view(np.int32)
    every = np.arange(low, high, dtype=np.int32).view(np.float32)
    check(libraries["float"], name, np.float32, every)


@pytest.mark.parametrize("real", TYPES)
def test_special_values(libraries, real):
    dtype, library = TYPES[real], libraries[real]
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype)
    with np.errstate(all="ignore"):
        for name, truth in TRUTH.items():
            wanted = truth(x.astype(LONG)).astype(dtype)
            np.testing.assert_array_equal(run(library, name, x), wanted, err_msg=name)
    zeros = np.array([0.0, -0.0], dtype)
    for name in ODD:
        signs = np.signbit(run(library, name, zeros)).tolist()
        assert signs == [False, True], name


@pytest.mark.parametrize("real", TYPES)
def test_large_arguments_saturate(libraries, real):
    dtype, library = TYPES[real], libraries[real]
    x = np.array([30.0, 1e3, 1e4, 1e30, np.finfo(dtype).max], dtype)
    for name in ("tanh", "erf"):
        assert (run(library, name, x) == 1).all()
        assert (run(library, name, -x) == -1).all()
    assert (run(library, "logistic", x[1:]) == 1).all()
    assert (run(library, "logistic", -x[1:]) == 0).all()
    assert (run(library, "expm1", -x[1:]) == -1).all()


def test_vectors_are_loaded_and_stored_in_part(tmp_path):
    library = compile_c(
        """
        #define JRNN_REAL float
        #include "vectors.h"
        void copy(const real *x, real *y, long n) {
          store_some(y, load_some(x, (int)n), LANES);
          store_some(y + LANES, load(x), (int)n);
        }
        void lanes(real *y) { *y = LANES; }
        """,
        tmp_path,
    )
    lanes = np.zeros(1, np.float32)
    call(library.lanes, lanes)
    lanes = int(lanes[0])
    x = np.arange(1, lanes + 1, dtype=np.float32)
    for n in range(lanes + 1):
        y = np.full(2 * lanes, -1, np.float32)
        call(library.copy, x, y, n)
        assert y.tolist() == [*x[:n], *[0] * (lanes - n), *x[:n], *[-1] * (lanes - n)]


def text_of(name):
    return " ".join((HEADERS / name).read_text(encoding="utf-8").split())


def test_a_polynomial_is_what_minimax_derives():
    (line,) = minimax.tables(("LOG",), ("float",))
    assert line in text_of("constants.h")


@pytest.mark.slow
def test_all_polynomials_are_what_minimax_derives():
    text = text_of("constants.h")
    for line in minimax.tables():
        assert line in text
