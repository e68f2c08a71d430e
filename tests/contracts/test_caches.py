"""Caches between calls are bounded, and freed with the objects they were made from."""

import functools
import gc
import inspect
import pickle
import subprocess
import sys
import threading
import types
import weakref
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jrnn
from jrnn import train
from jrnn.core import caches, programs
from jrnn.core.memoize import memoize
from jrnn.train.memory import unaliased
from jrnn.train.step import _steps

ROOT = Path(__file__).parents[2]
SIZE = 1 << 18  # of the array that a closure holds: nothing else here is so large
KEPT = optax.sgd(0.1)  # it outlives every loss
X = jnp.ones(3, "float32")
XS = jnp.ones((2, 3), "float32")
MODEL = jrnn.sequence_model(jrnn.gru(2, 3), jrnn.categorical(2))


def large():
    return jnp.ones(SIZE, "float32")


def live():
    gc.collect()
    return sum(array.size == SIZE for array in jax.live_arrays())


def score(params, held):
    return (params * held[: params.size]).sum()


class Problem:
    def __init__(self):
        self.held = large()

    def loss(self, params, batch, carry, key):  # noqa: ARG002 as all losses
        return score(params, self.held), (carry, {})


class Slotted:
    __slots__ = ("held",)

    def __init__(self):
        self.held = large()

    def __call__(self, params, batch, carry, key):  # noqa: ARG002 as all losses
        return score(params, self.held), (carry, {})


class Pair(tuple):
    """A callable tuple, as a NamedTuple may be."""

    def __call__(self, params, batch, carry, key):  # noqa: ARG002 as all losses
        return self[0](params), (carry, {})


def closure():
    held = large()
    return lambda params, batch, carry, key: (score(params, held), (carry, {}))


def partial():
    return functools.partial(closure())


def in_a_circle():
    inner = closure()

    def loss(*args):
        return loss.inner(*args)

    loss.inner = inner
    return loss


def of_a_tuple():
    held = large()
    return Pair((lambda params: score(params, held),))


LOSSES = {
    "closure": closure,
    "partial": partial,
    "method": lambda: Problem().loss,
    "in a circle": in_a_circle,
    "without weak references": Slotted,
    "tuple": of_a_tuple,
}
# A partial is weakly referred to as a closure is, a tuple as its parts are.
KINDS = {k: make for k, make in LOSSES.items() if k not in ("partial", "tuple")}


def optimizer_of(loss):
    """An optimiser that closes over the loss, as one that looks for a minimum may."""
    move = lambda update, state, params=None: (update, state)
    update = lambda *args: (loss, move(*args))[1]
    return optax.GradientTransformation(lambda params: (), update)


def take_a_step(loss, optimizer):
    state = train.init_train_state(X, optimizer, jax.random.key(0))
    step = train.make_train_step(loss, optimizer)
    state, _ = step(state, None)
    return state


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_a_step_keeps_nothing_beyond_its_loss(make):
    before, programs = live(), len(_steps)
    loss = make()
    take_a_step(loss, KEPT)
    assert live() > before
    del loss
    assert live() == before
    assert len(_steps) == programs


@pytest.mark.usefixtures("standard_promotion")
def test_nor_does_it_where_the_optimizer_closes_over_the_loss():
    before = live()
    loss = closure()
    take_a_step(loss, optimizer_of(loss))
    assert live() > before
    del loss
    assert live() == before


@pytest.mark.usefixtures("standard_promotion")
def test_nor_beyond_its_optimizer():
    before, programs = live(), len(_steps)
    loss = train.sequence_loss(MODEL)
    optimizer = optimizer_of(closure())
    step = train.make_train_step(loss, optimizer)
    assert len(_steps) == programs + 1
    del optimizer
    assert live() == before + 1
    del step
    assert live() == before
    assert len(_steps) == programs


def test_evaluate_and_the_loss_of_a_model_keep_nothing():
    before = live()
    inner = closure()
    metric = lambda params, batch, carry: (inner(params, batch, carry, 0)[0], 1, carry)
    assert train.evaluate(metric, X, [0]) == 3.0
    loss = train.sequence_loss(MODEL._replace(init=inner))
    assert live() > before
    assert train.sequence_loss(MODEL._replace(init=inner)) is loss
    del loss, metric, inner
    assert live() == before


def test_diagnostics_keep_no_loss():
    cell = jrnn.elman(3, 4)
    params = cell.init(jax.random.key(0))
    before = live()
    inner = closure()  # one run of it holds two that are compiled for the loss
    loss = lambda state, ys: inner(ys[-1], 0, 0, 0)[0]
    jrnn.train.regularisers.gradient_norm_penalty(cell, params, XS, loss)
    assert live() > before
    del loss, inner
    if jax.__version_info__ < (0, 8):  # whose own caches keep what a loss closes over
        jax.clear_caches()
    assert live() == before


@pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)
def test_equal_arguments_give_the_identical_step_while_it_is_held(make):
    loss = make()
    step = train.make_train_step(loss, KEPT)
    assert train.make_train_step(loss, KEPT) is step
    again = types.MethodType(loss.__func__, loss.__self__) if make is method else loss
    assert train.make_train_step(again, KEPT) is step
    assert train.make_train_step(make(), KEPT) is not step
    assert train.make_train_step(loss, optax.sgd(0.1)) is not step


method = LOSSES["method"]


@pytest.mark.usefixtures("standard_promotion")
def test_a_step_that_was_let_go_is_not_compiled_again_while_its_loss_lives():
    traces = []

    metric = lambda params, batch, carry: (traces.append(1), (X.sum(), 1, carry))[1]
    problem = Problem()
    inner = problem.loss
    problem.loss = lambda *args: (traces.append(1), inner(*args))[1]
    for _ in range(3):
        train.evaluate(metric, X, [X])
    assert len(traces) == 1
    for _ in range(3):
        take_a_step(problem.loss, KEPT)
    assert len(traces) == 2
    assert train.sequence_loss(MODEL) is train.sequence_loss(MODEL)
    gone = weakref.ref(train.sequence_loss(MODEL))
    programs = len(_steps)
    for _ in range(2):
        assert gone() is None
        train.make_train_step(train.sequence_loss(MODEL), KEPT)
    assert len(_steps) == programs + 1


def test_a_loss_that_cannot_be_hashed_is_refused_and_its_method_is_not():
    class Unhashable(Problem):
        __hash__ = None
        __call__ = Problem.loss

    problem = Unhashable()
    with pytest.raises(TypeError, match="Expected hashable arguments for make_train_s"):
        train.make_train_step(problem, KEPT)
    step = train.make_train_step(problem.loss, KEPT)
    assert train.make_train_step(problem.loss, KEPT) is step


def test_what_is_no_loss_and_no_optimizer_is_refused():
    # The tests check types of arguments, which users do not.
    unchecked = getattr(train.make_train_step, "__wrapped__", train.make_train_step)
    for wrong in (optax.sgd, object(), None):
        with pytest.raises(TypeError, match="to be an optax optimizer"):
            unchecked(closure(), wrong)
    with pytest.raises(TypeError, match="Expected loss to be a function"):
        unchecked(3, KEPT)


def in_the_library():
    """Every module of jrnn that is loaded."""
    names = [name for name in sys.modules if name.split(".")[0] == "jrnn"]
    return [sys.modules[name] for name in names]


def caches_of(module):
    """What a module keeps, also within the functions that it wraps."""
    seen, found = [*vars(module).values()], []
    for thing in seen:
        if inspect.isclass(thing):
            continue
        if hasattr(thing, "cache_clear") or hasattr(thing, "clear_cache"):
            found.append(thing)
        for cell in getattr(thing, "__closure__", None) or ():
            inner = cell.cell_contents
            if callable(inner) and inner not in seen:
                seen.append(inner)
    return found


def test_every_cache_is_bounded_and_known():
    found = [c for module in in_the_library() for c in caches_of(module)]
    known = [*caches._caches, *caches._jitted]
    assert len(found) > 50
    for cache in found:
        assert any(cache is one for one in known), cache
        if hasattr(cache, "cache_parameters"):
            assert cache.cache_parameters()["maxsize"] == caches.SIZE


