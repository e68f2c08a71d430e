/* The forward walk: one call computes every state, and what the backward walk needs. */

/* What one part works with, and the states of its group where they are not kept. */
typedef struct {
  long lo, rows, first, end; /* rows, and vectors of units */
  real *slots, *product, *fresh, *xs, *us;
} forward_bench;

typedef struct {
  walk w;
  const real *W, *W_x, *b, *b_x;
  real *states[FIELDS]; /* (T, rows, n), or 0: not kept */
  real *saved[SAVED + 1], *final[FIELDS];
  long save;
  real *P, *P_x, *bias, *bias_x; /* packed */
  long chunk;
  forward_bench *benches; /* of group g and part p at g * parts + p */
} forward;

/* The panels of a part's gates. */
static inline long own_panels(const forward_bench *own) {
  return panels_of(own->end * GATES) - first_of_gates(own->first);
}

/* Cuts the packed arrays, and the scratch arrays of all parts. */
static void lay_out_forward(forward *f, arena *from) {
  const walk *w = &f->w;
  const long n = w->units, k = w->inputs, width = columns(w) * WIDE;
  f->P = cut(from, n * width), f->P_x = cut(from, k * width);
  f->bias = cut(from, f->b ? width : 0), f->bias_x = cut(from, f->b_x ? width : 0);
  forward_bench *own = f->benches;
  for (long group = 0; group < w->groups; group++) {
    const long lo = first_row(w, group), rows = first_row(w, group + 1) - lo;
    real *slots = cut(from, 2 * FIELDS * rows * n);
    for (long part = 0; part < w->parts; part++, own++) {
      own->lo = lo, own->rows = rows, own->slots = slots;
      own->first = first_unit(w, part), own->end = first_unit(w, part + 1);
      own->product = cut(from, rows * PANELS * WIDE);
      own->fresh = cut(from, FIELDS * rows * n);
      own->xs = cut(from, k ? f->chunk * rows * (k + LINE) : 0);
      own->us = cut(from, k ? f->chunk * rows * own_panels(own) * WIDE : 0);
    }
  }
}

/* One unit vector of one row: reads the product, writes states and saved values. */
JRNN_INLINE void forward_unit(const forward *f, const long at, const long from,
                              const before *tm1, real *const *state, const long t,
                              const long row, const long unit, const real *v_in,
                              const real *u_in, const int count) {
  const long n = f->w.units;
  vec old[FIELDS], new[FIELDS], saved[SAVED + 1], u[GATES], v[GATES];
  for (int i = 0; i < FIELDS; i++) old[i] = load_lanes(tm1->field[i] + from, count);
  for (int g = 0; g < GATES; g++) {
    const long q = unit * GATES + g;
    v[g] = load(v_in + g * LANES);
    if (f->b) v[g] += load(f->bias + q * LANES);
    if (u_in) u[g] = load(u_in + g * LANES);
    else
      u[g] = load_lanes(f->w.us + ((t * f->w.rows + row) * GATES + g) * n + unit * LANES,
                        count);
    if (f->b_x) u[g] += load(f->bias_x + q * LANES);
  }
  pointwise(old, u, v, new, saved);
  for (int i = 0; i < FIELDS; i++) store_lanes(state[i] + from, new[i], count);
  if (f->save)
    for (int i = 0; i < SAVED; i++) store_lanes(f->saved[i] + at, saved[i], count);
}

/* Step t of a part: products of a block of units with W, then its gates. */
static void forward_step(const forward *f, const forward_bench *own, const long t,
                         const before tm1, real *const *state, const real *us) {
  const walk *w = &f->w;
  const long n = w->units, stride = PANELS * WIDE, per_row = own_panels(own) * WIDE;
  const matrix h = {tm1.field[0], n, 1};
  for (long first = own->first; first < own->end; first += BLOCK) {
    const long end = least(first + BLOCK, own->end);
    const real *P = f->P + first_of_gates(first) * n * WIDE;
    product(h, own->rows, n, P, panels_of((end - first) * GATES), own->product, WIDE,
            stride, 0);
    for (long r = 0; r < own->rows; r++) {
      const long row = own->lo + r;
      const int on = flag(w, t, row) & ACTIVE;
      for (long unit = first; unit < end; unit++) {
        const long from = r * n + unit * LANES, at = (t * w->rows + own->lo) * n + from;
        const int count = lanes(n, unit);
        const real *v = own->product + r * stride + (unit - first) * GATES * LANES;
        const real *u = us ? us + r * per_row + (unit - own->first) * GATES * LANES : 0;
        if (!on) {
          for (int i = 0; i < FIELDS; i++)
            store_lanes(state[i] + from, load_lanes(tm1.field[i] + from, count), count);
          if (f->save)
            for (int i = 0; i < SAVED; i++)
              store_lanes(f->saved[i] + at, splat(0), count);
        } else if (count == LANES)
          forward_unit(f, at, from, &tm1, state, t, row, unit, v, u, LANES);
        else
          forward_unit(f, at, from, &tm1, state, t, row, unit, v, u, count);
      }
    }
  }
}

