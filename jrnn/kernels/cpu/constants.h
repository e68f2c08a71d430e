/* Constants and polynomials of functions.h, for both types.
 *
 * The error of each polynomial is in units of u, 2^-24 for float and 2^-53 for double,
 * of the function that it is for; `python -m tests.methods.minimax` prints them.
 */
#ifndef JRNN_CONSTANTS_H
#define JRNN_CONSTANTS_H

#define TANH_SMALL ((real)0.1732) /* below ln(2) / 4, where k is 0 */
#define ONE_STEP ((natural)1 << MANTISSA) /* one more in the field of exponents */
#define LOG2_E ((real)1.4426950408889634)
#define INFINITE ((real)__builtin_inf())

#if JRNN_IS_DOUBLE

#define MANTISSA 52
#define BIAS 1023
#define ROUNDER 0x1.8p52 /* a + ROUNDER - ROUNDER is a, rounded to an integer */
#define LN2_HIGH 0x1.62e42feep-1 /* ln 2 to 32 bits: its product with k is exact */
#define LN2_LOW 0x1.a39ef35793c76p-33
#define ONE_BITS 0x3ff0000000000000
#define SQRT_HALF 0x3fe6a09e667f3bcd /* the bits of sqrt(1/2) */
#define SMALLEST 0x1p-1022
#define EXP_LEAST -746.0 /* e^x is 0 */
#define EXP_MOST 709.9 /* e^x is infinite, k at most 1024 and then r > 0 */
#define EXP2_LEAST -1080.0
#define EXP2_MOST 1024.0
#define EXPM1_LEAST -40.0 /* e^x - 1 is -1 */
#define TANH_MOST 20.0 /* tanh x is 1 */
#define LOGISTIC_LEAST -709.0 /* 1 / (1 + e^-x) is subnormal, 2^k finite */
#define LOGISTIC_MOST 40.0 /* 1 / (1 + e^-x) is 1 */
#define ERF_MOST 6.0 /* erf x is 1 */

static const real EXP_TABLE[] = { /* 0.0025 u */
  0.16666666666666677, 0.041666666666666574, 0.0083333333333220783,
  0.0013888888888943041, 0.00019841269885181902, 2.4801587197673506e-05,
  2.7557245024331581e-06, 2.7557387288650044e-07, 2.5108789625484315e-08,
  2.0878913874929058e-09,
};
static const real TANH_TABLE[] = { /* 0.0025 u */
  0.66666666666666707, 0.33333333333333259, 0.13333333333315325, 0.044444444444617731,
  0.012698412726516417, 0.0031746031613022088, 0.00070546547262288848,
  0.00014109382291788822, 2.5711400576495939e-05, 4.2760015615854711e-06,
};
static const real LOG_TABLE[] = { /* 0.011 u */
  0.66666666666667351, 0.39999999999409208, 0.28571428743764593,
  0.22222198416424721, 0.18183573232199784, 0.15313804226343564,
  0.14798590930900271,
};
static const real ERF_TABLE[] = { /* 0.007 u */
  0.12837916709551259, -0.37612638903183715, 0.1128379167095248,
  -0.026866170644402377, 0.0052239776151212555, -0.00085483261690295453,
  0.00012055288774944709, -1.4924176584728358e-05, 1.6430387480692195e-06,
  -1.5937594282815392e-07, 1.1463738692955626e-08,
};
static const real ERFCX_TABLE[] = { /* 0.046 u */
  0.1790011511813511, -0.32623356004502735, 0.24560380169526405,
  -0.15011593606239465, 0.071665848552195086, -0.024392379058758136,
  0.0042698898772210066, 0.00071083314633987166, -0.00058849866155075484,
  6.1356404922629051e-05, 8.3849892305097706e-05, 1.3517325920180627e-06,
  -4.3833632253520957e-06,
};

#else

#define MANTISSA 23
#define BIAS 127
#define ROUNDER 0x1.8p23f
#define LN2_HIGH 0x1.62e4p-1f /* to 16 bits */
#define LN2_LOW 0x1.7f7d1cp-20f
#define ONE_BITS 0x3f800000
#define SQRT_HALF 0x3f3504f3
#define SMALLEST 0x1p-126f
#define EXP_LEAST -104.0f
#define EXP_MOST 88.8f
#define EXP2_LEAST -151.0f
#define EXP2_MOST 128.0f
#define EXPM1_LEAST -18.0f
#define TANH_MOST 9.1f
#define LOGISTIC_LEAST -88.0f
#define LOGISTIC_MOST 20.0f
#define ERF_MOST 4.0f

static const real EXP_TABLE[] = { /* 0.24 u */
  0.166665483f, 0.0416668549f, 0.00836609928f, 0.00138982372f,
};
static const real TANH_TABLE[] = { /* 0.24 u */
  0.666661932f, 0.333334839f, 0.133857588f, 0.0444743589f,
};
static const real LOG_TABLE[] = { /* 0.014 u */
  0.666667768f, 0.399774821f, 0.298736262f,
};
static const real ERF_TABLE[] = { /* 0.024 u */
  0.128379165f, -0.376126188f, 0.112833766f, -0.0268346237f, 0.00511434399f,
  -0.000674950268f,
};
static const real ERFCX_TABLE[] = { /* 0.0033 u */
  0.178999872f, -0.326264681f, 0.245309015f, -0.151554483f, 0.0677281441f,
  -0.0303956451f, -0.000196675605f,
};

#endif

#endif
