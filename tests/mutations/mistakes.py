"""The mistakes, and the quick tests that should notice each."""

from tests.mutations.runner import Mutation

BPTT = "jrnn/methods/bptt/__init__.py"
GRADIENT = "jrnn/methods/bptt/backward.py"

STEP = "tests/contracts/test_cells.py::test_step_equals_reference"
GRADIENTS = "tests/contracts/test_cells.py::test_gradients_equal_reference"
MODEL = "tests/models/test_notes_model.py"
DYNAMICS = "tests/diagnostics/test_dynamics.py"
JACOBIANS = "tests/diagnostics/test_jacobians.py"
PARALLEL = "tests/methods/test_parallel.py"
SEQUENCES = "tests/contracts/test_sequences.py"
LONG = "tests/contracts/test_long_memory_cells.py"
ORTHOGONAL = "tests/contracts/test_orthogonal.py"
FUSED = "tests/methods/test_fused.py"
CPU_BUILD = "tests/methods/test_cpu_build.py"
CPU_CACHE = "tests/methods/test_cpu_cache.py"
SYMBOLIC = "tests/methods/test_symbolic.py"
ALTERED = "tests/interop/test_files_altered.py"
OWN = "tests/contracts/test_your_own_cell.py"
FLAX = "tests/interop/test_interop_flax.py"
ON_A_CPU = "tests/methods/test_fused_cpu.py"
TEAMS = "tests/methods/test_cpu_teams.py::test_teams_of_any_pool_equal_the_scan[4]"
ON_DEVICES = "tests/methods/test_cpu_devices.py"
GENERATED = "tests/methods/test_cpu_generate.py"
HEADS = "tests/heads/test_heads.py"
NUMBERS = (
    "tests/models/test_models_of_numbers.py"
    "::test_missing_values_change_no_bit_and_the_next_step_knows"
)

