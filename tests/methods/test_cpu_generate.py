"""The C code of gates, compiled and compared with JAX: cells, primitives, refusals."""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn.core.cell import Gated
from jrnn.kernels.cpu.generate import Unsupported, cell_source
from tests.native import call, compile_c, needs_compiler
from tests.registry import CELLS

TYPES = {"float": "float32", "double": "float64"}
SIZES = 1, 5, 33
NUMBERS = max(SIZES)
# Units in the last place of the largest number of an array; float64 is JAX's own.
UNITS = {"float": 8, "double": 30}


class State(NamedTuple):
    h: jax.Array


def gated_of(function, inputs=1, **changed):
    """A seam with function(u[0], v[0], h)[:inputs] as its new state."""

    def pointwise(state_tm1, u, v):
        return State(function(*(u[0], v[0], state_tm1.h)[:inputs])), ()

    pullback = lambda state_tm1, state, saved, dstate: (dstate, dstate, dstate)
    gated = Gated(1, lambda params: (params, None), pointwise, pullback)
    return gated._replace(**changed)


def shape(dtype, n=4, rows=3):
    return jax.ShapeDtypeStruct((rows, n), dtype)


def source_of(function, dtype="float32", inputs=1, n=4):
    return cell_source(gated_of(function, inputs), State(shape(dtype, n)))


def gated_cells():
    made = {case.name: case.make(3, 4) for case in CELLS}
    return {name: cell for name, cell in made.items() if cell.gated is not None}


def state_of(cell, dtype):
    zero = lambda: cell.init_state(cell.init(jax.random.key(0), dtype), (3,))
    return jax.eval_shape(zero)


# One loop over numbers for each cell of a translation unit, in the place of walk.h.
WALK = """
#define NAMED(a, b) JRNN_PASTE(a, b)
void NAMED(forward_, CELL)(const real *given, real *to, long n) {
  const int arguments = JRNN_FIELDS + 2 * JRNN_GATES;
  const int results = JRNN_FIELDS + JRNN_SAVED;
  for (long i = 0; i < n; i += LANES) {
    const int count = n - i < LANES ? (int)(n - i) : LANES;
    vec in[arguments], out[results];
    for (int j = 0; j < arguments; j++) in[j] = load_some(given + j * n + i, count);
    NAMED(pointwise_, CELL)(in, in + JRNN_FIELDS, in + JRNN_FIELDS + JRNN_GATES, out,
                            out + JRNN_FIELDS);
    for (int j = 0; j < results; j++) store_some(to + j * n + i, out[j], count);
  }
}
void NAMED(backward_, CELL)(const real *given, real *to, long n) {
  const int arguments = 3 * JRNN_FIELDS + JRNN_SAVED;
  const int results = JRNN_FIELDS + (JRNN_SHARED ? 1 : 2) * JRNN_GATES;
  for (long i = 0; i < n; i += LANES) {
    const int count = n - i < LANES ? (int)(n - i) : LANES;
    vec in[arguments], out[results + JRNN_GATES];
    for (int j = 0; j < arguments; j++) in[j] = load_some(given + j * n + i, count);
    const vec *saved = in + 2 * JRNN_FIELDS, *dstate = saved + JRNN_SAVED;
    NAMED(pullback_, CELL)(in, in + JRNN_FIELDS, saved, dstate, out, out + JRNN_FIELDS,
                           out + JRNN_FIELDS + JRNN_GATES);
    for (int j = 0; j < results; j++) store_some(to + j * n + i, out[j], count);
  }
}
"""
MACROS = "REAL GATES FIELDS SAVED SHARED READS_TM1 READS_STATE READS_SAVED".split()


def compiled(sources, folder):
    """All cells in one library: compilers take longer to start than to compile one."""
    (folder / "walk.h").write_text(WALK, encoding="utf-8")
    renamed = (
        "".join(f"#undef JRNN_{name}\n" for name in MACROS[1:] if i)
        + f"#undef CELL\n#define CELL {i}\n#undef JRNN_REAL\n"
        + source.replace(" pointwise(", f" pointwise_{i}(").replace(
            " pullback(", f" pullback_{i}("
        )
        for i, source in enumerate(sources)
    )
    return compile_c("".join(renamed), folder)


def run(function, arguments, n, results):
    given = np.stack([np.asarray(one).ravel()[:n] for one in arguments])
    to = np.full((results, n), np.nan, given.dtype)
    call(function, np.ascontiguousarray(given), to, n)
    return to


