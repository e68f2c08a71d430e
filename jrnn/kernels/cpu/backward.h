/* The backward walk: the adjoint of the state from the last step to the first, and the
 * gradients of matrices and biases chunk by chunk. */

/* What one part works with: rows s of a chunk of steps lie one after the other. A group
 * shares its carry, h, dv and du, and the sums of its rows. */
typedef struct {
  long lo, rows, first, end; /* rows, and vectors of units */
  real *carry[FIELDS], *h, *dv, *du, *dv_packed, *du_packed;
  real *dW, *db, *dW_x, *db_x;
  real *fresh, *xs, *dx;
} backward_bench;

typedef struct {
  walk w;
  const real *W, *W_x;
  const real *states[FIELDS], *saved[SAVED + 1];
  const real *direct[FIELDS], *dfinal[FIELDS]; /* 0: no gradient arrives there */
  real *du, *dv, *dxs, *dW, *dW_x, *db, *db_x, *dstart[FIELDS], *dfresh[FIELDS];
  real *P, *P_x;            /* the packed transposes of W and W_x */
  long wide, depth, height; /* of a row of carry, of dv, and of h */
  long chunk;
  backward_bench *benches; /* of group g and part p at g * parts + p */
} backward;

/* Stores a gate's gradient twice: by rows and gate by gate for the product with W^T, by
 * panels and unit by unit for that with h^T. */
JRNN_INLINE void leave(const walk *w, real *row, real *packed, const long size,
                       const long s, const long g, const long unit, const vec value) {
  const long q = unit * GATES + g;
  store(row + (g * w->vectors + unit) * LANES, value);
  store(packed + ((q / VECTORS) * size + s) * WIDE + q % VECTORS * LANES, value);
}

JRNN_INLINE void backward_unit(const backward *b, const backward_bench *own,
                               const before *tm1, const long t, const long r,
                               const long unit, const long s, const long size,
                               const int on, const int count) {
  const walk *w = &b->w;
  const long n = w->units, from = r * n + unit * LANES;
  const long at = (t * w->rows + own->lo) * n + from;
  vec old[FIELDS], new[FIELDS], saved[SAVED + 1], dnew[FIELDS], dold[FIELDS];
  vec du[GATES], dv[GATES];
  for (int i = 0; i < FIELDS; i++) {
    dnew[i] = load(own->carry[i] + r * b->wide + unit * LANES);
    if (b->direct[i]) dnew[i] += load_lanes(b->direct[i] + at, count);
    old[i] = load_lanes(tm1->field[i] + from, count);
  }
  store(own->h + s * b->height + unit * LANES, old[0]);
  if (on) {
    for (int i = 0; i < FIELDS; i++) new[i] = load_lanes(b->states[i] + at, count);
    for (int i = 0; i < SAVED; i++) saved[i] = load_lanes(b->saved[i] + at, count);
    pullback(old, new, saved, dnew, dold, du, dv);
  }
  for (int i = 0; i < FIELDS; i++)
    store(own->carry[i] + r * b->wide + unit * LANES, only(on ? dold[i] : dnew[i], count));
  for (int g = 0; g < GATES; g++) {
    const vec du_g = on ? only(du[g], count) : splat(0);
    const vec dv_g = SHARED ? du_g : on ? only(dv[g], count) : splat(0);
    leave(w, own->dv + s * b->depth, own->dv_packed, size, s, g, unit, dv_g);
    const long to = ((t * w->rows + own->lo + r) * GATES + g) * n + unit * LANES;
    if (b->dv) store_lanes(b->dv + to, dv_g, count);
    if (b->du) store_lanes(b->du + to, du_g, count);
    else if (!SHARED && w->inputs)
      leave(w, own->du + s * b->depth, own->du_packed, size, s, g, unit, du_g);
  }
}

/* Row `first` of the chunk on: the gates' gradients of step t, of a part's units. */
static void pull_back(const backward *b, const backward_bench *own, const long t,
                      const long first, const long size) {
  const walk *w = &b->w;
  before tm1;
  for (int i = 0; i < FIELDS; i++)
    tm1.field[i] = t ? b->states[i] + ((t - 1) * w->rows + own->lo) * w->units
                     : w->start[i] + own->lo * w->units;
  tm1 = renewed(w, tm1, t, own->lo, own->lo + own->rows, own->fresh);
  for (long r = 0; r < own->rows; r++) {
    const int on = flag(w, t, own->lo + r) & ACTIVE;
    for (long unit = own->first; unit < own->end; unit++) {
      const int count = lanes(w->units, unit);
      if (on && count == LANES)
        backward_unit(b, own, &tm1, t, r, unit, first + r, size, 1, LANES);
      else
        backward_unit(b, own, &tm1, t, r, unit, first + r, size, on, count);
    }
  }
}

