// Element-wise mathematics on vectors, after vector.hpp.
//
// In float, what kernels spend their time on are short polynomials without branches; erf, sin, cos and pow, and
// everything in double, call the C library lane by lane. NaN gives NaN unless a function says otherwise.
//
// Largest errors over all 2^32 floats, in units in the last place (ulp) of the rounded exact value, with and without
// fused multiply-add, and vector instructions with AVX-512:
//
//            exp  expm1  log  log1p  tanh  sigmoid  silu  softplus  logsigmoid
//   fused    2.9    3.2  1.2    1.8   3.5      2.5   2.5       2.4         2.4
//   without  3.3    3.4  1.3    1.9   3.6      2.5   2.8       2.6         2.6
//   count     14     16   22     26    15       16    16        27          27
//
// They hold for normal numbers, from 2^-126 on. Smaller ones count as zero, as they do in all of a kernel: smaller
// results may be zero, and the logarithm of smaller numbers is that of zero.

template <int SIZE> struct Unsigned {
  using type = uint32_t;
};
template <> struct Unsigned<8> {
  using type = uint64_t;
};
typedef Unsigned<sizeof(real)>::type bits __attribute__((vector_size(BYTES), may_alias));

constexpr bool DOUBLE = sizeof(real) == 8;
constexpr real INFINITE = real(__builtin_inf());

/// A function of single numbers on every lane.
template <class F> static inline INLINE vec each(vec x, F&& function) {
  for (int lane = 0; lane < W; lane++) x[lane] = function(x[lane]);
  return x;
}

#define EACH(function) each(x, [](real lane) { return real(__builtin_##function(lane)); })

/// first + second x + third x^2 + ...
static inline INLINE vec polynomial(vec, real last) { return all(last); }
template <class... Rest> static inline INLINE vec polynomial(vec x, real first, Rest... rest) {
  return polynomial(x, rest...) * x + first;
}

// ---------------------------------------------------------------- signs and choices: exact

static inline INLINE vec abs(vec x) { return (vec)((bits)x & ~(bits)all(-0.0)); }

/// |size| with the sign of x.
static inline INLINE vec signed_like(vec x, vec size) { return (vec)((bits)size | ((bits)x & (bits)all(-0.0))); }

/// -1, 0 or 1; 0 for NaN, as in torch.
static inline INLINE vec sign(vec x) { return x > 0 ? all(1) : x < 0 ? all(-1) : vec{}; }

static inline INLINE vec square(vec x) { return x * x; }
static inline INLINE vec relu(vec x) { return x < 0 ? vec{} : x; }

/// NaN if either is; a check of a constant y vanishes.
static inline INLINE vec minimum(vec x, vec y) { return y != y ? y : y < x ? y : x; }
static inline INLINE vec maximum(vec x, vec y) { return y != y ? y : y > x ? y : x; }
static inline INLINE vec clamp(vec x, vec low, vec high) { return minimum(maximum(x, low), high); }

// Truth is a number other than zero; comparisons with NaN are false, but `ne` is true.
static inline INLINE vec lt(vec x, vec y) { return x < y ? all(1) : vec{}; }
static inline INLINE vec le(vec x, vec y) { return x <= y ? all(1) : vec{}; }
static inline INLINE vec eq(vec x, vec y) { return x == y ? all(1) : vec{}; }
static inline INLINE vec ne(vec x, vec y) { return x != y ? all(1) : vec{}; }
static inline INLINE vec where(vec condition, vec x, vec y) { return condition != 0 ? x : y; }

// ---------------------------------------------------------------- the C library: 0.5 ulp in float, rsqrt 1.5

static inline INLINE vec erf(vec x) { return EACH(erf); }
static inline INLINE vec sin(vec x) { return EACH(sin); }
static inline INLINE vec cos(vec x) { return EACH(cos); }

static inline INLINE vec pow(vec x, vec y) {
  for (int lane = 0; lane < W; lane++) x[lane] = real(__builtin_pow(x[lane], y[lane]));
  return x;
}

static inline INLINE vec sqrt(vec x) {
  if constexpr (DOUBLE) return EACH(sqrt);
  return EACH(sqrtf);
}

static inline INLINE vec rsqrt(vec x) { return 1 / sqrt(x); }

/// x times the normal distribution function, by the complement of erf: accurate for negative x too.
static inline INLINE vec gelu(vec x) {
  return each(x, [](double lane) { return real(0.5 * lane * __builtin_erfc(-0.70710678118654752440 * lane)); });
}

// ---------------------------------------------------------------- exp

struct Reduced {
  vec rest, scale;
};

/// x = n log(2) + rest and scale = 2^n for a whole number n, which ends at 127, since 2^128 is none: above that rest
/// goes on to log(2) and beyond, else |rest| <= log(2) / 2. Arbitrary for x below -88.
static inline INLINE Reduced reduce(vec x) {
  constexpr real magic = 12583039;  // 1.5 * 2^23 + 127: a sum with it is rounded, and ends in the bits of n + 127
  const whole sum = (whole)(x * real(1.44269504) + magic), last = (whole)all(magic + 127);
  const vec rounded = (vec)(sum > last ? last : sum);
  const vec n = rounded - magic;
  // log(2) in two parts, the first short enough for an exact product with n (fdlibm)
  return {x - n * real(0.693138123) - n * real(9.05800061e-6), (vec)((bits)rounded << 23)};
}