@pytest.fixture(scope="module", params=TYPES)
def cells(request, tmp_path_factory):
    """The C type, and for each cell its number in the library."""
    made = gated_cells()
    made.pop("elman sin")  # sin is refused
    dtype = TYPES[request.param]
    sources = [cell_source(one.gated, state_of(one, dtype)) for one in made.values()]
    library = compiled(sources, tmp_path_factory.mktemp("cells"))
    numbers = {name: i for i, name in enumerate(made)}
    return request.param, library, made, numbers


GATED = sorted(gated_cells().keys() - {"elman sin"})


def drawn(seed, trees):
    """Numbers of float32, so that both types of JAX and C compute of the same."""
    rng = np.random.default_rng(seed)
    draw = lambda leaf: jnp.float64(np.float32(2 * rng.normal(size=NUMBERS)))[None]
    return jax.tree.map(draw, trees)


def assert_near(real, found, wanted):
    """Normwise, against the same in float64."""
    units = np.finfo(TYPES[real]).eps * UNITS[real]
    for one, other in zip(found, wanted, strict=True):
        other = np.asarray(other).ravel()
        within = units * max(abs(other).max(), 1.0)
        np.testing.assert_allclose(one, other[: one.size], 0, within)


@needs_compiler
@pytest.mark.parametrize("name", GATED)
def test_every_gated_cell_equals_its_gates_in_jax(cells, name):
    real, library, made, numbers = cells
    gated, state = made[name].gated, state_of(made[name], "float64")
    gates = (jax.tree.leaves(state)[0],) * gated.gates
    like = (state, gates, gates)
    given = drawn(0, like)
    wanted = jax.tree.leaves(jax.jit(gated.pointwise)(*given))
    dstate = drawn(1, state)
    after, saved = jax.jit(gated.pointwise)(*given)
    back = given[0], after, saved, dstate
    pulled, du, dv = jax.jit(gated.pullback)(*back)
    source = cell_source(gated, state)
    both = (du,) if "JRNN_SHARED 1" in source else (du, dv)
    backwards = jax.tree.leaves((pulled, both))
    number = numbers[name]
    cast = lambda tree: [leaf.astype(TYPES[real]) for leaf in jax.tree.leaves(tree)]
    for n in SIZES:
        forward = getattr(library, f"forward_{number}")
        backward = getattr(library, f"backward_{number}")
        found = run(forward, cast(given), n, len(wanted))
        assert_near(real, found, wanted)
        found = run(backward, cast(back), n, len(backwards))
        assert_near(real, found, backwards)


def twice(x):
    """A function with its own derivative, written for both modes."""
    return 2 * x


custom_jvp = jax.custom_jvp(twice)
custom_jvp.defjvp(lambda x, dx: (twice(*x), 2 * dx[0]))
custom_vjp = jax.custom_vjp(twice)
custom_vjp.defvjp(lambda x: (twice(x), None), lambda _, dy: (2 * dy,))


def vjp_of(function):
    return lambda x, dy: jax.vjp(function, x)[1](dy)[0]


