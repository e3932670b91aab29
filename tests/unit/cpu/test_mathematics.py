"""Vector mathematics of native kernels: errors over the whole range, special values, undefined behaviour."""

from __future__ import annotations

import ctypes
import itertools
import math
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from recurra.runtime.errors import NoCompiler
from recurra.runtime.store.toolchain import Toolchain, toolchain

TEMPLATES = Path(__file__).parents[3] / "codegen_templates" / "cpu"
INF, NAN = math.inf, math.nan
SMALLEST = 2.0**-126  # of the normal numbers
LOG2 = math.log(2)


def softplus(x: Tensor) -> Tensor:
    return x.relu() + (-x.abs()).exp().log1p()


UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "logsigmoid": lambda x: -softplus(-x),
    "softplus": softplus,
    "silu": lambda x: x / (1 + (-x).exp()),
    "gelu": lambda x: 0.5 * x * torch.special.erfc(-(0.5**0.5) * x),
    "relu": torch.relu,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "abs": torch.abs,
    "sign": torch.sign,
    "square": torch.square,
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "pow": torch.pow,
    "lt": torch.lt,
    "le": torch.le,
    "eq": torch.eq,
    "ne": torch.ne,
}
TERNARY: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "clamp": lambda x, low, high: torch.minimum(torch.maximum(x, low), high),
    "where": lambda x, y, z: torch.where(x != 0, y, z),
}
LIMITS = {name: 4.0 for name in "exp expm1 log log1p tanh sigmoid logsigmoid softplus silu".split()}
LIMITS |= {name: 0.51 for name in "gelu erf sin cos sqrt".split()} | {"rsqrt": 1.6}  # the others are exact
EXACT = "relu abs sign square".split()

SPECIAL = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -0.3, 7.5, 1e-30, -1e-30, 100.0, -100.0, 3e38, -3e38, INF, -INF, NAN, -NAN)

ARRAYS = """
#include "kernels.cpp"
#define ONE(name) extern "C" void name##_of(const real* x, real* y, int64_t size) { \\
  for (int64_t i = 0; i < size; i += simd::W) { \\
    vec a; \\
    memcpy(&a, x + i, sizeof a); \\
    a = simd::name(a); \\
    memcpy(y + i, &a, sizeof a); \\
  } \\
}
#define SEVERAL(name, ...) \\
extern "C" void name##_of(const real* x, const real* y, const real* z, real* out, int64_t size) { \\
  for (int64_t i = 0; i < size; i += simd::W) { \\
    [[maybe_unused]] vec a, b, c; \\
    memcpy(&a, x + i, sizeof a); \\
    memcpy(&b, y + i, sizeof b); \\
    memcpy(&c, z + i, sizeof c); \\
    a = simd::name(__VA_ARGS__); \\
    memcpy(out + i, &a, sizeof a); \\
  } \\
}
"""
FLUSHED = """
extern "C" void flushed(void (*function)(const real*, real*, int64_t), const real* x, real* y, int64_t size) {
  simd::FlushToZero mode;
  function(x, y, size);
}
"""


@dataclass(frozen=True)
class Library:
    """The functions, compiled for one type of numbers and one set of instructions."""

    functions: ctypes.CDLL
    dtype: type[np.floating]
    flags: tuple[str, ...]

    def unary(self, name: str, x: NDArray[np.floating], flush: bool = False) -> NDArray[np.floating]:
        """A function of every number; with ``flush`` numbers below the normal ones count as zero, as in kernels."""
        padded = self._padded(x)
        out = np.empty_like(padded)
        function = getattr(self.functions, f"{name}_of")
        arguments = (_pointer(padded), _pointer(out), ctypes.c_int64(padded.size))
        if flush:
            self.functions.flushed(function, *arguments)
        else:
            function(*arguments)
        return out[: x.size]

    def several(self, name: str, *operands: NDArray[np.floating]) -> NDArray[np.floating]:
        """A function of two or three numbers."""
        padded = [self._padded(x) for x in operands]
        out = np.empty_like(padded[0])
        read = [_pointer(padded[min(i, len(padded) - 1)]) for i in range(3)]
        getattr(self.functions, f"{name}_of")(*read, _pointer(out), ctypes.c_int64(out.size))
        return out[: operands[0].size]

    def _padded(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.concatenate([x, np.zeros(-x.size % 64, x.dtype)]).astype(self.dtype, copy=False)


def _pointer(x: NDArray[np.floating]) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.ctypes.data)