@pytest.mark.longer
def test_clear_caches_empties_every_one():
    # In another process: other tests count on the identity of what they made.
    code = (
        "from tests.contracts import test_caches as t; t.check_cleared(); "
        "t.check_freed()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)


def check_cleared():
    traced = []

    def activation(a):
        traced.append(a.shape)
        return jnp.tanh(a)

    cell, counted = jrnn.elman(3, 4), jrnn.elman(3, 4, activation=activation)
    params = cell.init(jax.random.key(0))
    jrnn.unroll(counted, params, XS)
    once = len(traced)
    jrnn.unroll(counted, params, XS)
    assert len(traced) == once > 0
    step = train.make_train_step(train.sequence_loss(MODEL), KEPT)
    assert jrnn.elman(3, 4) is cell
    jrnn.clear_caches()
    for module in in_the_library():
        for cache in caches_of(module):
            if hasattr(cache, "cache_info"):
                assert cache.cache_info().currsize == 0, cache
    assert not len(_steps)
    assert jrnn.elman(3, 4) is not cell
    with pytest.raises(TypeError, match=r"before jrnn.clear_caches\(\)"):
        pickle.dumps(cell)
    jrnn.unroll(counted, params, XS)
    assert len(traced) == 2 * once
    assert train.make_train_step(step.arguments[0], KEPT) is not step


def check_freed():
    """What a cell closes over is freed when both kinds of caches are cleared."""
    before = live()
    inner = closure()
    cell = jrnn.elman(3, 4, activation=lambda a: a * inner(X, 0, 0, 0)[0])
    params = cell.init(jax.random.key(0))
    jax.grad(lambda p: jrnn.unroll(cell, p, XS)[1].sum())(params)
    del inner, cell
    assert live() > before
    jrnn.clear_caches()
    jax.clear_caches()
    assert live() == before


def test_a_cache_holds_what_was_asked_for_last():
    made = memoize(lambda size: object())
    first = made(0)
    for size in range(1, caches.SIZE):
        made(size)
    assert made(0) is first
    made(caches.SIZE)
    assert made(0) is first
    for size in range(1, caches.SIZE + 1):
        made(size)
    assert made(0) is not first


@pytest.mark.parametrize("kind", ["cell", "program"])
def test_threads_that_ask_at_once_get_the_same(kind):
    meet = threading.Barrier(8)

    def slow(*_):
        gone = threading.Event()
        gone.wait(0.02)  # another thread's turn
        return lambda: None

    if kind == "cell":
        make = memoize(lambda size: slow())
        ask = lambda: make(1)
    else:
        family = programs.Family("slow", slow)
        ask = lambda: family(live)
    found = []

    def run():
        meet.wait()
        found.append(ask())

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


ALIASES = {
    "itself": lambda x: x,
    "its memory": lambda x: jax.device_put(x, jax.devices()[0], may_alias=True),
}


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("alias", ALIASES.values(), ids=ALIASES)
def test_a_state_made_by_hand_may_hold_one_array_twice(alias):
    loss = lambda params, batch, carry, key: ((params**2).sum(), (carry, {}))
    optimizer = optax.ema(0.5)
    x = jnp.arange(3, dtype="float32")
    state = train.init_train_state(x, optimizer, jax.random.key(0))
    twice = state.opt_state._replace(ema=alias(x))
    assert twice.ema.unsafe_buffer_pointer() == x.unsafe_buffer_pointer()
    step = train.make_train_step(loss, optimizer)
    for _ in range(2):
        state = state._replace(params=x, opt_state=twice)
        own = jax.tree.leaves(unaliased(state))
        assert len(set(map(id, own))) == len(own)
        updates, after = optimizer.update(2 * x, twice)
        expected, after = jax.tree.map(jnp.copy, (x + updates, after))
        state, _ = step(state, None)
        assert state.params.tolist() == expected.tolist()
        x, twice = state.params, after._replace(ema=alias(state.params))


@pytest.mark.parametrize("given", [1, 1.0, True, np.bool_(True), (1, 0.5)], ids=repr)
def test_what_is_equal_and_of_another_type_is_told_apart(given):
    """At every depth, and the plain numbers of Python stand for those of NumPy."""
    made = memoize(lambda value: repr(value))
    pairs = memoize(lambda *values: repr(values))
    for other in (1, 1.0, True, (True, 0.5), (1.0, 0.5)):
        made(other)
        pairs(0, (other,))
    plain = given.item() if isinstance(given, np.generic) else given
    assert made(given) == repr(plain)
    assert pairs(0, (given,)) == repr((0, (plain,)))


def test_numbers_are_cast_to_what_they_are_annotated_as():
    @memoize
    def make(size: int, rate: float, switch: bool, most: float | None = None):  # noqa: FBT001 as written
        return (size, rate, switch, most), []

    made = make(3, 1.0, True)
    assert make(np.uint8(3), 1, np.bool_(True)) is made
    assert make(3, np.float32(1), True, None) is made
    assert make(3, np.longdouble(1), True) is made
    assert repr(make(3, Fraction(1, 2), False, 2)[0]) == "(3, 0.5, False, 2.0)"
    for wrong in ((3.0, 1.0, True), (True, 1.0, True), (3, True, True), (3, 1.0, 1)):
        with pytest.raises(TypeError, match="Expected"):
            make(*wrong)
    for wrong in (np.inf, np.nan, 10**400):
        with pytest.raises(ValueError, match="Expected rate to be finite"):
            make(3, wrong, True)


def test_what_is_refused_is_refused_after_its_equal_was_accepted():
    cell = jrnn.lstm(2, 3)
    for accepted, refused in ((0, False), (0.0, False), ((0, 0.5), (False, 0.5))):
        for rate in (np.float64(0.25), accepted):
            jrnn.wrappers.zoneout(cell, rate)
        with pytest.raises(ValueError, match=r"rate in \[0, 1\), got False"):
            jrnn.wrappers.zoneout(cell, refused)