/// (e^x - 1) / x, minimax for -log(2) / 2 <= x <= log(2), relative to e^x - 1 below log(2) / 2.
static inline INLINE vec growth(vec x) {
  return polynomial(x, 1, 0.5000012, 0.16666663, 0.041633833, 0.0083503835, 0.001575732);
}

/// Zero below log(2^-126), infinite from log(2^128) = 88.7228 on. The error is 1.5 ulp up to 88.37.
static inline INLINE vec exp(vec x) {
  if constexpr (DOUBLE) return EACH(exp);
  const Reduced part = reduce(x);
  return x < real(-87.3365448) ? vec{} : (growth(part.rest) * part.rest + 1) * part.scale;
}

/// scale * (e^rest - 1) - (1 - scale): written so, it keeps the sign of zero.
static inline INLINE vec expm1(vec x) {
  if constexpr (DOUBLE) return EACH(expm1);
  const Reduced part = reduce(x);
  const vec y = growth(part.rest) * part.rest * part.scale - (1 - part.scale);
  return x < -20 ? all(-1) : y;
}

// ---------------------------------------------------------------- log

/// The logarithm of x = 2^n (1 + rest) for sqrt(1/2) <= 1 + rest < sqrt(2): n log(2) + rest + rest^2 times a minimax
/// polynomial. With -n in place of n the sign of zero is kept.
static inline INLINE vec logarithm(vec x, vec rest, vec minus_n) {
  const vec p = polynomial(rest, -0.49999994, 0.33333957, -0.25001782, 0.19961876, -0.165685, 0.14916311, -0.14323762,
                           0.08764842);
  const vec y = (rest * rest * p + rest) - minus_n * real(0.693147181);
  const vec pole = x < 0 ? all(real(__builtin_nan(""))) : all(-INFINITE);
  return x < real(1.17549435e-38) ? pole : x < INFINITE ? y : x;
}

/// -n of x = 2^n (1 + rest), in the place of the exponent, that is above the lower 23 bits.
static inline INLINE bits minus_exponent(vec x) {
  constexpr uint32_t root = 0x3f3504f3;  // sqrt(1/2)
  return root + 0x7fffff - (bits)x;
}

static inline INLINE vec log(vec x) {
  if constexpr (DOUBLE) return EACH(log);
  const bits shift = minus_exponent(x);
  const vec rest = (vec)((bits)x + (shift & 0xff800000)) - 1;
  return logarithm(x, rest, __builtin_convertvector((whole)shift >> 23, vec));
}

/// 1 + x = 2^n (1 + rest), where rest = 2^-n x - (1 - 2^-n) is not made from the rounded 1 + x.
static inline INLINE vec log1p(vec x) {
  if constexpr (DOUBLE) return EACH(log1p);
  const bits shift = minus_exponent(1 + x), exponent = shift & 0xff800000;
  const whole scale = (whole)((bits)all(1) + exponent);
  const vec existing = (vec)(scale > 0 ? scale : whole{});  // 2^-128 does not exist
  const vec rest = (vec)((bits)x + exponent) - (1 - existing);
  return logarithm(1 + x, rest, __builtin_convertvector((whole)shift >> 23, vec));
}

/// log(1 + y) for 0 <= y <= 1: y + y^2 times a minimax polynomial.
static inline INLINE vec log1p_of_fraction(vec x) {
  if constexpr (DOUBLE) return EACH(log1p);
  const vec p = polynomial(x, -0.4999965, 0.33321333, -0.24857219, 0.19153848, -0.13754188, 0.07920883, -0.030068288,
                           0.0053654267);
  return x * x * p + x;
}

// ---------------------------------------------------------------- made of exp and log1p

/// Between 0 and 1, also after rounding.
static inline INLINE vec sigmoid(vec x) { return 1 / (1 + exp(-x)); }

/// Zero below -88.7228, where exp(-x) is infinite; NaN at minus infinity, as in torch.
static inline INLINE vec silu(vec x) { return x / (1 + exp(-x)); }

static inline INLINE vec softplus(vec x) { return relu(x) + log1p_of_fraction(exp(-abs(x))); }
static inline INLINE vec logsigmoid(vec x) { return (x < 0 ? x : vec{}) - log1p_of_fraction(exp(-abs(x))); }

// ---------------------------------------------------------------- tanh

/// 2 u / (1 + u^2) for a minimax u = p / q of tanh(x / 2): the errors of u vanish as u nears 1. The common factor of p
/// and q puts them and their squares below powers of two, where rounding costs least. Between -1 and 1, also after
/// rounding; 1 from x^2 = 75 on, where 1 - tanh(x) is 2^-24.
static inline INLINE vec tanh(vec x) {
  if constexpr (DOUBLE) return EACH(tanh);
  const vec y = x * x;
  const vec p = polynomial(y, 1.85, 0.055073246, 0.0002112067) * x;
  const vec q = polynomial(y, 3.7, 0.41847965, 0.0044625406, 4.541276e-06);
  return y > 75 ? signed_like(x, all(1)) : (p + p) * q / (p * p + q * q);
}

#undef EACH
