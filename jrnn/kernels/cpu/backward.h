/* The backward walk: the adjoint of the state from the last step to the first, and the
 * gradients of matrices and biases chunk by chunk. */

typedef struct {
  walk w;
  const real *W, *W_x;
  const real *states[FIELDS], *saved[SAVED + 1];
  const real *direct[FIELDS], *dfinal[FIELDS]; /* 0: no gradient arrives there */
  real *du, *dv, *dxs, *dW, *dW_x, *db, *db_x, *dstart[FIELDS], *dfresh[FIELDS];
  real *P, *P_x; /* the packed transposes of W and W_x */
  real *sums;    /* of all items, each `each` numbers: dW, db, dW_x, db_x */
  long each, chunk;
} backward;

/* What one item works with: rows s of a chunk of steps lie one after the other. */
typedef struct {
  long lo, rows, wide, depth, height; /* of a row of carry, of dv, and of h */
  real *carry[FIELDS], *fresh, *h, *dv, *du, *dv_packed, *du_packed, *xs, *dx;
  real *dW, *db, *dW_x, *db_x;
} workspace;

static inline long columns(const walk *w) { return panels_of(w->vectors * GATES); }

/* Adds to the sum of a bias, and stores a gate's gradient twice: by rows for the product
 * with W^T, by panels for that with h^T. */
JRNN_INLINE void leave(const walk *w, real *by_row, real *packed, real *sum,
                       const long size, const long s, const long depth, const long g,
                       const long unit, const vec value) {
  const long q = g * w->vectors + unit;
  store(by_row + s * depth + q * LANES, value);
  store(packed + ((q / VECTORS) * size + s) * WIDE + q % VECTORS * LANES, value);
  store(sum + q * LANES, load(sum + q * LANES) + value);
}

JRNN_INLINE void backward_unit(const backward *b, const workspace *own, const before *tm1,
                               const long t, const long r, const long unit, const long s,
                               const long size, const int on, const int count) {
  const walk *w = &b->w;
  const long n = w->units, from = r * n + unit * LANES;
  const long at = (t * w->rows + own->lo) * n + from;
  vec old[FIELDS], new[FIELDS], saved[SAVED + 1], dnew[FIELDS], dold[FIELDS];
  vec du[GATES], dv[GATES];
  for (int i = 0; i < FIELDS; i++) {
    dnew[i] = load(own->carry[i] + r * own->wide + unit * LANES);
    if (b->direct[i]) dnew[i] += load_lanes(b->direct[i] + at, count);
    old[i] = load_lanes(tm1->field[i] + from, count);
  }
  store(own->h + s * own->height + unit * LANES, old[0]);
  if (on) {
    for (int i = 0; i < FIELDS; i++) new[i] = load_lanes(b->states[i] + at, count);
    for (int i = 0; i < SAVED; i++) saved[i] = load_lanes(b->saved[i] + at, count);
    pullback(old, new, saved, dnew, dold, du, dv);
  }
  for (int i = 0; i < FIELDS; i++)
    store(own->carry[i] + r * own->wide + unit * LANES, only(on ? dold[i] : dnew[i], count));
  for (int g = 0; g < GATES; g++) {
    const vec du_g = on ? only(du[g], count) : splat(0);
    const vec dv_g = SHARED ? du_g : on ? only(dv[g], count) : splat(0);
    leave(w, own->dv, own->dv_packed, own->db, size, s, own->depth, g, unit, dv_g);
    const long to = ((t * w->rows + own->lo + r) * GATES + g) * n + unit * LANES;
    if (b->dv) store_lanes(b->dv + to, dv_g, count);
    if (b->du) store_lanes(b->du + to, du_g, count);
    else if (!SHARED && w->inputs)
      leave(w, own->du, own->du_packed, own->db_x, size, s, own->depth, g, unit, du_g);
  }
}