# Functions of one, two or three numbers, each with a primitive or a few.
PRIMITIVES = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "neg": lambda x: -x,
    "abs": jnp.abs,
    "sign": jnp.sign,
    "max": lambda x, y: jnp.maximum(x, y),
    "min": lambda x, y: jnp.minimum(x, y),
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "erf": lambda x: jax.lax.erf(x),
    "sin": jnp.sin,
    "cos": jnp.cos,
    "sqrt": jnp.sqrt,
    "rsqrt": lambda x: jax.lax.rsqrt(x),
    "square": jnp.square,
    "one minus square": lambda x: 1 - jnp.square(x),
    "log2": jnp.log2,
    "integer power": lambda x: x**5,
    "negative integer power": lambda x: jax.lax.integer_pow(x, -3),
    "power 0": lambda x: jax.lax.integer_pow(x, 0),
    "power 2.0": lambda x: x**2.0,
    "power 0.5": lambda x: x**0.5,
    "power -0.5": lambda x: x**-0.5,
    "clamp": lambda x, y: jax.lax.clamp(-jnp.ones_like(x), x, abs(y)),
    "lt": lambda x, y: jnp.where(x < y, x, 3.0),
    "le": lambda x, y: jnp.where(x <= y, x, 3.0),
    "gt": lambda x, y: jnp.where(x > y, x, 3.0),
    "ge": lambda x, y: jnp.where(x >= y, x, 3.0),
    "eq": lambda x, y: jnp.where(x == y, x, 3.0),
    "ne": lambda x, y: jnp.where(x != y, x, 3.0),
    "and or not xor": lambda x, y: jnp.where(
        ((x < 1) & ~(y < 1)) ^ ((x < 0) | (y > 2)), x, y
    ),
    "booleans": lambda x, y: jnp.where(
        jnp.where(x < 0, y < 1, y > 2) == ((x < 1) != (y < 0)), x, y
    ),
    "is_finite": lambda x: jnp.where(jnp.isfinite(x), 1.0, x),
    "bool to float": lambda x: (x > 0).astype(x.dtype),
    "float to bool": lambda x: jnp.where(x.astype(bool), 1.0, x),
    "infinite": lambda x, y: jnp.where(x < y, jnp.inf, x),
    "minus infinite": lambda x, y: jnp.where(x < y, -jnp.inf, x),
    "not a number": lambda x, y: jnp.where(x < y, jnp.nan, x),
    "minus zero": lambda x, y: jnp.where(x < y, -0.0, x),
    "a third": lambda x: x * (1 / 3) + jnp.asarray(0.1, x.dtype),
    "constant integers": lambda x: x + (jnp.int32(3) + jnp.int32(4)).astype(x.dtype),
    "broadcast": lambda x: x + jnp.broadcast_to(jnp.ones((), x.dtype), x.shape),
    "reshape": lambda x, y: (x[:, None] * y.reshape(x[:, None].shape)).squeeze(1),
    "stop_gradient": lambda x: jax.lax.stop_gradient(x) * 2,
    "copy": lambda x: jnp.array(x, copy=True),
    "jit": lambda x: jax.jit(twice)(x) + x,
    "custom_jvp": lambda x, y: custom_jvp(x) * y,
    "custom_vjp": lambda x, y: custom_vjp(x) * y,
    "checkpoint": lambda x: jax.checkpoint(twice)(x) + 1,
    "named_call": lambda x: jax.named_call(twice, name="twice")(x) + 1,
    "optimization_barrier": lambda x: jax.lax.optimization_barrier((x, 2 * x))[1],
    "fma": lambda x, y, z: x * y + z,
    "vjp of custom_jvp": vjp_of(custom_jvp),
    "vjp of custom_vjp": vjp_of(custom_vjp),
    "vjp of checkpoint": vjp_of(jax.checkpoint(jnp.tanh)),
    **{
        f"vjp of {function.__name__}": vjp_of(function)
        for function in (
            *(jax.nn.relu, jax.nn.relu6, jax.nn.silu, jax.nn.softplus, jax.nn.elu),
            *(jax.nn.selu, jax.nn.celu, jax.nn.mish, jax.nn.hard_tanh, jax.nn.gelu),
            *(jax.nn.log_sigmoid, jax.nn.squareplus, jax.nn.soft_sign, jnp.tanh),
            *(jax.nn.leaky_relu, jax.nn.hard_sigmoid, jrnn.activations.positive),
        )
    },
}


def to_integers(x):
    return (x > 0).astype(jnp.int32).astype(x.dtype)


