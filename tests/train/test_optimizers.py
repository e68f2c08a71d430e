"""Every optimiser that optax exports takes steps with `make_train_step`."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jrnn import train

pytestmark = [
    pytest.mark.usefixtures("standard_promotion"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

PARAMS = {"W": [[1.0, -2.0, 3.0], [0.5, 1.5, -1.0]], "b": [0.1, -0.2, 0.3]}
GOALS = [[[0.2, 0.1, -0.3], [1.0, 0.4, 0.6]], [[0.3, -0.1, 0.2], [0.5, 0.9, 0.1]]]

sgd = functools.partial(optax.sgd, 0.1)
yes = lambda step, *_, **__: jnp.asarray(True)
MASK = {"W": True, "b": False}
# What the factories want that have no defaults, by the name of the argument.
GIVEN = {
    "learning_rate": 0.1,
    "clipping": 0.5,
    "max_delta": 0.5,
    "threshold": 0.5,
    "max_norm": 0.5,
    "eta": 0.01,
    "gamma": 0.5,
    "decay": 0.9,
    "step_size": -0.1,
    "step_size_fn": lambda count: -0.1 / (1.0 + count),
    "max_consecutive_errors": 2,
    "max_backtracking_steps": 4,
    "max_linesearch_steps": 4,
    "sync_period": 2,
    "slow_step_size": 0.5,
    "inner": sgd(),
    "tx": sgd(),
    "optimizer": sgd(),
    "base_optimizer": sgd(),
    "fast_optimizer": sgd(),
    "adv_optimizer": sgd(),
    "should_transform_fn": yes,
    "mask": MASK,
    "freeze_mask": MASK,
    "transforms": {"a": sgd(), "b": optax.adam(0.1)},
    "param_labels": {"W": "a", "b": "b"},
    "measure_name": "norm",
    "measure": lambda updates: jnp.abs(updates["b"]).sum(),
    "f": lambda updates, params=None: updates,
}
# Those that take something else, or whose default is no use here.
MADE = {
    "chain": lambda f: f(optax.clip(1.0), optax.adam(0.1)),
    "named_chain": lambda f: f(("first", optax.clip(1.0)), ("second", sgd())),
    "stateless_with_tree_map": lambda f: f(lambda update, param: -update),
    "inject_hyperparams": lambda f: f(optax.adam)(learning_rate=0.1),
    "inject_stateful_hyperparams": lambda f: f(optax.adam)(learning_rate=0.1),
    "monitor": lambda f: f({"norm": GIVEN["measure"]}),
    "measure_with_ema": lambda f: optax.monitor({"norm": f(GIVEN["measure"], 0.9)}),
    "scale_by_muon": lambda f: of_matrices(f),
    "MultiSteps": lambda f: f(optax.polyak_sgd(), 2),
}


def of_matrices(scale_by_muon):
    """Of W alone; older versions take every matrix for one, and are not asked."""
    name = "weight_dimension_numbers"
    each = lambda params: jax.tree.map(
        lambda _: optax.contrib.MuonDimensionNumbers(), params
    )
    known = name in inspect.signature(scale_by_muon).parameters
    return optax.masked(scale_by_muon(**({name: each} if known else {})), MASK)


# Optimisers that optax does not annotate as such.
UNTOLD = {
    "dog",
    "dowg",
    "hutchinson_estimator_diag_hessian",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
    "monitor",
    "MultiSteps",
    "scale_by_factored_rms",
}
# They want the gradient of each example, and a loss has one.
OF_EXAMPLES = {"differentially_private_aggregate", "dpsgd"}
# What is exported beside optimisers: losses, schedules, functions of trees.
OTHERS = set(
    """apply_updates bias_correction constant_schedule convex_kl_divergence
    cosine_decay_schedule cosine_distance cosine_onecycle_schedule cosine_similarity
    WrappedSchedule
    ctc_loss ctc_loss_with_forward_probs exponential_decay generalized_kl_divergence
    global_norm hinge_loss huber_loss incremental_update init_empty_state join_schedules
    kl_divergence l2_loss linear_onecycle_schedule linear_schedule log_cosh
    matrix_inverse_pth_root microbatch multi_normal nnls ntxent
    per_example_global_norm_clip per_example_layer_norm_clip periodic_update
    piecewise_constant_schedule piecewise_interpolate_schedule polynomial_schedule
    power_iteration safe_increment safe_int32_increment safe_norm
    safe_root_mean_squares safe_softmax_cross_entropy scale_gradient
    schedule_free_eval_params sgdr_schedule sigmoid_binary_cross_entropy
    sigmoid_focal_loss skip_large_updates skip_not_finite smooth_labels
    softmax_cross_entropy softmax_cross_entropy_with_integer_labels squared_error
    tree_map_params update_infinity_moment update_moment update_moment_per_elem_norm
    value_and_grad_from_state warmup_constant_schedule warmup_cosine_decay_schedule
    warmup_exponential_decay_schedule""".split()
)
# What an update wants beside the gradient, as optax documents it.
VALUE = {"value"}
SEARCH = {"value", "grad", "value_fn"}
WANTED = {
    "hutchinson_estimator_diag_hessian": {"obj_fn"},
    "lbfgs": SEARCH,
    "momo": VALUE,
    "momo_adam": VALUE,
    "MultiSteps": VALUE,
    "polyak_sgd": VALUE,
    "reduce_on_plateau": VALUE,
    "sam, opaque": {"grad_fn"},
    "scale_by_backtracking_linesearch": SEARCH,
    "scale_by_polyak": VALUE,
    "scale_by_zoom_linesearch": SEARCH,
    "sophia": {"obj_fn"},
    "plateau in a chain": VALUE,
    "search in a chain": SEARCH,
}
# How users put them together.
TOGETHER = {
    "sam, opaque": lambda: optax.contrib.sam(sgd(), sgd(), opaque_mode=True),
    "sam in a chain": lambda: optax.chain(
        optax.clip(1.0), optax.contrib.sam(sgd(), sgd())
    ),
    "plateau in a chain": lambda: optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(0.1),
        optax.contrib.reduce_on_plateau(),
    ),
    "search in a chain": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)
    ),
}
# They use a key twice by themselves: to draw at random, and to split it.
REUSING = {"hutchinson_estimator_diag_hessian", "sophia"}
QUICK = {"sam", "reduce_on_plateau", "sam, opaque"}
# One of each kind: what an update wants, how optimisers are put together, what is kept.
CHOSEN = {
    "adam",
    "inject_hyperparams",
    "lbfgs",
    "lookahead",
    "momo",
    "MultiSteps",
    "muon",
    "optimistic_adam",
    "partition",
    "prodigy",
    "schedule_free_adamw",
    "search in a chain",
    "sophia",
}
# What make_train_step does for them shows in tracing, without compiling.
TRACED = CHOSEN | QUICK | set(WANTED)


def marked(names, some, mark):
    """All names; those that are not among some are run at another time."""
    marks = lambda name: () if name in some else (mark,)
    return [pytest.param(name, marks=marks(name)) for name in names]


def exported():
    """All functions, and all classes that can be one, by name."""
    found = {}
    for module in (optax, optax.contrib):
        for name, thing in vars(module).items():
            if name.startswith("_") or not callable(thing):
                continue
            state = inspect.isclass(thing) and issubclass(thing, tuple)
            if inspect.isfunction(thing) or (hasattr(thing, "update") and not state):
                found[name] = thing
    return found


def is_told(function):
    """Whether it is annotated to return an optimiser."""
    told = inspect.get_annotations(function).get("return", "")
    return "GradientTransformation" in getattr(told, "__name__", str(told))


def optimizers():
    """How each is made, by name."""
    found = {}
    for name, function in exported().items():
        if name not in OF_EXAMPLES and (name in UNTOLD or is_told(function)):
            found[name] = functools.partial(make, name, function)
    return found | TOGETHER


def make(name, function):
    if name in MADE:
        return MADE[name](function)
    wanted = {
        parameter.name: GIVEN[parameter.name]
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
    }
    return function(**wanted)


def loss(params, batch, carry, key):
    goal, b = batch, params["b"]
    value = ((params["W"] - goal) ** 2).sum() / 2 + ((b - goal[0]) ** 2).sum()
    return value + 0.01 * jax.random.normal(key, dtype="float32"), (carry, {})


def start(name):
    params = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, "float32"),
        PARAMS,
        is_leaf=lambda x: type(x) is list,
    )
    lookahead = name == "lookahead"
    return optax.LookaheadParams.init_synced(params) if lookahead else params


def buffers(state):
    """The memory of each array."""
    raw = jax.tree.map(
        lambda leaf: (
            jax.random.key_data(leaf)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
        ),
        state._replace(key=()),
    )
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(raw) if leaf.size]


def by_hand(name, optimizer, goals):
    """The parameters after each step, as optax documents it, with nothing donated."""
    params, key = start(name), jax.random.key(7)
    opt_state = optimizer.init(params)
    for goal in goals:
        key, used = jax.random.split(key)
        value_fn = lambda params, goal=goal, used=used: loss(
            params, goal, (), jax.random.clone(used)
        )[0]
        at = params.fast if name == "lookahead" else params
        value, gradient = jax.value_and_grad(value_fn)(at)
        extra = {
            "value": value,
            "grad": gradient,
            "value_fn": value_fn,
            "obj_fn": value_fn,
            "grad_fn": lambda params, _, value_fn=value_fn: jax.grad(value_fn)(params),
        }
        extra = {key: extra[key] for key in WANTED.get(name, ())}
        updates, opt_state = optimizer.update(gradient, opt_state, params, **extra)
        params = optax.apply_updates(params, updates)
        yield params


def take_steps(name, optimizer):
    """The same through `make_train_step`, on a state that is donated."""
    state = train.init_train_state(start(name), optimizer, jax.random.key(7))
    for goal in GOALS:
        step = train.make_train_step(loss, optimizer)
        state, _ = step(state, jnp.asarray(goal, "float32"))
        yield jax.tree.map(np.asarray, state.params)  # a copy, before it is donated


@pytest.fixture(autouse=True)
def standard_ranks():
    """For `optimistic_adam`, which counts on promotion of ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