/* lambda_{t-1} from lambda_t, for one step of an item's rows. */
static void backward_step(const backward *b, const workspace *own, const before tm1,
                          const long t, const long first, const long size) {
  const walk *w = &b->w;
  for (long r = 0; r < own->rows; r++) {
    const int on = flag(w, t, own->lo + r) & ACTIVE;
    for (long unit = 0; unit < w->vectors; unit++) {
      const int count = lanes(w->units, unit);
      if (on && count == LANES)
        backward_unit(b, own, &tm1, t, r, unit, first + r, size, 1, LANES);
      else
        backward_unit(b, own, &tm1, t, r, unit, first + r, size, on, count);
    }
  }
  const matrix dv = {own->dv + first * own->depth, own->depth, 1};
  product(dv, own->rows, GATES * w->vectors * LANES, b->P, panels_of(w->vectors),
          own->carry[0], WIDE, own->wide, 1);
  for (long r = 0; r < own->rows; r++) {
    if (!w->fresh[0] || !(flag(w, t, own->lo + r) & RESTART)) continue;
    for (int i = 0; i < FIELDS; i++) {
      real *from = own->carry[i] + r * own->wide;
      real *to = b->dfresh[i] + (own->lo + r) * w->units;
      for (long j = 0; j < w->units; j++) to[j] += from[j], from[j] = 0;
    }
  }
}

/* dW += H^T dV, dW_x += X^T dU and dX = dU W_x^T of a chunk of steps from t on. */
static void backward_chunk(const backward *b, const workspace *own, const long t,
                           const long steps) {
  const walk *w = &b->w;
  const long n = w->units, k = w->inputs, size = steps * own->rows, lo = own->lo;
  if (!b->dW) return;
  const matrix h = {own->h, 1, own->height};
  product(h, n, size, own->dv_packed, columns(w), own->dW, n * WIDE, WIDE, 1);
  if (!k) return;
  const long stride = k + LINE, wide = panels_of(vectors_of(k)) * WIDE;
  for (long s = 0; s < steps; s++)
    for (long r = 0; r < own->rows; r++)
      memcpy(own->xs + (s * own->rows + r) * stride,
             w->xs + ((t + s) * w->rows + lo + r) * k, (size_t)k * sizeof(real));
  const matrix x = {own->xs, 1, stride};
  product(x, k, size, own->du_packed, columns(w), own->dW_x, k * WIDE, WIDE, 1);
  if (!b->dxs) return;
  const matrix du = {own->du, own->depth, 1};
  product(du, size, GATES * w->vectors * LANES, b->P_x, panels_of(vectors_of(k)), own->dx,
          WIDE, wide, 0);
  for (long s = 0; s < steps; s++)
    for (long r = 0; r < own->rows; r++)
      memcpy(b->dxs + ((t + s) * w->rows + lo + r) * k,
             own->dx + (s * own->rows + r) * wide, (size_t)k * sizeof(real));
}

/* Cuts an item's scratch arrays out of memory; returns how much they take. */
static long lay_out(const backward *b, workspace *own, real *memory) {
  const walk *w = &b->w;
  const long n = w->units, k = w->inputs, size = b->chunk * own->rows;
  arena from = {memory};
  own->wide = panels_of(w->vectors) * WIDE;
  own->depth = GATES * w->vectors * LANES + LINE;
  own->height = w->vectors * LANES + LINE;
  for (int i = 0; i < FIELDS; i++) own->carry[i] = cut(&from, own->rows * own->wide);
  own->fresh = cut(&from, FIELDS * own->rows * n);
  own->h = cut(&from, size * own->height);
  own->dv = own->du = cut(&from, size * own->depth);
  own->dv_packed = own->du_packed = cut(&from, size * columns(w) * WIDE);
  if (!SHARED && k) {
    own->du = cut(&from, size * own->depth);
    own->du_packed = cut(&from, size * columns(w) * WIDE);
  }
  own->xs = cut(&from, k ? size * (k + LINE) : 0);
  own->dx = cut(&from, b->dxs ? size * panels_of(vectors_of(k)) * WIDE : 0);
  return from.at - memory;
}