/* What W carries of them to the step before: carry += dv W^T, of a part's units. */
static void carry_back(const backward *b, const backward_bench *own, const long t,
                       const long first) {
  const walk *w = &b->w;
  const long depth = GATES * w->vectors * LANES, panel = own->first / VECTORS;
  const matrix dv = {own->dv + first * b->depth, b->depth, 1};
  product(dv, own->rows, depth, b->P + panel * depth * WIDE, panels_of(own->end) - panel,
          own->carry[0] + panel * WIDE, WIDE, b->wide, 1);
  const long from = own->first * LANES, to = least(w->units, own->end * LANES);
  for (long r = 0; r < own->rows; r++) {
    if (!w->fresh[0] || !(flag(w, t, own->lo + r) & RESTART)) continue;
    for (int i = 0; i < FIELDS; i++) {
      real *carry = own->carry[i] + r * b->wide;
      real *fresh = b->dfresh[i] + (own->lo + r) * w->units;
      for (long j = from; j < to; j++) fresh[j] += carry[j], carry[j] = 0;
    }
  }
}

/* Adds the sum over a chunk's rows to the sums of so many panels. */
static void add_rows(const real *packed, const long size, const long panels, real *sums) {
  for (long p = 0; p < panels; p++, sums += WIDE) {
    vec sum[VECTORS];
    for (int v = 0; v < VECTORS; v++) sum[v] = splat(0);
    for (long s = 0; s < size; s++, packed += WIDE)
      for (int v = 0; v < VECTORS; v++) sum[v] += load(packed + v * LANES);
    for (int v = 0; v < VECTORS; v++)
      store(sums + v * LANES, load(sums + v * LANES) + sum[v]);
  }
}

/* dW += H^T dV, dW_x += X^T dU and the sums of dV and dU of a part's units, and its columns
 * of dX = dU W_x^T, of a chunk of steps from t on. */
static void backward_chunk(const backward *b, const backward_bench *own, const long part,
                           const long t, const long steps) {
  const walk *w = &b->w;
  const long n = w->units, k = w->inputs, size = steps * own->rows, lo = own->lo;
  const long first = first_of_gates(own->first);
  const long panels = panels_of(own->end * GATES) - first;
  if (!b->dW) return;
  add_rows(own->dv_packed + first * size * WIDE, size, panels, own->db + first * WIDE);
  if (!SHARED && k)
    add_rows(own->du_packed + first * size * WIDE, size, panels, own->db_x + first * WIDE);
  const matrix h = {own->h, 1, b->height};
  product(h, n, size, own->dv_packed + first * size * WIDE, panels,
          own->dW + first * n * WIDE, n * WIDE, WIDE, 1);
  if (!k) return;
  const long stride = k + LINE;
  for (long s = 0; s < steps; s++)
    for (long r = 0; r < own->rows; r++)
      memcpy(own->xs + (s * own->rows + r) * stride,
             w->xs + ((t + s) * w->rows + lo + r) * k, (size_t)k * sizeof(real));
  const matrix x = {own->xs, 1, stride};
  product(x, k, size, own->du_packed + first * size * WIDE, panels,
          own->dW_x + first * k * WIDE, k * WIDE, WIDE, 1);
  if (!b->dxs) return;
  const long all = panels_of(vectors_of(k)), from = first_panel(w, part, all);
  const long to = first_panel(w, part + 1, all), wide = (to - from) * WIDE;
  const long depth = GATES * w->vectors * LANES, count = least(k, to * WIDE) - from * WIDE;
  if (to == from) return;
  const matrix du = {own->du, b->depth, 1};
  product(du, size, depth, b->P_x + from * depth * WIDE, to - from, own->dx, WIDE, wide, 0);
  for (long s = 0; s < steps; s++)
    for (long r = 0; r < own->rows; r++)
      memcpy(b->dxs + ((t + s) * w->rows + lo + r) * k + from * WIDE,
             own->dx + (s * own->rows + r) * wide, (size_t)count * sizeof(real));
}

/* Cuts the packed arrays, and the scratch arrays and sums of all parts; returns where
 * those begin that must be zero at first. */
static long lay_out_backward(backward *b, arena *from) {
  const walk *w = &b->w;
  const long n = w->units, k = w->inputs, width = columns(w) * WIDE;
  const long depth = GATES * w->vectors * LANES, of_k = panels_of(vectors_of(k));
  b->wide = panels_of(w->vectors) * WIDE;
  b->depth = depth + LINE, b->height = w->vectors * LANES + LINE;
  b->P = cut(from, depth * b->wide), b->P_x = cut(from, b->dxs ? depth * of_k * WIDE : 0);
  const long zeros = from->used;
  backward_bench *own = b->benches;
  for (long g = 0; g < w->groups; g++, own += w->parts) { /* sums: equally far apart */
    own->dW = cut(from, b->dW ? width * n : 0), own->dW_x = cut(from, width * k);
    own->db = own->db_x = cut(from, width);
    if (!SHARED) own->db_x = cut(from, width);
  }
  own = b->benches;
  for (long g = 0; g < w->groups; g++) {
    backward_bench group = *own;
    group.lo = first_row(w, g), group.rows = first_row(w, g + 1) - group.lo;
    const long size = b->chunk * group.rows;
    for (int i = 0; i < FIELDS; i++) group.carry[i] = cut(from, group.rows * b->wide);
    group.h = cut(from, size * b->height);
    group.dv = group.du = cut(from, size * b->depth);
    group.dv_packed = group.du_packed = cut(from, size * width);
    if (!SHARED) {
      group.du = cut(from, k ? size * b->depth : 0);
      group.du_packed = cut(from, k ? size * width : 0);
    }
    for (long part = 0; part < w->parts; part++, own++) {
      *own = group;
      own->first = first_unit(w, part), own->end = first_unit(w, part + 1);
      own->fresh = cut(from, FIELDS * group.rows * n);
      own->xs = cut(from, k ? size * (k + LINE) : 0);
      own->dx = cut(from, b->dxs ? size * (of_k / w->parts + 1) * WIDE : 0);
    }
  }
  return zeros;
}

