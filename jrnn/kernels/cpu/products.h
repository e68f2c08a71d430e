/* Matrix products with a packed matrix: out = A P, or out += A P.
 *
 * A matrix is packed once per call into panels of WIDE columns, in which the values of
 * one row lie side by side, so that a product reads it in order. A tile of the result,
 * at most TALL rows of one panel, stays in registers while the whole inner index goes
 * by: TALL * VECTORS fused multiply-adds for TALL + VECTORS loads. One or two rows have
 * too few of them in flight, and take the even and odd inner indices separately.
 *
 * Every result is summed in an order that depends on the sizes alone. A sum that is added
 * to begins at zero, so that along many steps it is a sum of sums, which loses less.
 */
#ifndef JRNN_PRODUCTS_H
#define JRNN_PRODUCTS_H

#include "vectors.h"

enum { VECTORS = 2, WIDE = VECTORS * LANES };

/* Accumulators, one panel's vectors and one broadcast value fit the registers: 32 of
 * AVX-512 and of ARM, 16 elsewhere. */
#if defined(__AVX512F__)
enum { TALL = 12 };
#elif defined(__aarch64__)
enum { TALL = 10 };
#else
enum { TALL = 6 };
#endif

/* The numbers of a cache line. Rows that are read down a column lie this much further
 * apart than their length: at powers of two they would share a few sets of the cache. */
enum { LINE = 64 / (int)sizeof(real) };

typedef struct {
  const real *at; /* of row r and inner index k at r * row + k * inner */
  long row, inner;
} matrix;

/* Keeps a value in a register: compilers would read it from memory for each row. */
#if defined(__AVX512F__)
#define IN_REGISTER(value) __asm__("" : "+v"(value))
#elif defined(__x86_64__)
#define IN_REGISTER(value) __asm__("" : "+x"(value))
#elif defined(__aarch64__)
#define IN_REGISTER(value) __asm__("" : "+w"(value))
#else
#define IN_REGISTER(value) (void)0
#endif

/* out[r][.] = sum_k A[r][k] P[k][.] for ROWS rows of one panel; `halves` sums of k. */
#define JRNN_TILE(ROWS, HALVES)                                                        \
  static void tile_##ROWS(const real *a, const long row, const long inner,             \
                          const long size, const real *p, real *out,                   \
                          const long stride, const int add) {                          \
    vec sum[HALVES][ROWS][VECTORS];                                                    \
    for (int u = 0; u < HALVES; u++)                                                   \
      for (int r = 0; r < ROWS; r++)                                                   \
        for (int v = 0; v < VECTORS; v++) sum[u][r][v] = splat(0);                     \
    long k = 0;                                                                        \
    for (; k + HALVES <= size; k += HALVES, a += HALVES * inner, p += HALVES * WIDE)   \
      for (int u = 0; u < HALVES; u++) {                                               \
        vec b[VECTORS];                                                                \
        for (int v = 0; v < VECTORS; v++) {                                            \
          b[v] = load(p + u * WIDE + v * LANES);                                       \
          IN_REGISTER(b[v]);                                                           \
        }                                                                              \
        for (int r = 0; r < ROWS; r++) {                                               \
          const vec value = splat(a[r * row + u * inner]);                             \
          for (int v = 0; v < VECTORS; v++) sum[u][r][v] += value * b[v];              \
        }                                                                              \
      }                                                                                \
    for (; k < size; k++, a += inner, p += WIDE)                                       \
      for (int r = 0; r < ROWS; r++)                                                   \
        for (int v = 0; v < VECTORS; v++)                                              \
          sum[0][r][v] += splat(a[r * row]) * load(p + v * LANES);                     \
    for (int r = 0; r < ROWS; r++)                                                     \
      for (int v = 0; v < VECTORS; v++) {                                              \
        for (int u = 1; u < HALVES; u++) sum[0][r][v] += sum[u][r][v];                 \
        if (add) sum[0][r][v] += load(out + r * stride + v * LANES);                   \
        store(out + r * stride + v * LANES, sum[0][r][v]);                             \
      }                                                                                \
  }

JRNN_TILE(1, 4)
JRNN_TILE(2, 2)
JRNN_TILE(3, 2)
JRNN_TILE(4, 1)
JRNN_TILE(5, 1)
JRNN_TILE(6, 1)
#if defined(__AVX512F__) || defined(__aarch64__)
JRNN_TILE(7, 1)
JRNN_TILE(8, 1)
JRNN_TILE(9, 1)
JRNN_TILE(10, 1)
#endif
#if defined(__AVX512F__)
JRNN_TILE(11, 1)
JRNN_TILE(12, 1)
#endif

typedef void tile(const real *, long, long, long, const real *, real *, long, int);

static tile *const TILES[TALL + 1] = {
    0,      tile_1, tile_2, tile_3, tile_4, tile_5, tile_6,
#if defined(__AVX512F__) || defined(__aarch64__)
    tile_7, tile_8, tile_9, tile_10,
#endif
#if defined(__AVX512F__)
    tile_11, tile_12,
#endif
};

/* out = A P, or out += A P: `rows` of A, `panels` of P of `size` rows each; the results
 * of panel p and row r at out + p * panel + r * stride. */
static void product(const matrix A, const long rows, const long size, const real *P,
                    const long panels, real *out, const long panel, const long stride,
                    const int add) {
  const long tiles = (rows + TALL - 1) / TALL;
  for (long p = 0; p < panels; p++, P += size * WIDE, out += panel)
    for (long i = 0, r = 0; i < tiles; i++) {
      const long next = (i + 1) * rows / tiles; /* tiles of nearly equal heights */
      TILES[next - r](A.at + r * A.row, A.row, A.inner, size, P, out + r * stride,
                      stride, add);
      r = next;
    }
}

/* The number of vectors that `count` numbers fill, and of panels that vectors fill. */
static inline long vectors_of(const long count) { return (count + LANES - 1) / LANES; }
static inline long panels_of(const long vectors) {
  return (vectors + VECTORS - 1) / VECTORS;
}

/* Where vector q of a packed matrix lies, whose inner index runs over `size`. */
static inline real *vector_at(real *P, const long q, const long size) {
  return P + (q / VECTORS) * size * WIDE + (q % VECTORS) * LANES;
}

#endif