def tools() -> Toolchain:
    try:
        return toolchain()
    except NoCompiler as error:
        pytest.skip(str(error))


def compiled(folder: Path, real: str, *flags: str) -> Library:
    source, library = folder / "arrays.cpp", folder / "arrays.so"
    arrays = [f"ONE({name})" for name in UNARY]
    arrays += [f"SEVERAL({name}, a, b)" for name in BINARY] + [f"SEVERAL({name}, a, b, c)" for name in TERNARY]
    source.write_text("\n".join([ARRAYS, *arrays, FLUSHED]))
    extra = (f"-DREAL={real}", f"-DUSER={real}", f"-I{TEMPLATES}", *flags)
    done = subprocess.run(tools().command(str(source), str(library), extra), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Library(ctypes.CDLL(str(library)), np.float32 if real == "float" else np.float64, flags)


@pytest.fixture(scope="module")
def singles(tmp_path_factory: pytest.TempPathFactory) -> list[Library]:
    """In float; on x86 also without fused multiply-add, which rounds more often."""
    sets = [(), ("-mno-avx",)] if platform.machine() in ("x86_64", "AMD64") else [()]
    return [compiled(tmp_path_factory.mktemp("float"), "float", *flags) for flags in sets]


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return compiled(tmp_path_factory.mktemp("double"), "double")


# ---------------------------------------------------------------- errors


@lru_cache(maxsize=1)
def sample() -> NDArray[np.float32]:
    """Five million floats: every 1009th bit pattern, those around powers of two, and uniform ones."""
    every = np.arange(0, 2**32, 1009, dtype=np.uint64).astype(np.uint32)
    powers = np.arange(1, 255, dtype=np.uint32)[:, None] << np.uint32(23)
    around = (powers + np.arange(-8, 9).astype(np.uint32)).ravel()
    patterns = np.concatenate([every, around, around | np.uint32(2**31)]).view(np.float32)
    random = np.random.default_rng(0)
    uniform = [random.uniform(-end, end, 200_000).astype(np.float32) for end in (1, 20, 100)]
    x = np.concatenate([patterns, *uniform])
    return x[~((np.abs(x) < SMALLEST) & (x != 0))]


class Exact:
    """Exact results, and how far floats are from them in units in the last place of the rounded ones."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values, self.normal = values, np.abs(values) >= SMALLEST
        self.ends = self._ending(values[self.normal])
        with np.errstate(over="ignore"):
            rounded = np.abs(self.ends.astype(np.float32))
        self.spacing = np.spacing(np.minimum(rounded, np.float32(2.0**127))).astype(np.float64)

    def errors(self, found: NDArray[np.floating]) -> NDArray[np.float64]:
        """Of the results that are normal numbers or infinite."""
        return np.abs(self._ending(found[self.normal].astype(np.float64)) - self.ends) / self.spacing

    def _ending(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """With the power of two that floats end at in place of infinity."""
        return np.clip(values, -(2.0**128), 2.0**128)


@pytest.mark.parametrize("name", LIMITS)
def test_error_in_float(singles: list[Library], name: str) -> None:
    x = sample()
    if name == "silu":  # its sigmoid is zero below
        x = x[~(x < -88.72)]
    expected = UNARY[name](torch.from_numpy(x).double()).numpy()
    exact = Exact(expected)
    small = np.abs(expected) < SMALLEST
    for library, flush in itertools.product(singles, (False, True)):
        found = library.unary(name, x, flush)
        assert (np.isnan(found) == np.isnan(expected)).all()
        errors = exact.errors(found)
        assert errors.max() < LIMITS[name], (library.flags, flush, x[exact.normal][errors.argmax()])
        right = np.abs(found[small] - expected[small]) <= 2.0**-148
        assert (right | (found[small] == 0)).all(), (library.flags, flush)


@pytest.mark.parametrize("name", EXACT)
def test_exact_in_float(singles: list[Library], name: str) -> None:
    x = sample()
    for library in singles:
        np.testing.assert_array_equal(library.unary(name, x), UNARY[name](torch.from_numpy(x)).numpy())


@pytest.mark.parametrize("name", [*LIMITS, *EXACT])
def test_error_in_double(double: Library, name: str) -> None:
    random = np.random.default_rng(1)
    x = np.concatenate([random.uniform(-end, end, 20_000) for end in (1e-8, 1, 20, 100, 800)] + [np.array(SPECIAL)])
    if name == "gelu":
        x = x[~(x < -5)]  # where the rounding of erfc's argument counts more
    expected = UNARY[name](torch.from_numpy(x)).numpy()
    found = double.unary(name, x)
    some = ~(np.abs(expected) < np.finfo(np.float64).tiny)
    np.testing.assert_allclose(found, np.where(some, expected, found), rtol=2**-51 if name in LIMITS else 0, atol=0)


def test_bounds_hold_after_rounding(singles: list[Library]) -> None:
    x = sample()[~np.isnan(sample())]
    for library, flush in itertools.product(singles, (False, True)):
        assert np.abs(library.unary("tanh", x, flush)).max() == 1
        sigmoid = library.unary("sigmoid", x, flush)
        assert sigmoid.min() == 0 and sigmoid.max() == 1


# ---------------------------------------------------------------- special values


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        *(("exp", x, y) for x, y in [(-INF, 0.0), (INF, INF), (89, INF), (-88, 0.0), (0, 1.0), (-0.0, 1.0)]),
        *(("expm1", x, y) for x, y in [(-INF, -1.0), (-1e30, -1.0), (INF, INF), (89, INF), (0, 0.0), (-0.0, -0.0)]),
        *(("log", x, y) for x, y in [(0, -INF), (-0.0, -INF), (-1, NAN), (-INF, NAN), (INF, INF), (1, 0.0)]),
        *(("log1p", x, y) for x, y in [(-1, -INF), (-1.5, NAN), (-INF, NAN), (INF, INF), (0, 0.0), (-0.0, -0.0)]),
        *(("tanh", x, y) for x, y in [(INF, 1.0), (-INF, -1.0), (3e38, 1.0), (0, 0.0), (-0.0, -0.0)]),
        *(("sigmoid", x, y) for x, y in [(INF, 1.0), (-INF, 0.0), (0, 0.5), (-3e38, 0.0)]),
        *(("softplus", x, y) for x, y in [(INF, INF), (-INF, 0.0), (3e38, float(np.float32(3e38)))]),
        *(("logsigmoid", x, y) for x, y in [(INF, 0.0), (-INF, -INF), (-100, -100.0)]),
        *(("silu", x, y) for x, y in [(INF, INF), (0, 0.0), (-0.0, -0.0), (-1000, -0.0)]),
        *(("gelu", x, y) for x, y in [(INF, INF), (0, 0.0), (-1000, -0.0)]),
        *(("rsqrt", x, y) for x, y in [(INF, 0.0), (0, INF), (-1, NAN), (4, 0.5)]),
        *(("sign", x, y) for x, y in [(INF, 1.0), (-1e-30, -1.0), (-0.0, 0.0), (NAN, 0.0)]),
        *(("relu", x, y) for x, y in [(INF, INF), (-INF, 0.0)]),
        *(("erf", x, y) for x, y in [(INF, 1.0), (-INF, -1.0), (-0.0, -0.0)]),
    ],
)
def test_limits(singles: list[Library], name: str, x: float, expected: float) -> None:
    for library, flush in itertools.product(singles, (False, True)):
        (found,) = library.unary(name, np.array([x], np.float32), flush)
        np.testing.assert_equal(float(found), expected)
        assert math.copysign(1, found) == math.copysign(1, expected) or math.isnan(expected)


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("sigmoid", -87.0, math.exp(-87)),
        ("softplus", -50.0, math.exp(-50)),
        ("logsigmoid", 50.0, -math.exp(-50)),
        ("expm1", 1e-20, 1e-20),
        ("log1p", -1e-20, -1e-20),
        ("tanh", 2e-38, 2e-38),
        ("gelu", -10.0, -5 * math.erfc(10 / 2**0.5)),
        ("silu", -88.5, -88.5 * math.exp(-88.5)),
    ],
)
def test_small_results_keep_their_digits(singles: list[Library], name: str, x: float, expected: float) -> None:
    for library, flush in itertools.product(singles, (False, True)):
        (found,) = library.unary(name, np.array([x], np.float32), flush)
        assert found == pytest.approx(expected, rel=2**-21)


def test_silu_ends_with_its_sigmoid(singles: list[Library]) -> None:
    x = np.linspace(-1000, -88.73, 10_000, dtype=np.float32)
    for library in singles:
        assert (library.unary("silu", x) == 0).all()


@pytest.mark.parametrize("name", [name for name in UNARY if name != "sign"])
def test_nan_stays(singles: list[Library], double: Library, name: str) -> None:
    patterns = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FC00001], np.uint32)
    for library in singles:
        assert np.isnan(library.unary(name, patterns.view(np.float32))).all()
    assert np.isnan(double.unary(name, np.array([NAN, -NAN]))).all()


@pytest.mark.parametrize("name", [*BINARY, *TERNARY])
def test_several_operands(singles: list[Library], double: Library, name: str) -> None:
    """On all pairs or triples of special values, like torch in double."""
    reference: Callable[..., Tensor] = BINARY[name] if name in BINARY else TERNARY[name]
    for library in (*singles, double):
        special = np.array(SPECIAL).astype(library.dtype)
        choices = itertools.product(special, repeat=2 if name in BINARY else 3)
        operands = [np.array(x) for x in zip(*choices, strict=True)]
        expected = reference(*(torch.from_numpy(x).double() for x in operands)).numpy()
        with np.errstate(over="ignore", under="ignore"):
            rounded = expected.astype(library.dtype)
        rtol = 2**-52 if name == "pow" else 0  # torch has one of its own
        np.testing.assert_allclose(library.several(name, *operands), rounded, rtol=rtol, atol=0)


# ---------------------------------------------------------------- undefined behaviour

WALK = """
#include "kernels.cpp"
#define EACH(x) for (const real x : special)
#define ONE(name) EACH(x) sum += simd::name(simd::all(x))[0];
#define TWO(name) EACH(x) EACH(y) sum += simd::name(simd::all(x), simd::all(y))[0];
#define THREE(name) EACH(x) EACH(y) EACH(z) sum += simd::name(simd::all(x), simd::all(y), simd::all(z))[0];
int main() {
  const real inf = real(__builtin_inf()), nan = real(__builtin_nan(""));
  const real special[] = {SPECIAL, real(1e-40), real(-1e-40), 88.5f, -88.5f, 1e20f, -1e20f};
  volatile real sum = 0;
"""


@pytest.mark.parametrize("real", ["float", "double"])
def test_no_undefined_behaviour(real: str, tmp_path: Path) -> None:
    tools_here = tools()
    flags = ["-std=gnu++17", "-O1", "-g", "-march=native", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = partial(subprocess.run, capture_output=True, text=True, cwd=tmp_path)
    source = tmp_path / "walk.cpp"
    source.write_text("int main() {}\n")
    if command([tools_here.compiler, *flags, "walk.cpp", "-o", "walk"]).returncode:
        pytest.skip("the compiler has no sanitizers")
    special = ", ".join(f"real({x})" for x in SPECIAL)
    walks = [f"ONE({x})" for x in UNARY] + [f"TWO({x})" for x in BINARY] + [f"THREE({x})" for x in TERNARY]
    source.write_text("\n".join([WALK.replace("SPECIAL", special), *walks, "}"]))
    defines = [f"-DREAL={real}", f"-DUSER={real}", f"-I{TEMPLATES}"]
    built = command([tools_here.compiler, *flags, *defines, "walk.cpp", "-o", "walk", "-lm"])
    assert built.returncode == 0, built.stderr
    done = command([str(tmp_path / "walk")])
    assert done.returncode == 0 and not done.stderr, done.stderr
