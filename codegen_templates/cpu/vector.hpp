// Vectors of numbers, and how kernels read, write and sum them. `real` is the type that is computed with,
// `user` the type of the caller's tensors; REAL and USER are set when a kernel is compiled.

#define INLINE __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif

struct bfloat16 {
  uint16_t bits;
};

struct float16 {
  uint16_t bits;
};

using real = REAL;
using user = USER;

constexpr int W = BYTES / sizeof(real);
typedef real vec __attribute__((vector_size(BYTES), may_alias));

template <int SIZE> struct Integer {
  using type = int32_t;
};
template <> struct Integer<8> {
  using type = int64_t;
};
typedef Integer<sizeof(real)>::type integer;
typedef integer whole __attribute__((vector_size(BYTES), may_alias));

/// The length of a row in memory: a whole number of vectors.
constexpr int pad(int size) { return (size + W - 1) / W * W; }

/// Registers for sums: the others hold operands.
constexpr int REGISTERS = BYTES == 64 ? 24 : 12;

/// How many rows of a matrix product to sum at once, for a number of products that are formed together.
constexpr int rows(int sums) { return sums * 8 <= REGISTERS ? 8 : sums * 4 <= REGISTERS ? 4 : 2; }

/// How many vectors of each row to sum at once.
constexpr int columns(int sums, int rows) {
  const int fitting = REGISTERS / (sums * rows);
  return fitting >= 4 ? 4 : fitting >= 2 ? 2 : 1;
}

static inline INLINE vec all(real x) { return x - vec{}; }

// ---------------------------------------------------------------- the caller's element types

static inline INLINE real widen(float x) { return real(x); }
static inline INLINE real widen(double x) { return real(x); }
static inline INLINE real widen(bfloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float result;
  __builtin_memcpy(&result, &bits, sizeof result);
  return real(result);
}
static inline INLINE real widen(float16 x) {
  const uint32_t size = x.bits & 0x7fff;
  const float small = float(int32_t(size)) * 0x1p-24f;  // below the normal ones
  uint32_t bits = (size << 13) + (size >= 0x7c00 ? 0x70000000 : 0x38000000);
  float large;
  __builtin_memcpy(&large, &bits, sizeof large);
  const float found = size < 0x400 ? small : large;
  return real(x.bits & 0x8000 ? -found : found);
}

