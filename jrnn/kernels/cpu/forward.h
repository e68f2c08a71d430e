/* The forward walk: one call computes every state, and what the backward walk needs. */

typedef struct {
  walk w;
  const real *W, *W_x, *b, *b_x;
  real *states[FIELDS]; /* (T, rows, n), or 0: not kept */
  real *saved[SAVED + 1], *final[FIELDS];
  long save;
  real *P, *P_x, *bias, *bias_x; /* packed */
} forward;

/* One unit vector of one row: reads the product, writes states and saved values. */
JRNN_INLINE void forward_unit(const forward *f, const long at, const long from,
                              const before *tm1, real *const *state, const long t,
                              const long row, const long lo, const long unit,
                              const real *v_in, const real *u_in, const int count) {
  const long n = f->w.units;
  vec old[FIELDS], new[FIELDS], saved[SAVED + 1], u[GATES], v[GATES];
  for (int i = 0; i < FIELDS; i++) old[i] = load_lanes(tm1->field[i] + from, count);
  for (int g = 0; g < GATES; g++) {
    const long q = unit * GATES + g;
    v[g] = load(v_in + g * LANES);
    if (f->bias) v[g] += load(f->bias + q * LANES);
    if (u_in) u[g] = load(u_in + q * LANES);
    else
      u[g] = load_lanes(f->w.us + ((t * f->w.rows + row) * GATES + g) * n + unit * LANES,
                        count);
    if (f->bias_x) u[g] += load(f->bias_x + q * LANES);
  }
  pointwise(old, u, v, new, saved);
  for (int i = 0; i < FIELDS; i++)
    store_lanes(state[i] + (row - lo) * n + unit * LANES, new[i], count);
  if (f->save)
    for (int i = 0; i < SAVED; i++) store_lanes(f->saved[i] + at, saved[i], count);
}

/* Step t of rows lo..hi: products of a block of units with W, then its gates. */
static void forward_step(const forward *f, const long t, const long lo, const long hi,
                         const before tm1, real *const *state, const real *us,
                         real *product_of_block) {
  const walk *w = &f->w;
  const long n = w->units, rows = hi - lo, stride = PANELS * WIDE;
  const matrix h = {tm1.field[0], n, 1};
  const long per_row = panels_of(w->vectors * GATES) * WIDE;
  for (long block = 0; block * BLOCK < w->vectors; block++) {
    const real *P = f->P + block * PANELS * n * WIDE;
    const long end = least((block + 1) * BLOCK, w->vectors);
    const long panels = least(PANELS, panels_of(w->vectors * GATES) - block * PANELS);
    product(h, rows, n, P, panels, product_of_block, WIDE, stride, 0);
    for (long r = 0; r < rows; r++) {
      const long row = lo + r;
      const int on = flag(w, t, row) & ACTIVE;
      for (long unit = block * BLOCK; unit < end; unit++) {
        const long from = r * n + unit * LANES, at = (t * w->rows + lo) * n + from;
        const int count = lanes(n, unit);
        const real *v = product_of_block + r * stride + (unit - block * BLOCK) * GATES * LANES;
        const real *u = us ? us + r * per_row : 0;
        if (!on) {
          for (int i = 0; i < FIELDS; i++)
            store_lanes(state[i] + from, load_lanes(tm1.field[i] + from, count), count);
          if (f->save)
            for (int i = 0; i < SAVED; i++)
              store_lanes(f->saved[i] + at, splat(0), count);
        } else if (count == LANES)
          forward_unit(f, at, from, &tm1, state, t, row, lo, unit, v, u, LANES);
        else
          forward_unit(f, at, from, &tm1, state, t, row, lo, unit, v, u, count);
      }
    }
  }
}

