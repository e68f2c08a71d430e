/* Elementary functions of vectors, without branches.
 *
 * The largest error is at most 2 units in the last place wherever the result is a
 * normal number; infinities, NaN and zeros, with their signs, are as in C. Subnormal
 * numbers may be taken for zeros. tests/methods/test_cpu_functions.py measures all
 * that; tests/methods/minimax.py derives the polynomials and states their errors.
 *
 * Reductions of arguments: J.-M. Muller, Elementary Functions (3rd edition, 2016),
 * chapter 11, https://doi.org/10.1007/978-1-4899-7983-4.
 */
#ifndef JRNN_FUNCTIONS_H
#define JRNN_FUNCTIONS_H

#include "constants.h"

#define POLYNOMIAL(table, x) polynomial(table, sizeof table / sizeof *table, x)

/* table[0] + table[1] x + ... + table[count - 1] x^(count - 1), for count > 1: the even
 * and the odd powers apart, as each product would have to wait for the one before.
 */
JRNN_INLINE vec polynomial(const real *table, int count, vec x) {
  const vec square = x * x;
  int i = (count - 1) & ~1, j = (count - 2) | 1;
  vec even = splat(table[i]), odd = splat(table[j]);
  while ((i -= 2) >= 0)
    even = fma_vec(even, square, splat(table[i]));
  while ((j -= 2) > 0)
    odd = fma_vec(odd, square, splat(table[j]));
  return fma_vec(odd, x, even);
}

/* times x = k ln 2 + times r with an integer k and |times r| <= ln(2) / 2, where times is
 * a power of 2; r is high + low, rounded.
 */
typedef struct {
  vec shifted; /* k + ROUNDER + bias, whose low bits are k + bias */
  vec high, low, r;
} reduced;

JRNN_INLINE reduced reduce(vec x, real times, real bias) {
  vec shifted = fma_vec(x, splat(times * LOG2_E), splat(ROUNDER + bias));
  vec k = shifted - splat(ROUNDER + bias);
  vec high = fma_vec(k, splat(-LN2_HIGH / times), x), low = k * (-LN2_LOW / times);
  return (reduced){shifted, high, low, high + low};
}

/* 2^k for k = -127 .. 128, or -1023 .. 1024: 0 for the first, infinite for the last. */
JRNN_INLINE vec power_of_two(vec shifted) { return (vec)((nvec)shifted << MANTISSA); }

/* e^r - 1 - r = r^2 (1/2 + r P(r)) */
JRNN_INLINE vec expm1_rest(vec r) {
  return r * r * fma_vec(POLYNOMIAL(EXP_TABLE, r), r, splat((real)0.5));
}

JRNN_INLINE vec expm1_reduced(vec r) { return expm1_rest(r) + r; }

/* e^x = 2^k (1 + (e^r - 1)), where 2^k is the product of two normal powers. */
JRNN_INLINE vec v_exp(vec x) {
  x = v_select(x < EXP_LEAST, splat(EXP_LEAST), x);
  x = v_select(x > EXP_MOST, splat(EXP_MOST), x);
  reduced a = reduce(x, 1, BIAS);
  nvec both = (nvec)a.shifted - (nvec)splat(ROUNDER + BIAS) + 2 * BIAS;
  nvec one = both >> 1, other = both - one;
  vec scale = (vec)(one << MANTISSA), rest = (vec)(other << MANTISSA);
  return (1 + expm1_reduced(a.r)) * scale * rest;
}

/* 2^x = 2^k e^(f ln 2) with x = k + f */
JRNN_INLINE vec v_exp2(vec x) {
  x = v_select(x < EXP2_LEAST, splat(EXP2_LEAST), x);
  x = v_select(x > EXP2_MOST, splat(EXP2_MOST), x);
  vec shifted = x + splat(ROUNDER);
  vec f = x - (shifted - splat(ROUNDER));
  vec r = fma_vec(f, splat(LN2_HIGH), f * splat(LN2_LOW));
  nvec both = (nvec)shifted - (nvec)splat(ROUNDER) + 2 * BIAS;
  nvec one = both >> 1, other = both - one;
  vec scale = (vec)(one << MANTISSA), rest = (vec)(other << MANTISSA);
  return (1 + expm1_reduced(r)) * scale * rest;
}

/* e^x - 1 = 2 (s (e^r - 1) + (s - 1/2)) with s = 2^(k - 1), which is finite; x itself
 * where it is tiny, as half of the smallest normal numbers may be flushed to 0.
 */
JRNN_INLINE vec v_expm1(vec x) {
  vec y = v_select(x < EXPM1_LEAST, splat(EXPM1_LEAST), x);
  y = v_select(y > EXP_MOST, splat(EXP_MOST), y);
  reduced a = reduce(y, 1, BIAS);
  vec s = (vec)((nvec)power_of_two(a.shifted) - nsplat(ONE_STEP));
  vec half = fma_vec(s, expm1_reduced(a.r), s - splat((real)0.5));
  return v_select(v_abs(x) < (real)0x1p-60, x, half + half);
}

/* tanh x = E / (E + 2) with E = e^(2x) - 1 = 2s (e^(2r) - 1) / 2 + (s - 1), s = 2^k
 *
 * Of a small x the sign is made negative, as E + 2 is rounded less if it is below 2.
 */