/* Cuts the sums of an item out of memory; returns how much they take. */
static long lay_out_sums(const backward *b, workspace *own, real *memory) {
  const walk *w = &b->w;
  const long k = w->inputs, width = columns(w) * WIDE;
  arena from = {memory};
  own->dW = cut(&from, b->dW ? width * w->units : 0);
  own->db = own->db_x = cut(&from, width);
  own->dW_x = cut(&from, k ? width * k : 0);
  if (!SHARED) own->db_x = cut(&from, width);
  return from.at - memory;
}

static void backward_item(void *data, const long item) {
  const backward *b = data;
  const walk *w = &b->w;
  const long n = w->units;
  workspace own = {.lo = first_row(w, item),
                   .rows = first_row(w, item + 1) - first_row(w, item)};
  lay_out_sums(b, &own, b->sums + item * b->each);
  const long count = lay_out(b, &own, b->sums);
  void *memory = allocate(count);
  if (!memory) {
    fail(w);
    return;
  }
  lay_out(b, &own, aligned(memory));
  memset(aligned(memory), 0, (size_t)count * sizeof(real));
  for (int i = 0; i < FIELDS; i++)
    for (long r = 0; r < own.rows && b->dfinal[i]; r++)
      memcpy(own.carry[i] + r * own.wide, b->dfinal[i] + (own.lo + r) * n,
             (size_t)n * sizeof(real));
  for (long end = w->steps; end > 0;) {
    const long t0 = most(0, end - b->chunk), size = (end - t0) * own.rows;
    for (long t = end - 1; t >= t0; t--) {
      before tm1;
      for (int i = 0; i < FIELDS; i++)
        tm1.field[i] = t ? b->states[i] + ((t - 1) * w->rows + own.lo) * n
                         : w->start[i] + own.lo * n;
      tm1 = renewed(w, tm1, t, own.lo, own.lo + own.rows, own.fresh);
      backward_step(b, &own, tm1, t, (t - t0) * own.rows, size);
    }
    backward_chunk(b, &own, t0, end - t0);
    end = t0;
  }
  for (int i = 0; i < FIELDS; i++)
    for (long r = 0; r < own.rows; r++)
      memcpy(b->dstart[i] + (own.lo + r) * n, own.carry[i] + r * own.wide,
             (size_t)n * sizeof(real));
  free(memory);
}

/* A sum of all items, and where it goes: (size, GATES * n). */
typedef struct {
  const backward *b;
  const real *sums; /* the first item's */
  long size;
  real *out;
} total;

static void add_up_item(void *data, const long item) {
  const total *all = data;
  const walk *w = &all->b->w;
  const long units = w->vectors * GATES;
  for (long q = item * units / w->items; q < (item + 1) * units / w->items; q++) {
    const long g = q / w->vectors, unit = q % w->vectors;
    const real *sum = vector_at((real *)all->sums, q, all->size);
    real *to = all->out + g * w->units + unit * LANES;
    for (long i = 0; i < all->size; i++, sum += WIDE, to += GATES * w->units) {
      vec value = load(sum);
      for (long other = 1; other < w->items; other++)
        value += load(sum + other * all->b->each);
      store_lanes(to, value, lanes(w->units, unit));
    }
  }
}

/* Adds the items' sums in their order, and unpacks them. */
static void add_up(const XLA_FFI_CallFrame *frame, const backward *b, const real *sums,
                   const long size, real *out) {
  total all = {b, sums, size, out};
  if (out) run_items(frame, b->w.items, add_up_item, &all);
}

