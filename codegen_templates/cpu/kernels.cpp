#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace simd {
#include "vector.hpp"
#include "mathematics.hpp"
#include "numbers.hpp"
#include "parallel.hpp"
}  // namespace simd

using simd::in_parallel;
using simd::real;
using simd::user;
using simd::vec;