JRNN_INLINE vec v_tanh(vec x) {
  vec y = v_abs(x);
  y = v_select(y > TANH_MOST, splat(TANH_MOST), y);
  y = with_sign(y, y - TANH_SMALL);
  reduced a = reduce(y, 2, BIAS + 1);
  vec s2 = power_of_two(a.shifted), less = fma_vec(s2, splat((real)0.5), splat(-1));
  vec rest = a.r * a.r * fma_vec(POLYNOMIAL(TANH_TABLE, a.r), a.r, splat(1));
  vec E = fma_vec(s2, rest + a.low, fma_vec(s2, a.high, less));
  return with_sign(v_abs(E / (E + 2)), x);
}

/* 1 / (1 + e^-x), 1 + e^-x = s (e^r - 1) + (s + 1) with s = 2^k
 *
 * `lost` is the rounding error of s + 1, by the theorem that log1p uses.
 */
JRNN_INLINE vec v_logistic(vec x) {
  vec y = v_select(x > LOGISTIC_MOST, splat(LOGISTIC_MOST), x);
  reduced a = reduce(-y, 1, BIAS);
  vec s = power_of_two(a.shifted), sum = s + 1, lost = 1 - (sum - s);
  vec result = 1 / (fma_vec(s, expm1_reduced(a.r), lost) + sum);
  return (vec)((ivec)result & ~(x < LOGISTIC_LEAST)); /* 0 there, also for 2^k > max */
}

/* x = 2^k m for a normal number, with m from sqrt(1/2) to sqrt(2) */
typedef struct {
  nvec field; /* k + BIAS */
  vec m;
} parts;

JRNN_INLINE parts parts_of(vec x) {
  nvec moved = (nvec)x + nsplat(ONE_BITS - SQRT_HALF);
  nvec m = (moved & nsplat(ONE_STEP - 1)) + nsplat(SQRT_HALF);
  return (parts){moved >> MANTISSA, (vec)m};
}

/* k ln 2 + log(1 + f), and with s = f / (2 + f)
 * log(1 + f) = 2 s + s^3 P(s^2) = f - (f^2 / 2 - s (f^2 / 2 + s^2 P(s^2)))
 */
JRNN_INLINE vec log_of(nvec field, vec f) {
  const real from = (real)ONE_STEP; /* adds integers to its last bits */
  vec k = (vec)(field | (nvec)splat(from)) - splat(from + BIAS);
  vec s = f / (2 + f), z = s * s, half = (real)0.5 * f * f;
  vec rest = fma_vec(s, fma_vec(z, POLYNOMIAL(LOG_TABLE, z), half), k * LN2_LOW);
  return fma_vec(k, splat(LN2_HIGH), f - (half - rest));
}

/* NaN below 0, -inf at 0, inf at inf, NaN at NaN; u is x, or 1 + x. */
JRNN_INLINE vec log_ends(vec u, vec result) {
  vec low = v_select(u < 0, splat((real)__builtin_nan("")), splat(-INFINITE));
  return v_select(u < SMALLEST, low, v_select(u < INFINITE, result, u));
}

JRNN_INLINE vec v_log(vec x) {
  parts a = parts_of(x);
  return log_ends(x, log_of(a.field, a.m - 1));
}

/* log(1 + x), from u = 1 + x and the rounding error of that sum (D. Knuth, The Art of
 * Computer Programming 2, section 4.2.2, theorem B); huge numbers need no error.
 */
JRNN_INLINE vec v_log1p(vec x) {
  vec u = 1 + x, of_x = u - 1;
  vec error = (1 - (u - of_x)) + (x - of_x);
  parts a = parts_of(u);
  vec inverse = (vec)((2 * BIAS - a.field) << MANTISSA); /* 2^-k */
  inverse = v_select(u < (real)0x1p100, inverse, splat(0));
  vec f = fma_vec(error, inverse, a.m - 1);
  return with_sign(log_ends(u, log_of(a.field, f)), x);
}

/* erf x = x + x S(x^2) up to 3/4, then 1 - e^(-x^2) Q(t) with t = (x - 3) / (x + 3) */
JRNN_INLINE vec v_erf(vec x) {
  vec y = v_abs(x);
  y = v_select(y > ERF_MOST, splat(ERF_MOST), y);
  vec t = (y - 3) / (y + 3);
  vec small = fma_vec(y, POLYNOMIAL(ERF_TABLE, y * y), y);
  vec large = 1 - v_exp(-y * y) * POLYNOMIAL(ERFCX_TABLE, t);
  return with_sign(v_select(y < (real)0.75, small, large), x);
}

/* Sine and cosine of the C library, one number after the other: rare in gates. */
JRNN_INLINE vec v_sin(vec x) {
  for (int i = 0; i < LANES; i++)
#if JRNN_IS_DOUBLE
    x[i] = __builtin_sin(x[i]);
#else
    x[i] = __builtin_sinf(x[i]);
#endif
  return x;
}

JRNN_INLINE vec v_cos(vec x) {
  for (int i = 0; i < LANES; i++)
#if JRNN_IS_DOUBLE
    x[i] = __builtin_cos(x[i]);
#else
    x[i] = __builtin_cosf(x[i]);
#endif
  return x;
}

#endif