/* The inputs' share u = x W_x of a chunk of steps, for a part's units. */
static void project_chunk(const forward *f, const forward_bench *own, const long t,
                          const long steps) {
  const walk *w = &f->w;
  const long k = w->inputs, stride = k + LINE, panels = own_panels(own);
  for (long s = 0; s < steps; s++)
    for (long r = 0; r < own->rows; r++)
      memcpy(own->xs + (s * own->rows + r) * stride,
             w->xs + ((t + s) * w->rows + own->lo + r) * k, (size_t)k * sizeof(real));
  const matrix x = {own->xs, stride, 1};
  product(x, steps * own->rows, k, f->P_x + first_of_gates(own->first) * k * WIDE, panels,
          own->us, WIDE, panels * WIDE, 0);
}

/* The states after a step, of a group's rows. */
static real *state_after(const forward *f, const forward_bench *own, const long t, const int i) {
  const walk *w = &f->w;
  if (f->states[i]) return f->states[i] + (t * w->rows + own->lo) * w->units;
  return own->slots + (2 * i + t % 2) * own->rows * w->units;
}

/* Step t of one part of a group; after the last, the final state is copied. */
static void forward_part(void *data, const long group, const long part, const long t) {
  const forward *f = data;
  const walk *w = &f->w;
  const forward_bench bench = f->benches[group * w->parts + part], *own = &bench;
  const long n = w->units, s = t % f->chunk;
  before tm1;
  real *state[FIELDS];
  for (int i = 0; i < FIELDS; i++)
    tm1.field[i] = t ? state_after(f, own, t - 1, i) : w->start[i] + own->lo * n;
  if (t == w->steps) {
    for (int i = 0; i < FIELDS; i++)
      copy_part(w, part, own->rows, tm1.field[i], n, f->final[i] + own->lo * n, n);
    return;
  }
  for (int i = 0; i < FIELDS; i++) state[i] = state_after(f, own, t, i);
  if (w->inputs && s == 0) project_chunk(f, own, t, least(f->chunk, w->steps - t));
  tm1 = renewed(w, tm1, t, own->lo, own->lo + own->rows, own->fresh);
  forward_step(f, own, t, tm1, state,
               w->inputs ? own->us + s * own->rows * own_panels(own) * WIDE : 0);
}

JRNN_HANDLER run_forward(XLA_FFI_CallFrame *frame) {
  if (answered(frame)) return 0;
  prepare_results(frame);
  forward f;
  memset(&f, 0, sizeof f);
  walk *w = &f.w;
  buffers args = {frame->args.args, frame->args.args + frame->args.size};
  buffers rets = {frame->rets.rets, frame->rets.rets + frame->rets.size};
  const long keep = attribute(frame, "keep"), biased = attribute(frame, "bias");
  const long of_inputs = attribute(frame, "inputs");
  f.save = attribute(frame, "save");
  const XLA_FFI_Buffer *first = next(&args);
  if (!first || first->rank != 3)
    return error(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "expected (T, rows, size)");
  w->steps = first->dims[0], w->rows = first->dims[1];
  if (of_inputs) {
    w->xs = first->data, w->inputs = first->dims[2];
    f.W_x = next_if(&args, 1);
    f.b_x = next_if(&args, attribute(frame, "input_bias"));
  } else
    w->us = first->data;
  const XLA_FFI_Buffer *matrix_of = next(&args);
  w->units = matrix_of->dims[0], f.W = matrix_of->data;
  f.b = next_if(&args, biased);
  for (int i = 0; i < FIELDS; i++) w->start[i] = next_if(&args, 1);
  for (int i = 0; i < FIELDS; i++)
    w->fresh[i] = next_if(&args, attribute(frame, "fresh"));
  w->flags = (const int32_t *)next_if(&args, attribute(frame, "flags"));
  for (int i = 0; i < FIELDS; i++) f.final[i] = next_if(&rets, 1);
  for (int i = 0; i < FIELDS; i++) f.states[i] = next_if(&rets, keep >> i & 1);
  for (int i = 0; i < SAVED; i++) f.saved[i] = next_if(&rets, f.save);
  w->vectors = vectors_of(w->units);
  divide(frame, w, w->units); /* h */
  f.chunk = most(1, FORWARD_ROWS / most(1, w->rows / w->groups));
  f.benches = calloc((size_t)w->items, sizeof *f.benches);
  arena from = {0, 0};
  if (f.benches) lay_out_forward(&f, &from);
  void *memory = f.benches ? allocate(from.used) : 0;
  int ran = 0;
  if (memory) {
    from = (arena){aligned(memory), 0};
    lay_out_forward(&f, &from);
    pack_gates(frame, w, f.W, w->units, f.P);
    if (w->inputs) pack_gates(frame, w, f.W_x, w->inputs, f.P_x);
    if (f.b) pack_bias(w, f.b, f.bias);
    if (f.b_x) pack_bias(w, f.b_x, f.bias_x);
    ran = !w->rows || run_stages(frame, w, w->steps + 1, forward_part, &f);
  }
  free(memory);
  free(f.benches);
  return ran ? 0 : no_memory(frame);
}
