/* Packing the matrices of a walk, by all threads: of one sequence of a few rows this is a
 * good part of the work.
 */
#ifndef JRNN_PACKING_H
#define JRNN_PACKING_H

typedef struct {
  const walk *w;
  const real *from; /* the matrix (size, GATES * n) */
  real *to;
  long size, panels;
  void (*panel)(const walk *w, const real *from, long size, long q, real *to);
} packing;

static void pack_item(void *data, const long item) {
  const packing *p = data;
  const long items = p->w->items;
  for (long q = item * p->panels / items * VECTORS;
       q < (item + 1) * p->panels / items * VECTORS; q++)
    p->panel(p->w, p->from, p->size, q, p->to);
}

/* Vector q is gate q % GATES of unit vector q / GATES; a row of the matrix for each k. */
static void pack_of_gates(const walk *w, const real *W, const long size, const long q,
                          real *P) {
  const long n = w->units, unit = q / GATES, row = GATES * n;
  const int count = unit < w->vectors ? lanes(n, unit) : 0;
  const real *from = W + (q % GATES) * n + (count ? unit * LANES : 0);
  real *to = vector_at(P, q, size);
  if (count == LANES)
    for (long k = 0; k < size; k++, to += WIDE, from += row) store(to, load(from));
  else
    for (long k = 0; k < size; k++, to += WIDE, from += row)
      store(to, load_some(from, count));
}

/* Vector q is rows q * LANES .. of the matrix, for each gate and padded unit, as dv
 * lies. */
static void pack_of_rows(const walk *w, const real *W, const long size, const long q,
                         real *P) {
  const long n = w->units, row = GATES * n, padded = w->vectors * LANES;
  const long count = most(0, least(LANES, size - q * LANES));
  real *to = vector_at(P, q, GATES * padded);
  for (long g = 0; g < GATES; g++) {
    const real *from = W + (count ? q * LANES * row : 0) + g * n;
    for (long j = 0; j < n; j++, to += WIDE)
      if (count == LANES)
        for (int i = 0; i < LANES; i++) to[i] = from[i * row + j];
      else
        for (int i = 0; i < LANES; i++) to[i] = i < count ? from[i * row + j] : 0;
    for (long j = n; j < padded; j++, to += WIDE) store(to, splat(0));
  }
}

static void pack(const XLA_FFI_CallFrame *frame, const packing p) {
  run_items(frame, p.w->items, pack_item, (void *)&p);
}

/* Packs W or W_x for products with h or x. */
static void pack_gates(const XLA_FFI_CallFrame *frame, const walk *w, const real *W,
                       const long size, real *P) {
  pack(frame,
       (packing){w, W, P, size, panels_of(w->vectors * GATES), pack_of_gates});
}

/* Packs the transpose of W or W_x for products with dv or du. */
static void pack_transposed(const XLA_FFI_CallFrame *frame, const walk *w, const real *W,
                            const long size, real *P) {
  pack(frame, (packing){w, W, P, size, panels_of(vectors_of(size)), pack_of_rows});
}

typedef struct {
  real *from;
  long count, items;
} zeroed;

static void zero_item(void *data, const long item) {
  const zeroed *z = data;
  const long lo = item * z->count / z->items, hi = (item + 1) * z->count / z->items;
  memset(z->from + lo, 0, (size_t)(hi - lo) * sizeof(real));
}

/* Sets numbers to zero, by all threads. */
static void zero(const XLA_FFI_CallFrame *frame, const walk *w, real *from,
                 const long count) {
  zeroed all = {from, count, w->items};
  run_items(frame, w->items, zero_item, &all);
}

/* Packs one row (GATES * n) as plain vectors, in the order of the gates' vectors. */
static void pack_bias(const walk *w, const real *b, real *to) {
  for (long q = 0; q < w->vectors * GATES; q++) {
    const long unit = q / GATES, gate = q % GATES;
    store(to + q * LANES,
          load_some(b + gate * w->units + unit * LANES, lanes(w->units, unit)));
  }
}

#endif