MISTAKES = (
    Mutation(
        name="time order flipped in the adjoint",
        file=GRADIENT,
        old="jax.lax.scan(step, dstate, along, reverse=True)",
        new="jax.lax.scan(step, dstate, along, reverse=False)",
        tests=(GRADIENTS,),
    ),
    Mutation(
        name="a gate's share of u put in another gate's place",
        file="jrnn/core/layout.py",
        old="dv, gate, place * size, -1",
        new="dv, gate, 0, -1",
        tests=(GRADIENTS,),
    ),
    Mutation(
        name="cotangent of the starting state dropped",
        file=BPTT,
        old="(_Inputs(dparams, sums.dstate, dsequence",
        new="(_Inputs(dparams, jax.tree.map(jnp.zeros_like, dstate), dsequence",
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
        file=GRADIENT,
        old="renew(sequence.restart, sequence.fresh, states_tm1)",
        new="renew(sequence.restart, sequence.fresh, states_tm1)\n"
        "    states_tm1 = jax.tree.map(lambda h: h.at[0].set(0), states_tm1)",
        tests=(f"{GRADIENTS}[elman]",),  # whose pullback reads no h_{t-1}
    ),
    Mutation(
        name="bias forgotten",
        file="jrnn/core/products.py",
        old="    return u if b is None else u + expand(b.astype(dtype), u.ndim)\n",
        new="    return u\n",
        tests=(STEP,),
    ),
    Mutation(
        name="a gate's bias added to the gate before it",
        file="jrnn/core/draw.py",
        old="gate * size : (gate + 1) * size",
        new="(gate - 1) * size : gate * size",
        tests=(f"{OWN}::test_parameters_and_states_start_as_they_are_told_to",),
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
        old="    return params.W_h, None\n",
        new="    return params.W_h.T, None\n",
        tests=(STEP,),
    ),
    Mutation(
        name="the model reads x_t instead of x_{t-1}",
        file="jrnn/models/reading.py",
        old="head.encode(jax.tree.map(lambda a: a[:-1], symbols))",
        new="head.encode(jax.tree.map(lambda a: a[1:], symbols))",
        tests=(MODEL,),
    ),
    Mutation(
        name="1/T forgotten",
        file="jrnn/models/means.py",
        old="        return values.sum() / valid.sum().astype(values.dtype)\n",
        new="        return values.sum()\n",
        tests=(MODEL,),
    ),
    Mutation(
        name="mask applied after the step instead of before",
        file="jrnn/run/unroll.py",
        old="        xs=silence(active, xs),\n",
        new="        xs=xs,\n",
        tests=(f"{SEQUENCES}::test_padding_changes_no_bit",),
    ),
    Mutation(
        name="reset one step late",
        file="jrnn/run/unroll.py",
        old="        restart=restart,\n",
        new="        restart=None if restart is None else jnp.roll(restart, 1, 0),\n",
        tests=(f"{SEQUENCES}::test_a_recorded_rollout_replays_step_by_step",),
    ),
    Mutation(
        name="reset puts back the given state instead of the initial one",
        file="jrnn/run/unroll.py",
        old="        fresh=None if restart is None else initial,\n",
        new="        fresh=None if restart is None else state,\n",
        tests=(f"{SEQUENCES}::test_a_recorded_rollout_replays_step_by_step",),
    ),
    Mutation(
        name="reverse without regard to length",
        file="jrnn/run/order.py",
        old="    flipped = flip(lengths, sequence.steps, timed)\n",
        new="    flipped = flip(None, sequence.steps, timed)\n",
        tests=(f"{SEQUENCES}::test_a_ragged_batch_equals_each_sequence_alone",),
    ),
    Mutation(
        name="segment in reverse begins one step late",
        file="jrnn/run/order.py",
        old="        restart = jnp.concatenate("
        "[restart[1:], jnp.zeros_like(restart[:1])])\n",
        new="        pass\n",
        tests=(f"{SEQUENCES}::test_no_gradient_crosses_a_reset",),
    ),
    Mutation(
        name="mask of variational dropout redrawn at each step",
        file="jrnn/wrappers/variational_dropout.py",
        old="        kept = jax.random.bernoulli(key_h, 1 - rate, shape)\n",
        new="        kept = jax.random.bernoulli(key_h, 1 - rate, (steps, *shape))\n",
        tests=(f"{SEQUENCES}::test_variational_dropout_keeps_one_mask_for_a_sequence",),
    ),
    Mutation(
        name="zoneout on the wrong state",
        file="jrnn/wrappers/zoneout.py",
        old="            return jax.tree.map(jnp.where, kept, state, new)\n",
        new="            return jax.tree.map(jnp.where, kept, new, state)\n",
        tests=(
            f"{SEQUENCES}::"
            "test_zoneout_keeps_units_and_takes_the_expectation_without_a_key",
        ),
    ),
    Mutation(
        name="a checkpointed segment walked again without its resets",
        file=GRADIENT,
        old="            kept = keep_states(settings, params, kept, timed)",
        new="            bare = timed._replace(restart=None, fresh=None)\n"
        "            kept = keep_states(settings, params, kept, bare)",
        tests=(f"{SEQUENCES}::test_checkpoints_keep_outputs_and_gradients",),
    ),
    Mutation(
        name="bias of a gate left out of the loop",
        file="jrnn/core/seams.py",
        old="        if biases is None:\n",
        new="        if True:\n",
        tests=(GRADIENTS,),
    ),
    Mutation(
        name="gradient of a learned initial state lost at resets",
        file=GRADIENT,
        old="    if ended is not None:\n",
        new="    if ended is not None and False:\n",
        tests=(f"{SEQUENCES}::test_a_learned_initial_state_has_its_own_gradient",),
    ),
    Mutation(
        name="window of truncated backpropagation one step too long",
        file="jrnn/methods/truncated.py",
        old="    begins = ends - window\n",
        new="    begins = ends - window - 1\n",
        tests=(
            "tests/methods/test_truncated.py::test_only_pairs_within_a_window_count",
        ),
    ),
    Mutation(
        name="padded steps counted as if they were free",
        file="jrnn/train/batching.py",
        old="return_counts=True)\n",
        new="return_counts=True)\n    weights = np.ones_like(weights)\n",
        tests=("tests/train/test_batching.py::test_no_other_bounds_waste_less",),
    ),
    Mutation(
        name="first non-finite step of a reading in reverse not turned back",
        file="jrnn/diagnostics/non_finite.py",
        old="return _unflip(found, lengths, steps) if leaf.reverse else found\n",
        new="return found\n",
        tests=("tests/diagnostics/test_non_finite.py",),
    ),
    Mutation(
        name="non-finite gradient sought from the first step on",
        file="jrnn/diagnostics/non_finite.py",
        old="    t = int(times[-1 if backward else 0])\n",
        new="    t = int(times[0])\n",
        tests=("tests/diagnostics/test_non_finite.py",),
    ),
    Mutation(
        name="adjoint of a linear recurrence one step off",
        file="jrnn/methods/_recurrence.py",
        old="        return _sever(restart, _times(full, g, a)), g\n",
        new="        return _sever(restart, _times(full, g, a)), h\n",
        tests=(f"{PARALLEL}::test_associative_equals_scan_and_bptt",),
    ),
    Mutation(
        name="state between blocks not carried",
        file="jrnn/methods/_recurrence.py",
        old="        return _sever(nothing, _times(full, h, A)) + B, h\n",
        new="        return B, h\n",
        tests=(f"{PARALLEL}::test_the_closed_form",),
    ),
    Mutation(
        name="gradient of constant coefficients not summed over time",
        file="jrnn/methods/_recurrence.py",
        old="da.sum(axis=shared, keepdims=True) if shared else da, g, dh0",
        new="da[:1, :1] if shared else da, g, dh0",
        tests=(
            f"{PARALLEL}::test_coefficients_without_leading_axes_are_those_with_them",
        ),
    ),
    Mutation(
        name="restart forgotten in parallel",
        file="jrnn/methods/associative.py",
        old="            if restart is not None:\n",
        new="            if restart is not None and False:\n",
        tests=(f"{PARALLEL}::test_associative_starts_anew_where_a_segment_begins",),
    ),
    Mutation(
        name="what did not converge passes as a number",
        file="jrnn/methods/newton.py",
        old="lambda leaf: jnp.full_like(leaf, jnp.nan), states)\n",
        new="lambda leaf: leaf, states)\n",
        tests=(f"{PARALLEL}::test_what_did_not_converge_is_nan_and_its_gradient_too",),
    ),
    Mutation(
        name="one trajectory of chaos taken for the solution",
        file="jrnn/methods/_newton_iteration.py",
        old="(rounding <= limit)\n",
        new="(rounding == rounding)\n",
        tests=(f"{PARALLEL}::test_no_trajectory_among_many_is_called_the_solution",),
    ),
    Mutation(
        name="products of blocks not made good",
        file="jrnn/methods/_recurrence.py",
        old="    starts = starts + _corrections(",
        new="    starts = starts + 0 * _corrections(",
        tests=(
            f"{PARALLEL}::test_blocks_of_constant_slow_memory_are_as_exact_as_a_loop",
        ),
    ),
    Mutation(
        name="what is not finite crosses a restart",
        file="jrnn/methods/_recurrence.py",
        old="    if restart is None:\n        return h\n",
        new="    if restart is None or h.ndim:\n        return h\n",
        tests=(f"{PARALLEL}::test_a_reset_stops_what_is_not_finite",),
    ),
    Mutation(
        name="a Hessian through approximate iterations",
        file="jrnn/methods/newton.py",
        old="        states = _polish(cell, options, inputs, states)\n",
        new="        del cell\n",
        tests=(
            f"{PARALLEL}::test_a_hessian_does_not_depend_on_how_few_iterations_were_needed",
        ),
    ),
    Mutation(
        name="small residuals taken for a small error",
        file="jrnn/methods/_newton_iteration.py",
        old="        near = (residual <= tolerance) & (update <= small)\n",
        new="        near = (residual <= tolerance) & (update == update)\n",
        tests=(f"{PARALLEL}::test_small_errors_of_many_steps_add_up_to_a_large_one",),
    ),
    Mutation(
        name="Jacobian of a gated cell without its recurrent matrix",
        file="jrnn/methods/_jacobian.py",
        old='    full = jnp.einsum("ligj,...gmj->...limj", R, by_gate)\n',
        new='    full = jnp.einsum("ligj,...gmj->...limj", 0 * R, by_gate)\n',
        tests=(f"{PARALLEL}::test_the_jacobians_are_those_of_jax",),
    ),
    Mutation(
        name="what is prepared is prepared at each step",
        file="jrnn/models/reading.py",
        old="    params = params._replace(cell=prepared(cell, params.cell))\n    blank",
        new="    blank",
        tests=(f"{ORTHOGONAL}::test_a_model_prepares_once",),
    ),
    Mutation(
        name="a rotation that is none",
        file="jrnn/core/reparametrise.py",
        old="expm(wide - wide.T)",
        new="expm(wide + wide.T)",
        tests=(f"{ORTHOGONAL}::test_whatever_a_is_the_matrix_is_a_rotation",),
    ),
    Mutation(
        name="oscillators without damping",
        file="jrnn/cells/co_rnn.py",
        old="q = 1 / (1 + dt * epsilon) if implicit else 1.0",
        new="q = 1.0",
        tests=(f"{LONG}::test_the_energy_of_oscillators_is_bounded",),
    ),
    Mutation(
        name="chrono biases that do not hang together",
        file="jrnn/initializers/recurrent.py",
        old="return -b_f, b_f, zeros, zeros",
        new="return b_f, b_f, zeros, zeros",
        tests=("tests/contracts/test_initializers.py",),
    ),
    Mutation(
        name="PyTorch's second bias forgotten",
        file="jrnn/interop/_layout.py",
        old="        b.append(sum(more, first))\n",
        new="        b.append(first)\n",
        tests=("tests/interop/test_interop_torch.py",),
    ),
    Mutation(
        name="small directions of a long product overwritten",
        file="jrnn/diagnostics/_graded.py",
        old="    order = jnp.argsort(-product.d, axis=-1)\n",
        new="    order = jnp.argsort(product.d, axis=-1)\n",
        tests=(
            f"{JACOBIANS}::test_a_direction_that_matters_late_is_not_lost_to_rounding",
        ),
    ),
    Mutation(
        name="terms of the GRU's bound forgotten",
        file="jrnn/cells/_jacobian_bounds.py",
        old="    beta = jnp.sqrt(1 + B * B) + (1 + m)",
        new="    beta = 0.2 * jnp.sqrt(1 + B * B) + 0 * (1 + m)",
        tests=(
            f"{JACOBIANS}::test_norms_lie_below_step_norms_and_these_below_the_bound",
        ),
    ),
    Mutation(
        name="gradient by lag that never goes back",
        file="jrnn/diagnostics/gradients.py",
        old="jnp.concatenate([leaf[1:], jnp.zeros_like(leaf[:1])])",
        new="leaf",
        tests=(f"{DYNAMICS}::test_shares_of_all_lags_are_one_in_sum",),
    ),
    Mutation(
        name="directions not made orthogonal from step to step",
        file="jrnn/diagnostics/lyapunov.py",
        old="        return (state, Q.mT), jnp.log(",
        new="        Q = W / jnp.linalg.norm(W, axis=-2, keepdims=True)\n"
        "        return (state, Q.mT), jnp.log(",
        tests=(
            f"{DYNAMICS}::test_exponents_of_a_normal_linear_network_are_log_moduli",
        ),
    ),
    Mutation(
        name="rounding taken for a Lyapunov exponent",
        file="jrnn/diagnostics/lyapunov.py",
        old="return jnp.where(sizes < rounding * largest, 0, sizes)",
        new="return sizes",
        tests=(f"{DYNAMICS}::test_a_direction_that_is_lost_has_no_exponent",),
    ),
    Mutation(
        name="what chance recalls counted as memory",
        file="jrnn/diagnostics/memory.py",
        old="    chance = 1 / (steps - half - 1)\n",
        new="    chance = 0.0\n",
        tests=(f"{DYNAMICS}::test_delays_without_memory_add_up_to_none",),
    ),
    Mutation(
        name="a gate shut by half counted as saturated",
        file="jrnn/diagnostics/gate_statistics.py",
        old="    edge = TENTH * (span[1] - span[0])\n",
        new="    edge = 2 * TENTH * (span[1] - span[0])\n",
        tests=(
            "tests/diagnostics/test_saturation.py::test_gates_of_a_gru_are_counted",
        ),
    ),
    Mutation(
        name="penalty of gradients that keep their norm",
        file="jrnn/train/regularisers.py",
        old="jnp.square(ratio - 1)",
        new="jnp.square(ratio)",
        tests=(f"{DYNAMICS}::test_penalty_equals_its_formula",),
    ),
    Mutation(
        name="squares of gradients that no float32 holds",
        file="jrnn/diagnostics/_run.py",
        old="jnp.where((largest == 0) | jnp.isinf(largest), 1, largest)",
        new="jnp.ones_like(largest)",
        tests=(
            f"{DYNAMICS}::test_gradients_whose_squares_no_float32_holds_are_measured",
        ),
    ),
    Mutation(
        name="a radius that squaring does not halve",
        file="jrnn/initializers/recurrent.py",
        old="share * jnp.log(size), share / 2",
        new="share * jnp.log(size), share",
        tests=(
            "tests/contracts/test_initializers.py::test_spectral_radius_is_the_one_asked_for",
        ),
    ),
    Mutation(
        name="antisymmetric matrix pushed outwards",
        file="jrnn/cells/antisymmetric_rnn.py",
        old="W_h - W_h.T - gamma",
        new="W_h - W_h.T + gamma",
        tests=(f"{LONG}::test_with_diffusion_every_step_is_stable",),
    ),
    Mutation(
        name="a LEM's step size without dt",
        file="jrnn/cells/lem.py",
        old="s = dt * jax.nn.sigmoid(u_s + v_s)",
        new="s = jax.nn.sigmoid(u_s + v_s)",
        tests=(f"{LONG}::test_the_states_of_a_lem_are_bounded",),
    ),
    Mutation(
        name="density without its scale",
        file="jrnn/heads/normal.py",
        old="(jnp.square(z) + LOG_2_PI) - jnp.log(scale)",
        new="(jnp.square(z) + LOG_2_PI)",
        tests=(f"{HEADS}::test_log_prob_equals_scipy[gaussian full]",),
    ),
    Mutation(
        name="what is known tells nothing of what is missing",
        file="jrnn/heads/correlated_normal.py",
        old="    gain = Cw / v[..., None]\n",
        new="    gain = 0 * Cw / v[..., None]\n",
        tests=(f"{HEADS}::test_what_is_missing_adds_nothing_whatever_stands_there",),
    ),
    Mutation(
        name="outer bins without their tails",
        file="jrnn/heads/mixture_kernels.py",
        old="        return jnp.where(i <= 0, below,",
        new="        return jnp.where(i < 0, below,",
        tests=(
            f"{HEADS}"
            "::test_every_level_of_a_quantised_signal_together_has_probability_one",
        ),
    ),
    Mutation(
        name="ratio of gammas without its series",
        file="jrnn/heads/student_t.py",
        old="+ series * inverse - down",
        new="- down",
        tests=(f"{HEADS}::test_student_t_at_many_degrees_of_freedom_is_the_normal",),
    ),
    Mutation(
        name="what is missing is scored",
        file="jrnn/heads/numerics.py",
        old="    terms = hide(mask, terms)\n",
        new="",
        tests=(NUMBERS,),
    ),
    Mutation(
        name="a distribution function without its mask",
        file="jrnn/heads/distribution.py",
        old="return hide(mask, self.family.cdf(self.parameters, x))",
        new="return self.family.cdf(self.parameters, x)",
        tests=(
            "tests/models/test_models_of_numbers.py"
            "::test_a_distribution_function_is_0_where_a_mask_says_so",
        ),
    ),
    Mutation(
        name="the cell is not told what is missing",
        file="jrnn/heads/number_head.py",
        old="(known > 0).astype(x.dtype)",
        new="0 * (known > 0).astype(x.dtype)",
        tests=(NUMBERS,),
    ),
    Mutation(
        name="windows across a gap",
        file="jrnn/models/regressions.py",
        old="np.all([known[lag] for lag in lags], axis=0)",
        new="known[lags[0]]",
        tests=("tests/models/test_linear_gaussian.py::test_windows_cross_no_gap",),
    ),
    Mutation(
        name="forecasts as certain as the next step",
        file="jrnn/models/autoregression.py",
        old='variance = Q[m] + jnp.einsum("...qir,...irs->...qs", cross, A[m])',
        new="variance = jnp.broadcast_to(Q[m], (*batch, n, n))",
        tests=(
            "tests/models/test_linear_gaussian.py::test_forecasts_of_order_one_in_closed_form",
        ),
    ),
    Mutation(
        name="a kernel's gradient crosses a reset",
        file="jrnn/kernels/_gates.py",
        old="    return choose(~rows.restart, dstate, none), choose(",
        new="    return dstate, choose(",
        tests=(f"{FUSED}::test_a_kernel_whose_matrix_stays_equals_the_scan",),
    ),
    Mutation(
        name="programs that share a matrix send on what restarts will replace",
        file="jrnn/kernels/_shared.py",
        old="jax.tree.leaves(gates.begin(flags_tp1, fresh, state))[0]",
        new="jax.tree.leaves(state)[0]",
        tests=(
            f"{FUSED}::test_a_kernel_whose_programs_share_the_matrix_equals_the_scan",
        ),
    ),
    Mutation(
        name="what goes back through a shared matrix reaches other units",
        file="jrnn/kernels/_shared.py",
        old="bits.reshape(each, plan.share, -1).transpose(0, 2, 1)",
        new="bits.reshape(each, plan.share, -1)",
        tests=(
            f"{FUSED}::test_a_kernel_whose_programs_share_the_matrix_equals_the_scan",
        ),
    ),
    Mutation(
        name="what has not arrived yet is taken, going back",
        file="jrnn/kernels/_shared.py",
        old="missing = lambda bits: (bits & 1) != parity.astype(bits.dtype)",
        new="missing = lambda bits: (bits & 1) > 1",
        tests=(f"{FUSED}::test_what_comes_late_is_what_is_taken",),
    ),
    Mutation(
        name="what has not arrived yet is taken, going along",
        file="jrnn/kernels/_shared.py",
        old="arrived(reads, lambda bits: bits == -1, patience)",
        new="arrived(reads, lambda bits: bits != bits, patience)",
        tests=(f"{FUSED}::test_what_comes_late_is_what_is_taken",),
    ),
    Mutation(
        name="what other programs write is looked for in one's own cache",
        file="jrnn/kernels/_exchange.py",
        old="triton.load(ref, volatile=True)",
        new="triton.load(ref)",
        tests=(f"{FUSED}::test_how_what_is_exchanged_begins_and_is_read",),
    ),
    Mutation(
        name="the second slot begins as the first",
        file="jrnn/kernels/_shared.py",
        old="jnp.arange(2).reshape(2, 1, 1, 1, 1)",
        new="jnp.zeros((2, 1, 1, 1, 1), int)",
        tests=(f"{FUSED}::test_how_what_is_exchanged_begins_and_is_read",),
    ),
    Mutation(
        name="the bits of nothing are sent",
        file="jrnn/kernels/_exchange.py",
        old="jnp.where(bits == -1, bits ^ 1, bits)",
        new="bits",
        tests=(f"{FUSED}::test_nobody_waits_for_a_nan",),
    ),
    Mutation(
        name="kernels of other code have the same name",
        file="jrnn/kernels/cpu/targets.py",
        old='name = f"jrnn_{symbol}_{loaded.key}"',
        new='name = f"jrnn_{symbol}"',
        tests=(f"{CPU_BUILD}::test_a_function_written_in_c_is_called",),
    ),
    Mutation(
        name="a header that a header includes is not part of the name",
        file="jrnn/kernels/cpu/fingerprint.py",
        old="            left += INCLUDED.findall(found[name])\n",
        new="",
        tests=("tests/methods/test_cpu_names.py",),
    ),
    Mutation(
        name="an altered library is loaded",
        file="jrnn/kernels/cpu/store.py",
        old="and _is_of(entry.about, content) else None",
        new="else None",
        tests=(f"{CPU_CACHE}::test_what_was_altered_is_not_found",),
    ),
    Mutation(
        name="a forked process deletes the kernels of its parent",
        file="jrnn/kernels/cpu/store.py",
        old="if os.getpid() == maker:",
        new="if maker:",
        tests=(
            f"{CPU_CACHE}::test_a_folder_that_cannot_be_written_is_replaced_until_exit",
        ),
    ),
    Mutation(
        name="sequences that vmap adds are put among the steps",
        file="jrnn/kernels/gated.py",
        old="leaf = jnp.moveaxis(leaf, 0, axis)\n",
        new="leaf = jnp.moveaxis(leaf, 0, axis)[::-1]\n",
        tests=(f"{FUSED}::test_vmap_adds_rows_to_one_launch",),
    ),
    Mutation(
        name="a kernel's tile of the matrix, transposed, is its mirror image's",
        file="jrnn/kernels/_streamed.py",
        old="square = _square(W, plan, j, g, k)",
        new="square = _square(W, plan, k, g, j)",
        tests=(
            f"{FUSED}::test_a_kernel_whose_matrix_is_read_in_tiles_equals_the_scan",
        ),
    ),
    Mutation(
        name="every child of a pair reads from the end",
        file="jrnn/core/tree.py",
        old="reverse=leaf.reverse ^ (children.parallel and i % 2 == 1)",
        new="reverse=leaf.reverse ^ children.parallel",
        tests=("tests/contracts/test_children.py::test_leaves_in_their_places",),
    ),
    Mutation(
        name="what a wrapper adds to outputs is left out",
        file="jrnn/core/tree.py",
        old="children.outputs(ys, xs)",
        new="ys",
        tests=(
            "tests/contracts/test_children.py"
            "::test_a_step_shows_what_the_wrapper_makes_of_outputs",
        ),
    ),
    Mutation(
        name="a reset of one step left out",
        file="jrnn/core/guards.py",
        old="return renew(reset, cast_state(fresh, dtype), cast_state(state, dtype))",
        new="return renew(~reset, cast_state(fresh, dtype), cast_state(state, dtype))",
        tests=(
            "tests/contracts/test_step_reset.py"
            "::test_every_cell_resets_as_unroll_does[gru]",
        ),
    ),
    Mutation(
        name="a reset to the initial state that was replaced",
        file="jrnn/core/claims.py",
        old="return guarded(cell) if stale else cell",
        new="return cell",
        tests=(
            "tests/contracts/test_step_reset.py"
            "::test_every_wrapper_resets_as_unroll_does[another start]",
        ),
    ),
    Mutation(
        name="outputs of a batch-first run time first",
        file="jrnn/run/unroll.py",
        old="shown = shown._replace(ys=ys, states=states)",
        new="shown = shown._replace(states=states)",
        tests=("tests/contracts/test_time_axis.py::test_trajectories_and_token_ids",),
    ),
    Mutation(
        name="a merge's output at inactive steps kept",
        file="jrnn/core/tree.py",
        old="    return silenced(ys)\n",
        new="    return ys\n",
        tests=(
            "tests/contracts/test_merges.py"
            "::test_inactive_steps_show_zeros_whatever_a_merge_returns",
        ),
    ),
    Mutation(
        name="a mean of both directions that is their sum",
        file="jrnn/wrappers/merges.py",
        old="return 0.5 * (y_f + y_b)",
        new="return y_f + y_b",
        tests=("tests/contracts/test_merges.py::test_outputs_are_merged[mean]",),
    ),
    Mutation(
        name="inputs behind the outputs in a skip connection",
        file="jrnn/wrappers/skip_connections.py",
        old="jnp.concatenate([x, y], axis=-1)",
        new="jnp.concatenate([y, x], axis=-1)",
        tests=("tests/contracts/test_layers.py::test_skip_connections_written_out",),
    ),
    Mutation(
        name="an activation left out of a dense layer",
        file="jrnn/cells/stateless.py",
        old="show(activation(dense(params, x)), x, params.W_x)",
        new="show(dense(params, x), x, params.W_x)",
        tests=("tests/contracts/test_layers.py::test_equations_of_a_dense_layer",),
    ),
    Mutation(
        name="multiply-adds counted without the contracted axis",
        file="jrnn/models/costs.py",
        old="math.prod(out.shape) * math.prod(sizes)",
        new="math.prod(out.shape)",
        tests=("tests/models/test_summary.py::test_counts_by_hand[gru]",),
    ),
    Mutation(
        name="outputs of Flax's reversed run left in the order of the inputs",
        file="jrnn/interop/flax/_running.py",
        old="    if layout.reverse and not layout.keep_order:\n",
        new="    if layout.reverse and layout.keep_order:\n",
        tests=(f"{FLAX}::test_outputs_and_carries_equal_those_of_flax",),
    ),
    Mutation(
        name="noise of a module of Flax drawn in evaluation",
        file="jrnn/interop/flax/nnx/_cells.py",
        old='    if check_switch("deterministic", quiet) or module',
        new="    if module",
        tests=(f"{FLAX}::test_noise_needs_rngs_and_a_sequence",),
    ),
    Mutation(
        name="equal cells unequal as attributes of a module",
        file="jrnn/interop/_static.py",
        old="isinstance(other, Static) and self.cell == other.cell",
        new="self is other",
        tests=(f"{FLAX}::test_no_trace_is_made_twice",),
    ),
    Mutation(
        name="an array of a carry of Flax taken for the output",
        file="jrnn/interop/flax/_adopting.py",
        old="places.append(next(shown, None))",
        new="places.append(0)",
        tests=(
            "tests/interop/test_interop_flax_cells.py"
            "::test_numbers_equal_those_of_flax",
        ),
    ),
    Mutation(
        name="a symbolic number of steps is not padded with inactive ones",
        file="jrnn/core/chunks.py",
        old="if active is None and steps != filled:",
        new="if active is None and isinstance(steps, int) and steps != filled:",
        tests=(f"{SYMBOLIC}::test_one_program_serves_every_size",),
    ),
    Mutation(
        name="the digest of a file is not compared",
        file="jrnn/interop/files/container.py",
        old="if known != _digest(tensors, texts):",
        new="if known is None:",
        tests=(f"{ALTERED}::test_a_flipped_bit_at_any_place",),
    ),
    Mutation(
        name="JAX narrows the parameters of a file",
        file="jrnn/interop/files/tensors.py",
        old="canonicalize_dtype(array.dtype) != array.dtype",
        new="canonicalize_dtype(array.dtype) == np.bool_",
        tests=("tests/interop/test_files.py::test_64_bits_are_never_narrowed",),
    ),
    Mutation(
        name="a file may call any function that it may name",
        file="jrnn/interop/files/calls.py",
        old='_known(described["call"], factories())',
        new='_known(described["call"], factories() | functions())',
        tests=(f"{ALTERED}::test_only_public_factories_are_called",),
    ),
    Mutation(
        name="an exported program returns the state that it got",
        file="jrnn/interop/export/functions.py",
        old="return of_state.flatten(last), ys",
        new="return state, ys",
        tests=(
            "tests/interop/test_export.py"
            "::test_a_process_without_jrnn_runs_and_trains_it",
        ),
    ),
    Mutation(
        name="gates of a Keras GRU in the order of jrnn",
        file="jrnn/interop/_keras_spec.py",
        old='"gru": "z r n"',
        new='"gru": "r z n"',
        tests=(
            "tests/interop/test_weights.py"
            "::test_golden_arrays_are_reproduced[keras gru]",
        ),
    ),
    Mutation(
        name="the update gate of a Haiku GRU with its own sign",
        file="jrnn/interop/_layout.py",
        old="if key[1] == layout.negated else piece",
        new="if False else piece",
        tests=(
            "tests/interop/test_weights.py"
            "::test_golden_arrays_are_reproduced[haiku gru]",
        ),
    ),
    Mutation(
        name="a module of PyTorch with the batch first, converted unseen",
        file="jrnn/interop/_torch_spec.py",
        old="if spec.batch_first and time_axis is None",
        new="if False",
        tests=(
            "tests/interop/test_interop_torch.py"
            "::test_batch_first_is_not_dropped_unseen",
        ),
    ),
    Mutation(
        name="a changed cell converted as the one of its name",
        file="jrnn/interop/_cells.py",
        old="if not _same(cell, cell_of(layer)):",
        new="if False:",
        tests=(
            "tests/interop/test_interop_torch.py"
            "::test_what_pytorch_lacks_is_refused_with_the_reason[changed]",
        ),
    ),
    Mutation(
        name="the cases of a selection exchanged in C",
        file="jrnn/kernels/cpu/primitives.py",
        old="v_select({0}, {2}, {1})",
        new="v_select({0}, {1}, {2})",
        tests=(f"{GENERATED}::test_every_primitive_equals_jax",),
    ),
    Mutation(
        name="the sign of infinite constants lost in C",
        file="jrnn/kernels/cpu/primitives.py",
        old='"splat(-INFINITE)" if number < 0',
        new='"splat(INFINITE)" if number < 0',
        tests=(f"{GENERATED}::test_every_primitive_equals_jax[float-minus infinite]",),
    ),
    Mutation(
        name="arrays that a pullback reads not named",
        file="jrnn/kernels/cpu/generate.py",
        old='if f"{name}[{i}]" in written.reads',
        new="if not written.reads",
        tests=(
            f"{GENERATED}::test_the_head_counts_arrays_and_names_those_that_the_pullback_reads",
        ),
    ),
    Mutation(
        name="a rounding error left out of the logistic function",
        file="jrnn/kernels/cpu/functions.h",
        old="lost = 1 - (sum - s)",
        new="lost = splat(0)",
        tests=(
            "tests/methods/test_cpu_functions.py"
            "::test_floats_are_within_two_units[fused-logistic]",
        ),
    ),
    Mutation(
        name="the last panel of a packed matrix skipped",
        file="jrnn/kernels/cpu/products.h",
        old="for (long p = 0; p < panels; p++,",
        new="for (long p = 0; p + 1 < panels; p++,",
        tests=(f"{ON_A_CPU}::test_outputs_and_gradients_equal_those_of_the_scan",),
    ),
    Mutation(
        name="rows split among threads that leave one out",
        file="jrnn/kernels/cpu/walk.h",
        old="return group * w->rows / w->groups;",
        new="return group * (w->rows / w->groups);",
        tests=(f"{ON_A_CPU}::test_outputs_and_gradients_equal_those_of_the_scan",),
    ),
    Mutation(
        name="the state before a reset taken forwards",
        file="jrnn/kernels/cpu/forward.h",
        old="tm1 = renewed(w, tm1, t, own->lo, own->lo + own->rows, own->fresh);",
        new="",
        tests=(f"{ON_A_CPU}::test_outputs_and_gradients_equal_those_of_the_scan",),
    ),
    Mutation(
        name="the state before a reset taken backwards",
        file="jrnn/kernels/cpu/backward.h",
        old="tm1 = renewed(w, tm1, t, own->lo, own->lo + own->rows, own->fresh);",
        new="",
        tests=(f"{ON_A_CPU}::test_outputs_and_gradients_equal_those_of_the_scan",),
    ),
    Mutation(
        name="an inactive row's gates given a gradient",
        file="jrnn/kernels/cpu/backward.h",
        old="const vec du_g = on ? only(du[g], count) : splat(0);",
        new="const vec du_g = only(on ? du[g] : dnew[0], count);",
        tests=(f"{ON_A_CPU}::test_outputs_and_gradients_equal_those_of_the_scan",),
    ),
    Mutation(
        name="a part of the units left out",
        file="jrnn/kernels/cpu/team.h",
        old="      of->run(of->data, group, part, stage);",
        new="      if (!part || part + 1 < of->parts)\n"
        "        of->run(of->data, group, part, stage);",
        tests=(TEAMS,),
    ),
    Mutation(
        name="parts of units that do not wait for each other",
        file="jrnn/kernels/cpu/team.h",
        old="const long all = (stage + 1) * of->parts;",
        new="const long all = stage * of->parts;",
        tests=(TEAMS,),
    ),
    Mutation(
        name="the sums of all threads but the first forgotten",
        file="jrnn/kernels/cpu/backward.h",
        old="for (long other = 1; other < w->groups; other++)",
        new="for (long other = 1; other < 1; other++)",
        tests=(f"{ON_A_CPU}::test_outputs_and_gradients_equal_those_of_the_scan",),
    ),
    Mutation(
        name="the chunks backwards counted from the first step",
        file="jrnn/kernels/cpu/backward.h",
        old="backward_chunk(b, own, part, t0, end - t0);",
        new="backward_chunk(b, own, part, 0, end - t0);",
        tests=(
            f"{ON_A_CPU}::test_a_chunk_of_steps_that_is_not_filled_equals_the_scan",
        ),
    ),
    Mutation(
        name="each device's own gradients of the matrices taken for the sum",
        file="jrnn/kernels/cpu/partitioned.py",
        old="return [total(leaf) if axis == WHOLE else leaf for leaf, axis in parts]",
        new="return [leaf for leaf, axis in parts]",
        tests=(f"{ON_DEVICES}::test_each_device_walks_its_own_rows",),
    ),
    Mutation(
        name="large pages asked for beyond an array",
        file="jrnn/kernels/cpu/pages.h",
        old="((uintptr_t)from + large - 1) & ~(large - 1);",
        new="(uintptr_t)from & ~(large - 1);",
        tests=("tests/methods/test_cpu_pages.py",),
    ),
    Mutation(
        name="gradients of a mapped run on a CPU without the states before",
        file="jrnn/kernels/cpu/mapped.py",
        old="renew(given.restart, fresh, shift(start, states))",
        new="renew(given.restart, fresh, states)",
        tests=(f"{ON_A_CPU}::test_vmap_of_gradients_equals_that_of_the_scan[data]",),
    ),
)