/* The inputs' share u = x W_x of a chunk of steps. */
static void project_chunk(const forward *f, const long t, const long steps, const long lo,
                          const long hi, real *xs, real *us) {
  const walk *w = &f->w;
  const long k = w->inputs, rows = hi - lo, stride = k + LINE;
  const long panels = panels_of(w->vectors * GATES);
  for (long s = 0; s < steps; s++)
    for (long r = 0; r < rows; r++)
      memcpy(xs + (s * rows + r) * stride, w->xs + ((t + s) * w->rows + lo + r) * k,
             (size_t)k * sizeof(real));
  const matrix x = {xs, stride, 1};
  product(x, steps * rows, k, f->P_x, panels, us, WIDE, panels * WIDE, 0);
}

static void forward_item(void *data, const long item) {
  const forward *f = data;
  const walk *w = &f->w;
  const long lo = first_row(w, item), hi = first_row(w, item + 1), rows = hi - lo;
  const long n = w->units, chunk = most(1, FORWARD_ROWS / rows);
  const long per_row = panels_of(w->vectors * GATES) * WIDE;
  const long counts[4] = {rows * PANELS * WIDE, FIELDS * rows * n,
                          2 * FIELDS * rows * n,
                          w->inputs ? chunk * rows * (w->inputs + LINE + per_row) : 0};
  void *memory = allocate(counts[0] + counts[1] + counts[2] + counts[3] + 16 * LINE);
  if (!memory) {
    fail(w);
    return;
  }
  arena from = {aligned(memory)};
  real *of_block = cut(&from, counts[0]), *fresh = cut(&from, counts[1]);
  real *slots = cut(&from, counts[2]), *xs = 0, *us = 0;
  if (w->inputs) {
    xs = cut(&from, chunk * rows * (w->inputs + LINE));
    us = cut(&from, chunk * rows * per_row);
  }
  before tm1;
  for (int i = 0; i < FIELDS; i++) tm1.field[i] = w->start[i] + lo * n;
  for (long t = 0; t < w->steps; t++) {
    real *state[FIELDS];
    if (w->inputs && t % chunk == 0)
      project_chunk(f, t, least(chunk, w->steps - t), lo, hi, xs, us);
    for (int i = 0; i < FIELDS; i++)
      state[i] = f->states[i] ? f->states[i] + (t * w->rows + lo) * n
                              : slots + (2 * i + t % 2) * rows * n;
    const before read = renewed(w, tm1, t, lo, hi, fresh);
    forward_step(f, t, lo, hi, read, state, us ? us + t % chunk * rows * per_row : 0,
                 of_block);
    for (int i = 0; i < FIELDS; i++) tm1.field[i] = state[i];
  }
  for (int i = 0; i < FIELDS; i++)
    memcpy(f->final[i] + lo * n, tm1.field[i], (size_t)(rows * n) * sizeof(real));
  free(memory);
}

static long items_of(const XLA_FFI_CallFrame *frame, const walk *w) {
  const double products = (double)w->steps * (double)w->rows * (double)w->units *
                          (double)(GATES * (w->units + w->inputs));
  if (products < 1e5) return 1; /* microseconds, as long as a thread takes to start */
  return most(1, least(threads(frame), w->rows));
}

JRNN_HANDLER run_forward(XLA_FFI_CallFrame *frame) {
  if (answered(frame)) return 0;
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
  w->items = items_of(frame, w);
  const long width = panels_of(w->vectors * GATES) * WIDE;
  void *memory = allocate((w->units + w->inputs + 2) * width + 8 * LINE);
  if (!memory) return no_memory(frame);
  arena from = {aligned(memory)};
  f.P = cut(&from, w->units * width);
  pack_gates(frame, w, f.W, w->units, f.P);
  if (of_inputs) {
    f.P_x = cut(&from, w->inputs * width);
    pack_gates(frame, w, f.W_x, w->inputs, f.P_x);
  }
  if (f.b) pack_bias(w, f.b, f.bias = cut(&from, width));
  if (f.b_x) pack_bias(w, f.b_x, f.bias_x = cut(&from, width));
  if (w->rows) run_items(frame, w->items, forward_item, &f);
  free(memory);
  return w->failed ? no_memory(frame) : 0;
}
