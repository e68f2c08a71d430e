"""The mistakes, and the quick tests that ought to notice each."""

from tests.mutations.runner import Mutation

BPTT = "jrnn/methods/bptt.py"

STEP = "tests/test_cells.py::test_step_equals_reference"
GRADIENTS = "tests/test_cells.py::test_gradients_equal_reference"
MODEL = "tests/test_notes_model.py"

MISTAKES = (
    Mutation(
        name="time order flipped in the adjoint",
        file=BPTT,
        old="direct, active, restart),\n        reverse=True,",
        new="direct, active, restart),\n        reverse=False,",
        tests=(GRADIENTS,),
    ),
    Mutation(
        name="cotangent of the starting state dropped",
        file=BPTT,
        old="(_Inputs(dparams, carry.dstate, Sequence(",
        new="(_Inputs(dparams, jax.tree.map(jnp.zeros_like, dstate), Sequence(",
        tests=(GRADIENTS,),
    ),
    Mutation(
        name="cotangent of the final state dropped",
        file=BPTT,
        old="    dstate, dshown = cotangents\n",
        new="    dstate, dshown = cotangents\n"
        "    dstate = jax.tree.map(lambda d: jnp.zeros(d.shape, d.dtype), dstate)\n",
        tests=(GRADIENTS,),
    ),
    Mutation(
        name="term t = 1 of dW_h dropped, h_0 not 0",
        file=BPTT,
        old="renew(restart, fresh, jax.tree.map(_shift, start, states))",
        new="renew(restart, fresh, jax.tree.map(_shift, start, states))\n"
        "    states_tm1 = jax.tree.map(lambda h: h.at[0].set(0), states_tm1)",
        tests=(f"{GRADIENTS}[elman]",),  # whose pullback reads no h_{t-1}
    ),
    Mutation(
        name="bias forgotten",
        file="jrnn/_base.py",
        old="    return u if b is None else u + expand(b.astype(dtype), u.ndim)\n",
        new="    return u\n",
        tests=(STEP,),
    ),
    Mutation(
        name="weight transposed in a backward product",
        file="jrnn/cells/gru.py",
        old="    ds = product(da_n, W_n.T, dh.dtype)\n",
        new="    ds = product(da_n, W_n, dh.dtype)\n",
        tests=(f"{GRADIENTS}[gru before]",),
    ),
    Mutation(
        name="weight transposed in the forward product",
        file="jrnn/cells/elman.py",
        old="    return product(state.h, params.W_h, state.h.dtype)\n",
        new="    return product(state.h, params.W_h.T, state.h.dtype)\n",
        tests=(STEP,),
    ),
    Mutation(
        name="the model reads x_t instead of x_{t-1}",
        file="jrnn/model.py",
        old="cell, params.cell, head.encode(xs[:-1]), moved,",
        new="cell, params.cell, head.encode(xs[1:]), moved,",
        tests=(MODEL,),
    ),
    Mutation(
        name="1/T forgotten",
        file="jrnn/likelihood.py",
        old="        return values.sum() / valid.sum().astype(values.dtype)\n",
        new="        return values.sum()\n",
        tests=(MODEL,),
    ),
)