JRNN_HANDLER run_backward(XLA_FFI_CallFrame *frame) {
  if (answered(frame)) return 0;
  backward b;
  memset(&b, 0, sizeof b);
  walk *w = &b.w;
  buffers args = {frame->args.args, frame->args.args + frame->args.size};
  buffers rets = {frame->rets.rets, frame->rets.rets + frame->rets.size};
  const long of_inputs = attribute(frame, "inputs"), fresh = attribute(frame, "fresh");
  const XLA_FFI_Buffer *matrix_of = next(&args), *first = next(&args);
  if (!first || first->rank != 3)
    return error(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "expected (T, rows, size)");
  w->units = matrix_of->dims[0], b.W = matrix_of->data;
  w->steps = first->dims[0], w->rows = first->dims[1];
  b.states[0] = first->data;
  for (int i = 1; i < FIELDS; i++) b.states[i] = next_if(&args, 1);
  for (int i = 0; i < SAVED; i++) b.saved[i] = next_if(&args, 1);
  for (int i = 0; i < FIELDS; i++) w->start[i] = next_if(&args, 1);
  for (int i = 0; i < FIELDS; i++) w->fresh[i] = next_if(&args, fresh);
  w->flags = (const int32_t *)next_if(&args, attribute(frame, "flags"));
  for (int i = 0; i < FIELDS; i++)
    b.direct[i] = next_if(&args, attribute(frame, "direct") >> i & 1);
  for (int i = 0; i < FIELDS; i++)
    b.dfinal[i] = next_if(&args, attribute(frame, "dfinal") >> i & 1);
  if (of_inputs) {
    const XLA_FFI_Buffer *xs = next(&args);
    w->xs = xs->data, w->inputs = xs->dims[2];
    b.W_x = next_if(&args, 1);
  }
  const long sums = attribute(frame, "sums");
  b.dW = next_if(&rets, sums);
  b.db = next_if(&rets, sums && attribute(frame, "bias"));
  for (int i = 0; i < FIELDS; i++) b.dstart[i] = next_if(&rets, 1);
  for (int i = 0; i < FIELDS; i++) b.dfresh[i] = next_if(&rets, fresh);
  if (of_inputs) {
    b.dW_x = next_if(&rets, 1);
    b.db_x = next_if(&rets, attribute(frame, "input_bias"));
    b.dxs = next_if(&rets, attribute(frame, "dxs"));
  } else
    b.du = next_if(&rets, 1);
  b.dv = next_if(&rets, !sums && !SHARED);
  w->vectors = vectors_of(w->units);
  w->items = items_of(frame, w);
  b.chunk = most(1, BACKWARD_ROWS / most(1, w->rows / w->items));
  workspace own = {.rows = 0};
  real none[1];
  b.each = lay_out_sums(&b, &own, none);
  const long depth = GATES * w->vectors * LANES;
  const long sizes[2] = {depth * panels_of(w->vectors) * WIDE,
                         b.dxs ? depth * panels_of(vectors_of(w->inputs)) * WIDE : 0};
  const long count = sizes[0] + sizes[1] + w->items * b.each + 8 * LINE;
  void *memory = allocate(count);
  if (!memory) return no_memory(frame);
  arena from = {aligned(memory)};
  pack_transposed(frame, w, b.W, w->units, b.P = cut(&from, sizes[0]));
  if (b.dxs) pack_transposed(frame, w, b.W_x, w->inputs, b.P_x = cut(&from, sizes[1]));
  b.sums = cut(&from, w->items * b.each);
  memset(b.sums, 0, (size_t)(w->items * b.each) * sizeof(real));
  for (int i = 0; i < FIELDS && fresh; i++)
    memset(b.dfresh[i], 0, (size_t)(w->rows * w->units) * sizeof(real));
  if (w->rows) run_items(frame, w->items, backward_item, &b);
  lay_out_sums(&b, &own, b.sums);
  add_up(frame, &b, own.dW, w->units, b.dW);
  add_up(frame, &b, own.db, 1, b.db);
  add_up(frame, &b, own.dW_x, w->inputs, b.dW_x);
  add_up(frame, &b, own.db_x, 1, b.db_x);
  free(memory);
  return w->failed ? no_memory(frame) : 0;
}
