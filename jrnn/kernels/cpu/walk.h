/* A gated cell along a whole sequence, forwards and backwards, in one call each.
 *
 *   v_t = h_{t-1} W + b,   u_t = x_t W_x + b_x or given,   s_t = pointwise(s_{t-1}, u, v)
 *
 *   lambda_t = direct_t + lambda_{t+1} J_{t+1}:   pullback, then + dv_t W^T
 *   dW = sum_t h_{t-1}^T dv_t,   dW_x = sum_t x_t^T du_t,   dx_t = du_t W_x^T
 *
 * `pointwise` and `pullback` are generated from the cell. The rows of a batch are
 * independent until the parameters' gradients are summed, so each group of rows walks
 * along all steps by itself, with its own sums. Where rows are few and the matrix is
 * large, the units of a group are divided in parts too, which wait for each other once a
 * step, and backwards once more at the end of a chunk. The division depends on the sizes and the pool's size alone (division.h).
 *
 * Vectors of the gates are packed unit by unit: vector q of u, v and their gradients is
 * gate q % GATES of unit vector q / GATES, so that a step of the cell is taken in
 * registers, and a part's units lie together. For the product with W^T the rows of dv lie
 * gate by gate, each gate padded to whole vectors.
 */
#ifndef JRNN_WALK_H
#define JRNN_WALK_H

#include "call.h"
#include "products.h"
#include "team.h"

enum { GATES = JRNN_GATES, FIELDS = JRNN_FIELDS, SAVED = JRNN_SAVED };
enum { SHARED = JRNN_SHARED };
/* Unit vectors of a block: the least whose gates fill whole panels. */
enum { BLOCK = GATES % VECTORS ? VECTORS : 1, PANELS = BLOCK * GATES / VECTORS };
enum { ACTIVE = 1, RESTART = 2 }; /* bits of a flag */
/* Rows of a chunk of steps of a group, over which its large products run: forwards as
 * many as fill tiles, backwards enough that the sums are seldom read and written. */
enum { FORWARD_ROWS = 64, BACKWARD_ROWS = 128 };

typedef struct {
  long steps, rows, units, inputs; /* T, rows of the batch, n, k (0: u is given) */
  long vectors;                    /* of the units */
  long groups, parts, items;       /* of rows; of units; both together */
  const real *xs, *us, *start[FIELDS], *fresh[FIELDS];
  const int32_t *flags; /* (T, rows), or 0 */
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

/* The panels of all gates of all units, which lie unit by unit, and the panel in which
 * the gates of a part's first unit begin. */
static inline long columns(const walk *w) { return panels_of(w->vectors * GATES); }
static inline long first_of_gates(const long unit) { return unit * GATES / VECTORS; }

/* The first of a group's rows. */
static inline long first_row(const walk *w, const long group) {
  return group * w->rows / w->groups;
}

/* The first of a part's panels, of so many, and of its vectors of units. */
static inline long first_panel(const walk *w, const long part, const long panels) {
  return part * panels / w->parts;
}

static inline long first_unit(const walk *w, const long part) {
  return least(w->vectors, first_panel(w, part, panels_of(w->vectors)) * VECTORS);
}

/* Copies a part's columns of rows of n numbers. */
static void copy_part(const walk *w, const long part, const long rows, const real *from,
                      const long from_row, real *to, const long to_row) {
  const long first = first_unit(w, part) * LANES;
  const long count = least(w->units, first_unit(w, part + 1) * LANES) - first;
  for (long r = 0; r < rows; r++)
    memcpy(to + r * to_row + first, from + r * from_row + first,
           (size_t)count * sizeof(real));
}

/* Memory that is cut into arrays one after the other; without memory, only counts. */
typedef struct {
  real *memory;
  long used;
} arena;

static real *cut(arena *from, const long count) {
  real *found = from->memory ? from->memory + from->used : 0;
  from->used += (count + 2 * LINE - 1) / LINE * LINE;
  return found;
}

static inline real *aligned(void *memory) {
  return (real *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
}

static inline void *allocate(const long count) {
  const size_t bytes = (size_t)count * sizeof(real) + 64;
  void *found = malloc(bytes);
  prefer_large_pages(found, bytes);
  return found;
}

static XLA_FFI_Error *no_memory(const XLA_FFI_CallFrame *frame) {
  return error(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED,
               "no memory for the call of jrnn.fused()");
}

/* The state before a step: the first of a group's rows, of each field. */
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

#include "division.h"
#include "packing.h"

#include "forward.h"
#include "backward.h"

#endif