# Functions that are refused, and how the error names the reason.
REFUSED = {
    "sort": (lambda x: jnp.sort(x), "primitive 'sort'"),
    "sum": (lambda x: x - x.sum(), "primitive 'reduce_sum'"),
    "cumsum": (lambda x: jnp.cumsum(x, axis=-1), "primitive 'cumsum'"),
    "product": (lambda x: x @ jnp.ones((4, 4), x.dtype), "primitive 'dot_general'"),
    "lgamma": (jax.lax.lgamma, "primitive 'lgamma'"),
    "transpose": (lambda x: x.T.reshape(x.shape), "primitive 'transpose'"),
    "broadcast": (
        lambda x: jnp.broadcast_to(x[None], (3, *x.shape)).sum(0),
        "'broadcast_in_dim', which repeats or moves",
    ),
    "reshape": (
        lambda x: jax.lax.reshape(x, x.shape, dimensions=(1, 0)),
        "'reshape', which repeats or moves",
    ),
    "reverse": (lambda x: x[::-1], "primitive 'rev'"),
    "a slice": (lambda x: x - x[:1], "primitive 'slice'"),
    "concatenate": (lambda x: jnp.concatenate([x[:1], x[:1]]), "primitive 'slice'"),
    "a loop": (lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y * x, x), "'scan'"),
    "a branch": (lambda x: jax.lax.cond(True, jnp.exp, jnp.log, x), "'cond'"),
    "erfc": (lambda x: jax.nn.gelu(x, approximate=False), "primitive 'erfc'"),
    "iota": (lambda x: x * jax.lax.iota(x.dtype, x.shape[-1])[None], "'iota'"),
    "another type": (
        lambda x: x.astype(jnp.bfloat16).astype(x.dtype),
        "primitive 'convert_element_type' from float32 to bfloat16",
    ),
    "integers": (to_integers, "'convert_element_type' from bool to int32"),
    "a power": (lambda x: jnp.abs(x) ** 2.5, "'pow' with y = 2.5"),
    "a power of numbers": (lambda x: jnp.abs(x) ** x, "primitive 'pow'"),
    "constants": (
        lambda x: x * np.arange(4, dtype=np.float32)[None],
        r"a constant array of shape \(1, 4\)",
    ),
    "booleans": (lambda x: x > 0, "a result that is not float32"),
    "in a call": (lambda x: jax.jit(jnp.sort)(x), "primitive 'sort'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_elementwise_is_refused_by_name(name):
    function, reason = REFUSED[name]
    with pytest.raises(
        Unsupported, match=f"got .*{reason}.*in pointwise of tests.*bptt"
    ):
        source_of(function)


def test_an_effect_is_refused_though_no_result_needs_it():
    def shown(x):
        jax.debug.print("{}", x)
        return x

    with pytest.raises(Unsupported, match="'debug_.*', which has an effect"):
        source_of(shown)


def test_what_no_result_needs_is_left_out():
    def function(x):
        jnp.sort(x)
        jnp.tanh(x)
        return x

    source = source_of(function)
    assert "v_tanh" not in source
    assert "  const vec t0 = u[0];\n  state[0] = t0;\n}" in source


def test_a_pullback_names_itself():
    pullback = lambda tm1, state, saved, dstate: (dstate, (jnp.sort(dstate.h),), dstate)
    gated = gated_of(jnp.exp, pullback=pullback)
    with pytest.raises(Unsupported, match="'sort' .*in <lambda> of tests"):
        cell_source(gated, State(shape("float32")))


def test_a_traced_constant_is_refused():
    @jax.jit
    def outer(scale):
        with pytest.raises(Unsupported, match="a constant that is traced"):
            source_of(lambda x: x * scale)
        return scale

    jax.eval_shape(outer, jnp.float32(2.0))


class Pair(NamedTuple):
    h: jax.Array
    c: jax.Array


def test_arrays_of_other_sizes_and_types_are_refused():
    for dtype in ("float16", "bfloat16", "complex64"):
        with pytest.raises(Unsupported, match=f"float32 or float64.*got {dtype}"):
            source_of(jnp.exp, dtype)
    gated = gated_of(jnp.exp)
    pair = Pair(shape("float32"), shape("float32", n=5))
    with pytest.raises(Unsupported, match=r"got float32\[4\], float32\[5\]"):
        cell_source(gated, pair)
    saving = lambda state_tm1, u, v: (State(u[0]), u[0] > 0)
    with pytest.raises(Unsupported, match=r"got float32\[4\], bool\[4\]"):
        cell_source(gated._replace(pointwise=saving), State(shape("float32")))


def test_a_gate_too_few_is_an_error():
    few = lambda state_tm1, state, saved, dstate: (dstate, (), ())
    gated = gated_of(jnp.exp, pullback=few)
    with pytest.raises(ValueError, match="Expected .*'du': 1, 'dv': 1.*got "):
        cell_source(gated, State(shape("float32")))


def test_equal_cells_give_equal_text_whatever_their_size():
    sizes = [(jrnn.lstm(3, n), n) for n in (1, 2, 7)] + [(jrnn.lstm(5, 2), 2)]
    texts = {cell_source(cell.gated, state_of(cell, "float32")) for cell, _ in sizes}
    assert len(texts) == 1
    again = jrnn.elman(3, 4, activation=lambda a: jnp.tanh(a) * 0.5)
    other = jrnn.elman(3, 4, activation=lambda a: jnp.tanh(a) * 0.5)
    assert again != other
    state = state_of(again, "float64")
    assert cell_source(again.gated, state) == cell_source(other.gated, state)
    assert "#define JRNN_REAL double" in cell_source(again.gated, state)


def test_the_text_of_a_small_cell():
    cell = jrnn.elman(3, 4)
    text = cell_source(cell.gated, state_of(cell, "float32"))
    body = text[text.index("JRNN_INLINE void pullback") :]
    assert (
        body
        == """\
JRNN_INLINE void pullback(const vec *state_tm1, const vec *state, const vec *saved,
                          const vec *dstate, vec *dstate_tm1, vec *du, vec *dv) {
  const vec t0 = state[0];
  const vec t1 = dstate[0];
  const vec t2 = t0 * t0;
  const vec t3 = splat((real)0x1p+0) - t2;
  const vec t4 = t1 * t3;
  const vec t5 = splat((real)0x0p+0);
  dstate_tm1[0] = t5;
  du[0] = t4;
}

#include "walk.h"
"""
    )


@pytest.mark.parametrize(
    ("make", "masks"),
    [
        (jrnn.elman, (1, 1, 0, 1, 0, 1, 0)),
        (jrnn.gru, (3, 1, 4, 0, 1, 0, 15)),
        (jrnn.lstm, (4, 2, 4, 1, 2, 2, 15)),
    ],
)
def test_the_head_counts_arrays_and_names_those_that_the_pullback_reads(make, masks):
    cell = make(3, 4)
    text = cell_source(cell.gated, state_of(cell, "float32"))
    lines = (line.split() for line in text.splitlines() if line.startswith("#define"))
    found = {name: value for _, name, value, *_ in lines}
    assert [int(found[f"JRNN_{name}"].rstrip("u")) for name in MACROS[1:]] == [*masks]


# A zero's sign is JAX's choice where both signs are right, and in compositions.
EITHER_ZERO = {"max", "min", "clamp"}
SPECIAL = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1.0,
    -1.0,
    0.5,
    3.0,
    -2.5,
    40.0,
    1e-3,
    1e30,
]


