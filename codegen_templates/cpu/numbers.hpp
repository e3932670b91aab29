// The functions of mathematics.hpp for single numbers.

#define OF_ONE(name) \
  static inline real name(real x) { return name(all(x))[0]; }
#define OF_TWO(name) \
  static inline real name(real x, real y) { return name(all(x), all(y))[0]; }
#define OF_THREE(name) \
  static inline real name(real x, real y, real z) { return name(all(x), all(y), all(z))[0]; }

OF_ONE(exp)
OF_ONE(expm1)
OF_ONE(log)
OF_ONE(log1p)
OF_ONE(tanh)
OF_ONE(sigmoid)
OF_ONE(logsigmoid)
OF_ONE(softplus)
OF_ONE(silu)
OF_ONE(gelu)
OF_ONE(relu)
OF_ONE(erf)
OF_ONE(sin)
OF_ONE(cos)
OF_ONE(abs)
OF_ONE(sign)
OF_ONE(square)
OF_TWO(minimum)
OF_TWO(maximum)
OF_TWO(pow)
OF_TWO(lt)
OF_TWO(le)
OF_TWO(eq)
OF_TWO(ne)
OF_THREE(clamp)
OF_THREE(where)

// one number alone takes half as long as a vector
static inline real sqrt(real x) { return sizeof(real) == 4 ? real(__builtin_sqrtf(float(x))) : real(__builtin_sqrt(x)); }
static inline real rsqrt(real x) { return real(1) / sqrt(x); }

#undef OF_ONE
#undef OF_TWO
#undef OF_THREE