static inline INLINE void narrow(float& to, real x) { to = float(x); }
static inline INLINE void narrow(double& to, real x) { to = double(x); }
static inline INLINE void narrow(bfloat16& to, real x) {
  const float number = float(x);
  uint32_t bits;
  __builtin_memcpy(&bits, &number, sizeof bits);
  // to nearest, ties to even; NaN stays NaN
  to.bits = number != number ? uint16_t(0x7fc0) : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
static inline INLINE void narrow(float16& to, real x) {
  const float number = float(x);
  uint32_t bits, small;
  __builtin_memcpy(&bits, &number, sizeof bits);
  const uint32_t size = bits & 0x7fffffff, normal = size - 0x38000000;
  const float shifted = __builtin_fabsf(number) + 0.5f;  // whose last digit is float16's below the normal ones
  __builtin_memcpy(&small, &shifted, sizeof small);
  const uint32_t found = size > 0x7f800000   ? 0x7e00
                         : size >= 0x477ff000 ? 0x7c00
                         : size < 0x38800000  ? small - 0x3f000000
                                              : (normal + 0xfff + ((normal >> 13) & 1)) >> 13;
  to.bits = uint16_t(found | (bits >> 16 & 0x8000));  // to nearest, ties to even; NaN stays NaN
}

// ---------------------------------------------------------------- the kernel's own memory: padded rows

static inline INLINE vec get(const real* p) { return *reinterpret_cast<const vec*>(p); }
static inline INLINE void put(real* p, vec x) { *reinterpret_cast<vec*>(p) = x; }
static inline INLINE void zero(real* p, int64_t size) { __builtin_memset(p, 0, size * sizeof(real)); }

// ---------------------------------------------------------------- the caller's memory: exact rows

template <int N> static inline INLINE vec take(const real* p) {
  vec x = {};
  __builtin_memcpy(&x, p, N * sizeof(real));
  return x;
}

template <int N, class T> static inline INLINE vec take(const T* p) {
  vec x = {};
  UNROLL for (int lane = 0; lane < N; lane++) x[lane] = widen(p[lane]);
  return x;
}

template <int N> static inline INLINE void give(real* p, vec x) { __builtin_memcpy(p, &x, N * sizeof(real)); }

template <int N, class T> static inline INLINE void give(T* p, vec x) {
  UNROLL for (int lane = 0; lane < N; lane++) narrow(p[lane], x[lane]);
}

/// The vector at entry i of a row of SIZE entries; lanes past its end are zero.
template <int SIZE, class T> static inline INLINE vec load(const T* p, int i) {
  if constexpr (SIZE % W != 0)
    if (i + W > SIZE) return take<SIZE % W>(p + i);
  return take<W>(p + i);
}

template <int SIZE, class T> static inline INLINE void store(T* p, int i, vec x) {
  if constexpr (SIZE % W != 0)
    if (i + W > SIZE) return give<SIZE % W>(p + i, x);
  give<W>(p + i, x);
}

/// Write a whole vector past the caches, to an address that is a multiple of its size.
static inline INLINE void give_past(real* p, vec x) {
#if defined(__AVX512F__) || defined(__AVX__)
  constexpr bool wide = BYTES == 64, single = sizeof(real) == 4;
#if defined(__AVX512F__)
  if constexpr (wide && single) __builtin_ia32_movntps512(reinterpret_cast<float*>(p), (__attribute__((vector_size(64))) float)x);
  if constexpr (wide && !single) __builtin_ia32_movntpd512(reinterpret_cast<double*>(p), (__attribute__((vector_size(64))) double)x);
#else
  if constexpr (single) __builtin_ia32_movntps256(reinterpret_cast<float*>(p), (__attribute__((vector_size(32))) float)x);
  if constexpr (!single) __builtin_ia32_movntpd256(reinterpret_cast<double*>(p), (__attribute__((vector_size(32))) double)x);
#endif
#else
  give<W>(p, x);
#endif
}

/// `store`, past the caches if `past`: for results larger than the caches, whose lines would be read to be written.
template <int SIZE, class T> static inline INLINE void store(T* p, int i, vec x, bool past) {
  if constexpr (SIZE % W == 0 && sizeof(T) == sizeof(real))
    if (past) return give_past(p + i, x);
  store<SIZE>(p, i, x);
}

/// The same for entries that lie `stride` apart.
template <int SIZE, class T> static inline INLINE vec gather(const T* p, int64_t stride, int i) {
  vec x = {};
  for (int lane = 0; lane < W && i + lane < SIZE; lane++) x[lane] = widen(p[(i + lane) * stride]);
  return x;
}

template <int SIZE, class T> static inline INLINE void scatter(T* p, int64_t stride, int i, vec x) {
  for (int lane = 0; lane < W && i + lane < SIZE; lane++) narrow(p[(i + lane) * stride], x[lane]);
}

/// Lanes past the end of a row of SIZE entries replaced.
template <int SIZE> static inline INLINE vec inside(vec x, int i, real outside) {
  if constexpr (SIZE % W != 0)
    if (i + W > SIZE) UNROLL for (int lane = SIZE % W; lane < W; lane++) x[lane] = outside;
  return x;
}

// ---------------------------------------------------------------- sums across lanes

template <int HALF> static inline INLINE vec swapped(vec x) {
  whole order;
  UNROLL for (int lane = 0; lane < W; lane++) order[lane] = lane ^ HALF;
#if defined(__clang__)
  vec y;
  UNROLL for (int lane = 0; lane < W; lane++) y[lane] = x[order[lane]];
  return y;
#else
  return __builtin_shuffle(x, order);
#endif
}

template <int HALF = W / 2> static inline INLINE real total(vec x) {
  x += swapped<HALF>(x);
  if constexpr (HALF > 1) return total<HALF / 2>(x);
  return x[0];
}

static inline INLINE real greatest(vec x) {
  real found = x[0];
  UNROLL for (int lane = 1; lane < W; lane++) found = found != found || found > x[lane] ? found : x[lane];
  return found;
}

/// Two vectors become one whose lanes alternate, HALF at a time, between sums of either.
template <int HALF> static inline INLINE vec merged(vec a, vec b) {
  vec x, y;
#if defined(__clang__)
  UNROLL for (int lane = 0; lane < W; lane++) {
    x[lane] = lane & HALF ? b[lane] : a[lane];
    y[lane] = lane & HALF ? b[lane ^ HALF] : a[lane ^ HALF];
  }
#else
  whole straight, crossed;
  UNROLL for (int lane = 0; lane < W; lane++) {
    straight[lane] = lane & HALF ? W + lane : lane;
    crossed[lane] = lane & HALF ? W + (lane ^ HALF) : lane ^ HALF;
  }
  x = __builtin_shuffle(a, b, straight);
  y = __builtin_shuffle(a, b, crossed);
#endif
  return x + y;
}

template <int HALF> static inline INLINE void merge(vec* rows) {
  UNROLL for (int i = 0; i < HALF; i++) rows[i] = merged<HALF>(rows[i], rows[i + HALF]);
  if constexpr (HALF > 1) merge<HALF / 2>(rows);
}

/// out[i] = the sum over the lanes of vector i of SIZE vectors; out is a padded row.
template <int SIZE> static inline INLINE void fold(const real* partial, real* out) {
  for (int i = 0; i < pad(SIZE); i += W) {
    vec rows[W];
    UNROLL for (int j = 0; j < W; j++) rows[j] = i + j < SIZE ? get(partial + (i + j) * W) : vec{};
    merge<W / 2>(rows);
    put(out + i, rows[0]);
  }
}

// ---------------------------------------------------------------- loops in blocks

template <int N> struct Count {
  static constexpr int value = N;
};

/// f(Count<n>, i) for blocks of STEP out of SIZE and for what is left over.
template <int STEP, int SIZE, class F> static inline INLINE void blocks(F&& f) {
  int i = 0;
  for (; i + STEP <= SIZE; i += STEP) f(Count<STEP>{}, i);
  if constexpr (SIZE % STEP != 0) f(Count<SIZE % STEP>{}, i);
}

/// The same for a size that is known when the kernel runs.
template <int STEP, class F> static inline INLINE void blocks(int size, F&& f, int i = 0) {
  for (; i + STEP <= size; i += STEP) f(Count<STEP>{}, i);
  if constexpr (STEP > 1) blocks<STEP / 2>(size, f, i);
}

/// f(Count<n>, i) for blocks of STEP vectors of a row of SIZE entries; i counts entries.
template <int STEP, int SIZE, class F> static inline INLINE void vectors(F&& f) {
  blocks<STEP, (SIZE + W - 1) / W>([&](auto n, int i) INLINE { f(n, i * W); });
}

// ---------------------------------------------------------------- entries moved along a row

/// Lanes i, i + 1, ... of a row of SIZE entries; zero where i lies outside.
template <int SIZE, class T> static inline INLINE vec shifted(const T* p, int64_t stride, int i) {
  vec x = {};
  for (int lane = 0; lane < W; lane++)
    if (i + lane >= 0 && i + lane < SIZE) x[lane] = widen(p[(i + lane) * stride]);
  return x;
}

/// One lane of a vector, if there is such a lane; the others are zero.
static inline INLINE vec placed(vec x, int lane) {
  vec y = {};
  if (lane >= 0 && lane < W) y[lane] = x[lane];
  return y;
}
