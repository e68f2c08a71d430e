/* Vectors of real numbers, by the vector extension of gcc and clang.
 *
 * The includer defines JRNN_REAL, float or double. A vec is as wide as the registers of
 * the machine that is compiled for; ivec is a vector of integers of the same size, and
 * a mask is an ivec whose elements are 0 or -1, as comparisons return it.
 *
 * Flags: -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math, and never
 * -ffast-math, which removes the rounding, the infinities and the NaNs on which the
 * functions rely. Contraction into fused multiply-adds speeds them up, and none relies
 * on it or is broken by it: where the rounding error of a sum is computed (v_log1p),
 * no product is among the terms.
 *
 * https://gcc.gnu.org/onlinedocs/gcc/Vector-Extensions.html
 */
#ifndef JRNN_VECTORS_H
#define JRNN_VECTORS_H

#include <stdint.h>
#include <string.h>

#define JRNN_INLINE static inline __attribute__((always_inline, unused))

#define JRNN_BYTES_float 4
#define JRNN_BYTES_double 8
#define JRNN_PASTE(a, b) a##b
#define JRNN_BYTES_OF(type) JRNN_PASTE(JRNN_BYTES_, type)
#define JRNN_IS_DOUBLE (JRNN_BYTES_OF(JRNN_REAL) == 8)

#if defined(__AVX512F__)
#define JRNN_BYTES 64
#elif defined(__AVX__)
#define JRNN_BYTES 32
#else
#define JRNN_BYTES 16
#endif

typedef JRNN_REAL real;
#if JRNN_IS_DOUBLE
typedef int64_t integer;
typedef uint64_t natural;
#else
typedef int32_t integer;
typedef uint32_t natural;
#endif

typedef real vec __attribute__((vector_size(JRNN_BYTES)));
typedef integer ivec __attribute__((vector_size(JRNN_BYTES)));
typedef natural nvec __attribute__((vector_size(JRNN_BYTES)));

enum { LANES = JRNN_BYTES / sizeof(real) };

JRNN_INLINE vec load(const real *from) {
  vec a;
  memcpy(&a, from, sizeof a);
  return a;
}

JRNN_INLINE void store(real *to, vec a) { memcpy(to, &a, sizeof a); }

/* The first `count` numbers, 0 .. LANES, and zeros beyond. */
JRNN_INLINE vec load_some(const real *from, int count) {
  vec a = {0};
  memcpy(&a, from, (unsigned)count * sizeof(real));
  return a;
}

JRNN_INLINE void store_some(real *to, vec a, int count) {
  memcpy(to, &a, (unsigned)count * sizeof(real));
}

JRNN_INLINE vec splat(real a) { return a - (vec){0}; } /* a - 0 is a, also for -0 */

JRNN_INLINE ivec isplat(integer a) { return a - (ivec){0}; }

JRNN_INLINE nvec nsplat(natural a) { return a - (nvec){0}; }

/* a b + c; one instruction where the machine has it, else rounded twice. */
JRNN_INLINE vec fma_vec(vec a, vec b, vec c) { return a * b + c; }

/* yes where the mask is -1, no where it is 0; not named select, which POSIX has. */
JRNN_INLINE vec v_select(ivec mask, vec yes, vec no) {
  return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

#define SIGN_BIT isplat((integer)((natural)1 << (8 * sizeof(real) - 1)))

JRNN_INLINE vec v_abs(vec a) { return (vec)((ivec)a & ~SIGN_BIT); }

/* a, with the sign bit of b added; a is not negative, or has the sign of b. */
JRNN_INLINE vec with_sign(vec a, vec b) {
  return (vec)((ivec)a | ((ivec)b & SIGN_BIT));
}

/* The larger and the smaller of two numbers; NaN if one of them is NaN. */
JRNN_INLINE vec v_max(vec a, vec b) { return v_select((a > b) | (a != a), a, b); }

JRNN_INLINE vec v_min(vec a, vec b) { return v_select((a < b) | (a != a), a, b); }

/* 1, -1, or a itself if a is 0 or NaN. */
JRNN_INLINE vec v_sign(vec a) {
  return v_select(a > 0, splat(1), v_select(a < 0, splat(-1), a));
}

JRNN_INLINE vec v_sqrt(vec a) {
  for (int i = 0; i < LANES; i++)
#if JRNN_IS_DOUBLE
    a[i] = __builtin_sqrt(a[i]);
#else
    a[i] = __builtin_sqrtf(a[i]);
#endif
  return a;
}

JRNN_INLINE ivec v_is_finite(vec a) { return v_abs(a) < (real)__builtin_inf(); }

#include "functions.h"

#endif