def inputs_of(function):
    return len(inspect.signature(function).parameters)


def grid_of(inputs, dtype):
    """All combinations of special and ordinary numbers."""
    some = np.random.default_rng(0).normal(size=6).tolist()
    numbers = [*SPECIAL, *some] if inputs < 3 else [*SPECIAL[:6], *some[:2]]
    return [np.asarray(one, dtype).ravel() for one in np.meshgrid(*[numbers] * inputs)]


def in_jax(inputs, dtype):
    """The results of all functions of so many inputs, compiled once."""
    functions = {n: f for n, f in PRIMITIVES.items() if inputs_of(f) == inputs}
    each = lambda given: {name: f(*given) for name, f in functions.items()}
    return jax.jit(each)(list(map(jnp.asarray, grid_of(inputs, dtype))))


@pytest.fixture(
    scope="module", params=["float", pytest.param("double", marks=pytest.mark.slow)]
)
def primitives(request, tmp_path_factory):
    """The C type, the library, and what JAX computes."""
    dtype = TYPES[request.param]
    sources = [source_of(f, dtype, inputs_of(f)) for f in PRIMITIVES.values()]
    library = compiled(sources, tmp_path_factory.mktemp("primitives"))
    wanted = in_jax(1, dtype) | in_jax(2, dtype) | in_jax(3, dtype)
    return request.param, library, wanted


@needs_compiler
@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_primitive_equals_jax(primitives, name):
    real, library, in_jax = primitives
    inputs, wanted = inputs_of(PRIMITIVES[name]), np.asarray(in_jax[name])
    given = grid_of(inputs, TYPES[real])
    u, v, h = [*given, *[given[0]] * (3 - inputs)]
    forward = getattr(library, f"forward_{list(PRIMITIVES).index(name)}")
    (found,) = run(forward, (h, u, v), u.size, 1)
    eps = np.finfo(TYPES[real]).eps
    if "vjp" in name:  # relative to dy, as 1 - tanh^2 loses digits
        dy = np.maximum(abs(given[1]), 1)
        wanted, found = (one / np.where(dy < np.inf, dy, 1) for one in (wanted, found))
    np.testing.assert_allclose(found, wanted, rtol=32 * eps, atol=8 * eps)
    if name not in EITHER_ZERO and "vjp" not in name:
        zeros = (found == 0) & (wanted == 0)
        assert (np.signbit(found) == np.signbit(wanted))[zeros].all()