/* The number of stages: of a chunk of s steps there are s + 1. */
static long backward_stages(const backward *b) {
  const long chunks = (b->w.steps + b->chunk - 1) / b->chunk;
  return most(1, b->w.steps + chunks);
}

/* One stage of a part: carries back what the stage before pulled back, and pulls back the
 * step before, or, at the end of a chunk, adds it to the gradients of the parameters. */
static void backward_part(void *data, const long group, const long part,
                          const long stage) {
  const backward *b = data;
  const walk *w = &b->w;
  const backward_bench bench = b->benches[group * w->parts + part], *own = &bench;
  const long n = w->units, lo = own->lo;
  const long end = w->steps - stage / (b->chunk + 1) * b->chunk;
  const long t0 = most(0, end - b->chunk), t = end - 1 - stage % (b->chunk + 1);
  if (stage == 0)
    for (int i = 0; i < FIELDS; i++)
      if (b->dfinal[i])
        copy_part(w, part, own->rows, b->dfinal[i] + lo * n, n, own->carry[i], b->wide);
  if (t < end - 1) carry_back(b, own, t + 1, (t + 1 - t0) * own->rows);
  if (t >= t0) pull_back(b, own, t, (t - t0) * own->rows, (end - t0) * own->rows);
  else backward_chunk(b, own, part, t0, end - t0);
  if (t < 0)
    for (int i = 0; i < FIELDS; i++)
      copy_part(w, part, own->rows, own->carry[i], b->wide, b->dstart[i] + lo * n, n);
}

/* A sum of all groups, and where it goes: (size, GATES * n). */
typedef struct {
  const walk *w;
  const real *sums; /* the first group's */
  long each;        /* numbers from one group's sums to the next */
  long size;
  real *out;
} total;

static void add_up_item(void *data, const long item) {
  const total *all = data;
  const walk *w = all->w;
  const long units = w->vectors * GATES;
  for (long q = item * units / w->items; q < (item + 1) * units / w->items; q++) {
    const long g = q % GATES, unit = q / GATES;
    const real *sum = vector_at((real *)all->sums, q, all->size);
    real *to = all->out + g * w->units + unit * LANES;
    for (long i = 0; i < all->size; i++, sum += WIDE, to += GATES * w->units) {
      vec value = load(sum);
      for (long other = 1; other < w->groups; other++)
        value += load(sum + other * all->each);
      store_lanes(to, value, lanes(w->units, unit));
    }
  }
}

/* Adds the groups' sums in their order, and unpacks them. */
static void add_up(const XLA_FFI_CallFrame *frame, const backward *b, const long each,
                   const real *sums, const long size, real *out) {
  total all = {&b->w, sums, each, size, out};
  if (out) run_items(frame, b->w.items, add_up_item, &all);
}

JRNN_HANDLER run_backward(XLA_FFI_CallFrame *frame) {
  if (answered(frame)) return 0;
  prepare_results(frame);
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
  divide(frame, w, GATES * w->units); /* dv */
  b.chunk = least(most(1, w->steps), most(1, BACKWARD_ROWS / most(1, w->rows / w->groups)));
  b.benches = calloc((size_t)w->items, sizeof *b.benches);
  arena from = {0, 0};
  const long zeros = b.benches ? lay_out_backward(&b, &from) : 0;
  void *memory = b.benches ? allocate(from.used) : 0;
  int ran = 0;
  if (memory) {
    from = (arena){aligned(memory), 0};
    lay_out_backward(&b, &from);
    const backward_bench *own = b.benches;
    const long each = w->groups > 1 ? own[w->parts].dW - own->dW : 0;
    zero(frame, w, from.memory + zeros, from.used - zeros);
    for (int i = 0; i < FIELDS && fresh && w->rows; i++)
      memset(b.dfresh[i], 0, (size_t)(w->rows * w->units) * sizeof(real));
    pack_transposed(frame, w, b.W, w->units, b.P);
    if (b.dxs) pack_transposed(frame, w, b.W_x, w->inputs, b.P_x);
    ran = !w->rows || run_stages(frame, w, backward_stages(&b), backward_part, &b);
    add_up(frame, &b, each, own->dW, w->units, b.dW);
    add_up(frame, &b, each, own->db, 1, b.db);
    add_up(frame, &b, each, own->dW_x, w->inputs, b.dW_x);
    add_up(frame, &b, each, own->db_x, 1, b.db_x);
  }
  free(memory);
  free(b.benches);
  return ran ? 0 : no_memory(frame);
}
