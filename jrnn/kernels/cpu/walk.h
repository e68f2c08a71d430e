/* A gated cell along a whole sequence, forwards and backwards, in one call each.
 *
 *   v_t = h_{t-1} W + b,   u_t = x_t W_x + b_x or given,   s_t = pointwise(s_{t-1}, u, v)
 *
 *   lambda_t = direct_t + lambda_{t+1} J_{t+1}:   pullback, then + dv_t W^T
 *   dW = sum_t h_{t-1}^T dv_t,   dW_x = sum_t x_t^T du_t,   dx_t = du_t W_x^T
 *
 * `pointwise` and `pullback` are generated from the cell. The rows of a batch are
 * independent until the parameters' gradients are summed, so each item of work walks its
 * own rows along all steps, with its own sums, and no barrier stands inside the loop over
 * time. The number of items depends on the sizes and the pool's size alone.
 *
 * Vectors of the gates are packed unit by unit: vector q of u and v is gate q % GATES of
 * unit vector q / GATES, so that a step of the cell is taken in registers. In du and dv
 * it is unit vector q % units of gate q / units, as in the arrays of JAX.
 */
#ifndef JRNN_WALK_H
#define JRNN_WALK_H

#include "call.h"
#include "products.h"
#include "tasks.h"

enum { GATES = JRNN_GATES, FIELDS = JRNN_FIELDS, SAVED = JRNN_SAVED };
enum { SHARED = JRNN_SHARED };
/* Unit vectors of a block: the least whose gates fill whole panels. */
enum { BLOCK = GATES % VECTORS ? VECTORS : 1, PANELS = BLOCK * GATES / VECTORS };
enum { ACTIVE = 1, RESTART = 2 }; /* bits of a flag */
/* Rows of a chunk of steps of an item, over which its large products run: forwards as
 * many as fill tiles, backwards enough that the sums are seldom read and written. */
enum { FORWARD_ROWS = 64, BACKWARD_ROWS = 128 };

typedef struct {
  long steps, rows, units, inputs; /* T, rows of the batch, n, k (0: u is given) */
  long vectors, items;             /* of the units; of work */
  const real *xs, *us, *start[FIELDS], *fresh[FIELDS];
  const int32_t *flags; /* (T, rows), or 0 */
  int failed;           /* whether an item found no memory */
} walk;

static inline long least(const long a, const long b) { return a < b ? a : b; }
static inline long most(const long a, const long b) { return a > b ? a : b; }

static inline int lanes(const long units, const long vector) {
  return (int)least(LANES, units - vector * LANES);
}

static inline vec load_lanes(const real *from, const int count) {
  return count == LANES ? load(from) : load_some(from, count);
}

static inline void store_lanes(real *to, const vec value, const int count) {
  if (count == LANES) store(to, value);
  else store_some(to, value, count);
}

/* The vectors of zeros beyond the last unit. */
static inline vec only(const vec value, const int count) {
  if (count == LANES) return value;
  real kept[LANES];
  store_some(kept, value, count);
  return load_some(kept, count);
}

/* The rows of an item. */
static inline long first_row(const walk *w, const long item) {
  return item * w->rows / w->items;
}

/* Memory that is cut into arrays whose sizes are known one after the other. */
typedef struct {
  real *at;
} arena;

static real *cut(arena *from, const long count) {
  real *found = from->at;
  from->at += (count + 2 * LINE - 1) / LINE * LINE;
  return found;
}

static inline real *aligned(void *memory) {
  return (real *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
}

static inline void *allocate(const long count) {
  return malloc((size_t)count * sizeof(real) + 64);
}

/* Notes that an item found no memory. */
static void fail(const walk *w) {
  __atomic_store_n((int *)&w->failed, 1, __ATOMIC_RELAXED);
}

static XLA_FFI_Error *no_memory(const XLA_FFI_CallFrame *frame) {
  return error(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED,
               "no memory for the call of jrnn.fused()");
}

/* The state before a step: rows of each field, and how far apart the rows are. */
typedef struct {
  const real *field[FIELDS];
} before;

static inline int flag(const walk *w, const long t, const long row) {
  return w->flags ? w->flags[t * w->rows + row] : ACTIVE;
}

static int restarts(const walk *w, const long t, const long lo, const long hi) {
  if (w->flags && w->fresh[0])
    for (long row = lo; row < hi; row++)
      if (flag(w, t, row) & RESTART) return 1;
  return 0;
}

/* Rows lo..hi of the state that step t reads: in place, or renewed in `scratch`. */
static before renewed(const walk *w, const before tm1, const long t, const long lo,
                      const long hi, real *scratch) {
  if (!restarts(w, t, lo, hi)) return tm1;
  before found;
  for (int f = 0; f < FIELDS; f++) {
    real *to = scratch + f * (hi - lo) * w->units;
    found.field[f] = to;
    for (long row = lo; row < hi; row++, to += w->units) {
      const int again = flag(w, t, row) & RESTART;
      memcpy(to,
             again ? w->fresh[f] + row * w->units
                   : tm1.field[f] + (row - lo) * w->units,
             (size_t)w->units * sizeof(real));
    }
  }
  return found;
}

#include "packing.h"

#include "forward.h"
#include "backward.h"

#endif
