"""Error codes E02xx: names, shapes and types."""

from __future__ import annotations

from .code import Code

NAMES: tuple[Code, ...] = (
    Code(
        "E0201",
        "a name that is not declared",
        """A name stands for nothing: no dims, const, state, input, param, gate, let or def statement introduces it.
        Often it is a slip of the pen; the message names the declared name that is most like it.""",
        """input alpha, x
let y = alhpa * x""",
        """input alpha, x
let y = alpha * x""",
    ),
    Code(
        "E0202",
        "a name that is declared twice",
        """Every name is bound once in a file, whatever kind of thing it is, so that it means the same everywhere.
        Only primed names are assigned several times, inside one transition block. The functions of the language
        cannot be defined again.""",
        """input x[D]
let x = 2 * x""",
        """input x[D]
let y = 2 * x""",
    ),
    Code(
        "E0203",
        "a name that is used before it is declared",
        """Names are declared before they are used, from the top of the file to its end. Only primed names may be
        read above the transition that makes them.""",
        """let y = 2 * z
let z = x + 1""",
        """let z = x + 1
let y = 2 * z""",
    ),
    Code(
        "E0204",
        "a function that does not exist",
        """Something is called that is neither a function of the language nor one of the file's own (`def`). Some
        functions go by another name than elsewhere: `x @ y` for a product, `x.T` for a transpose, `max(x, K)` for
        the largest entry along an axis. Multiplication is never left out: `a * (b + c)`.""",
        "let s = matmul(W, h)",
        "let s = W @ h",
    ),
    Code(
        "E0205",
        "a wrong number of arguments",
        """A function is called with more or fewer arguments than it takes. The message shows how it is written.""",
        "let y = clamp(x, 1)",
        "let y = clamp(x, -1, 1)",
    ),
    Code(
        "E0206",
        "a name of the wrong kind",
        """A name is used as something that it is not: axes are dimensions or whole consts, a second name is given to
        dimensions only, functions are called, outputs are not read back.""",
        """input x
input q[x]""",
        """dims K
input q[K]""",
    ),
    Code(
        "E0207",
        "operands do not align by axis name",
        """`+ - * /`, comparisons and element-wise functions align their operands by the names of their axes, never
        by position. The axes of one operand must contain those of the other; a vector over K and a vector over
        V have no common result. Name the axis alike, make an outer product, or contract an axis with `@`.""",
        """input k[K], v[V]
let x = k + v""",
        """input k[K], v[V]
let x = outer(k, v)""",
    ),
    Code(
        "E0208",
        "an axis that stands twice",
        """Operands align by axis name, and here a name stands twice in one operand, so a vector could scale its rows
        or its columns. `diag(a) @ W` scales the rows, `W @ diag(a)` the columns; or give one axis a second name.""",
        """input a[D]
param W[D, D]
let M = a * W""",
        """input a[D]
param W[D, D]
let M = diag(a) @ W""",
    ),
    Code(
        "E0209",
        "a value whose axes are not the declared ones",
        """A state, output, gate or let is declared with axes, and its value has others. The order of axes does not
        matter and a scalar is spread, but nothing else is repeated or reduced silently.""",
        """input k[K], v[V]
output o[V] = k""",
        """input k[K], v[V]
output o[V] = v""",
    ),
    Code(
        "E0210",
        "axes that `@` cannot contract",
        """`@` contracts the last axis of the left operand with the first axis of the right one, as in NumPy, and the
        two must have the same size. `S.T` swaps the axes of a matrix, `outer(k, v)` is the matrix of all products
        of two vectors, and scalars are multiplied with `*`.""",
        """state S[K, V]
input q[V]
output o[K] = q @ S""",
        """state S[K, V]
input q[V]
output o[K] = S @ q""",
    ),
    Code(
        "E0211",
        "an argument with the wrong number of axes",
        """`outer`, `diag`, `householder` and `rotation` take vectors, the strength of `householder` is a scalar,
        `.T` needs a matrix, and only values with axes have entries.""",
        """state S[K, V]
let D = diag(S)""",
        """input a[K]
let D = diag(a)""",
    ),
    Code(
        "E0212",
        "which axis a function acts along",
        """`sum`, `mean`, `max`, `min`, `softmax` and `logsumexp` act along one axis. It is named by the second
        argument; with one axis only it need not be. The operand must have the axis.""",
        """state S[K, V]
let t = sum(S)""",
        """state S[K, V]
let t = sum(S, K)""",
    ),
    Code(
        "E0213",
        "a constant that is not one",
        """Bounds of ranges, starts of states, numbers of initialisers, indices and bounds of slices are known while
        compiling. They are made of numbers, consts and repeat variables; sizes and starts may also use
        dimensions, and an initialiser `head`.""",
        """input b
input x in (0, b)""",
        """const b = 2
input x in (0, b)""",
    ),
    Code(
        "E0214",
        "an index outside of its axis",
        """The first entry of an axis of N entries is number 0 and the last is N - 1; a slice `x[a:b]` starts with
        entry a, ends before entry b and is not empty. Negative numbers count from the end.""",
        """const N = 2
input k[N]
let last = k[2]""",
        """const N = 2
input k[N]
let last = k[1]""",
    ),
    Code(
        "E0215",
        "the entries of a structured matrix",
        """`eye`, `diag`, `householder` and `rotation` are applied to vectors and matrices with `@`; the matrices
        themselves are never built. Where one is added to a value, multiplied entry by entry or stored in a state,
        its entries would be needed. Scaling rows is `diag(a) @ S` or simply `a * S`. An identity with entries is a
        frozen param that starts as the identity.""",
        """state S[K, K]
transition S' = tanh(S * eye(K))""",
        """state S[K, K]
param I[K, K] init identity frozen
transition S' = tanh(S * I)""",
    ),
    Code(
        "E0216",
        "arithmetic without a result",
        """Constant expressions are computed while compiling, and this one divides by zero, takes the logarithm or
        root of a negative number, subtracts infinities, or is too large.""",
        "const scale = 1 / 0",
        "const scale = 1 / 2",
    ),
    Code(
        "E0217",
        "parts that cannot be joined",
        """`concat` joins vectors, or matrices along their first axis. All other axes must be the same.""",
        """state S[K, V]
input s
let x = concat(S, s)""",
        """state S[K, V]
input r[M, V]
let x = concat(S, r)""",
    ),
    Code(
        "E0218",
        "a rotation of an axis whose size is not constant",
        """`rotation(theta)` turns the channels (2i, 2i + 1) by the angle theta[i]. Neighbouring channels can be told
        apart only on an axis whose size is a const. For a size that is bound at a call, keep the first and the
        second part of every pair in two states.""",
        """dims N
input theta[N]
let R = rotation(theta)""",
        """const N = 4
input theta[N]
let R = rotation(theta)""",
    ),
    Code(
        "E0219",
        "a prime on something that is no state",
        """`S'` is the state S after the step. Inputs, params, gates and lets have one value per step and no prime.""",
        """input x
output o = x'""",
        """input x
output o = x""",
    ),
    Code(
        "E0222",
        "an initialiser that does not exist",
        """A param starts as zeros, ones, identity, orthogonal, normal(std), uniform(lo, hi), log_uniform(lo, hi),
        inv_softplus_log_uniform(lo, hi), arange(first, step), hippo_real or spectral(radius), or as a constant
        expression that may read `head`, the number of the head.""",
        "param W[D, D] init ortogonal",
        "param W[D, D] init orthogonal",
    ),
    Code(
        "E0223",
        "an initialiser that does not fit",
        """An initialiser takes certain numbers within certain bounds, and some start matrices only: identity,
        orthogonal, and spectral, which needs a square one.""",
        "param b[D] init identity",
        "param W[D, D] init identity",
    ),
    Code(
        "E0224",
        "a size that is no positive integer",
        """Axes that are declared with a const have as many entries as it says, so it is a whole number, at least 1.
        So is the factor of a dimension that is a multiple of another one (`dims M, N = 2 * M`).""",
        """const N = 1.5
input k[N]""",
        """const N = 2
input k[N]""",
    ),
    Code(
        "E0225",
        "a const to set that does not exist",
        """Consts are given other values when a recurrence is compiled (`recurra.load(path, N=4)` or `--const N=4`).
        The file declares no const of that name.""",
        "recurra check delta_product.rec --const M=4",
        "recurra check delta_product.rec --const N=4",
    ),
)