def checked(name):
    """Keys are checked, but for the optimisers that use one twice."""
    return jax.debug_key_reuse(name not in REUSING)


def check_steps(name):
    optimizer = optimizers()[name]()
    goals = [jnp.asarray(goal, "float32") for goal in GOALS]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    with checked(name):
        pairs = zip(
            take_steps(name, optimizer), by_hand(name, optimizer, goals), strict=True
        )
        for ours, theirs in pairs:
            jax.tree.map(close, ours, theirs)


def test_every_export_is_an_optimizer_or_known_to_be_none():
    named = set(optimizers()) | OF_EXAMPLES | OTHERS
    assert set(exported()) - named == set()
    assert len(optimizers()) > 100


@pytest.mark.parametrize("name", marked(optimizers(), TRACED, pytest.mark.slow))
def test_a_state_can_be_donated_and_the_step_is_given_what_it_wants(name):
    optimizer = optimizers()[name]()
    state = train.init_train_state(start(name), optimizer, jax.random.key(7))
    own = buffers(state)
    assert len(set(own)) == len(own)
    step = train.make_train_step(loss, optimizer)
    with checked(name):
        after, _ = step.eval_shape(state, jnp.asarray(GOALS[0], "float32"))
    told = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert told(after.params) == told(state.params)


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize("name", sorted(QUICK))
def test_some_take_the_steps_that_they_take_by_hand(name):
    check_steps(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CHOSEN))
def test_those_chosen_take_the_steps_that_they_take_by_hand(name):
    check_steps(name)


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(set(optimizers()) - QUICK - CHOSEN))
def test_all_others_take_the_steps_that_they_take_by_hand(name):
    check_steps(name)


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
def test_a_loss_is_evaluated_again_with_any_key_wherever_it_lies(make_key):
    def noisy(params, batch, carry, key):
        draw = lambda key: 0.01 * jax.random.normal(key, dtype="float32")
        carry, used = jax.random.split(carry)
        value = sum(map(draw, (batch, used, key)), (params**2).sum())
        return value, (carry, {})

    search = optax.scale_by_backtracking_linesearch(4)
    step = train.make_train_step(noisy, optax.chain(optax.sgd(1.0), search))
    params = jnp.ones(2, "float32")
    state = train.init_train_state(params, step.arguments[1], make_key(1), make_key(2))
    _, metrics = step.eval_shape(state, make_key(3))
    assert metrics["loss"].shape == ()
