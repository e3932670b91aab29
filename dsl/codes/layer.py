"""Error codes E05xx: the layer block."""

from __future__ import annotations

from .code import Code

LAYER: tuple[Code, ...] = (
    Code(
        "E0501",
        "a layer block sets something else",
        """The layer block makes the inputs of the recurrence from the model vector `x`, and the layer's result `y` from
        its outputs. It sets nothing else.""",
        """input q[K]
layer { qq = linear(x) }""",
        """input q[K]
layer { q = linear(x) }""",
    ),
    Code(
        "E0502",
        "a layer block sets a name twice",
        """Every input, and `y`, is set once.""",
        """layer {
  q = linear(x)
  q = silu(linear(x))
}""",
        "layer { q = silu(linear(x)) }",
    ),
    Code(
        "E0503",
        "a name that a layer block cannot read",
        """The right sides of a layer block read `x`, which is always the model vector, the outputs, consts, and inputs
        that the block has set above. States, params and gates belong to the step.""",
        """state S[K, V]
output o[V] = sum(S', K)
layer { y = linear(S) }""",
        """state S[K, V]
output o[V] = sum(S', K)
layer { y = linear(o) }""",
    ),
    Code(
        "E0504",
        "something that a layer block cannot do",
        """A layer block works on whole vectors with linear, low_rank, conv, groupnorm, rotary, shift, skip, dropout,
        element-wise functions, the norms and the file's own functions. Products of matrices, slices and everything
        about the state belong into the step.""",
        "layer { q = attention(x) }",
        "layer { q = silu(conv(linear(x), 4)) }",
    ),
    Code(
        "E0505",
        "wrong arguments of a layer function",
        """A function of the layer block has too many or too few arguments, or one that must be a positive whole number
        is none.""",
        "layer { q = conv(linear(x)) }",
        "layer { q = conv(linear(x), 4) }",
    ),
    Code(
        "E0506",
        "a layer block that leaves something out",
        """A layer block sets every input and `y`. Without a block each input is `linear(x)`, and the outputs are joined
        and projected.""",
        """input q[K], k[K]
output o[K] = q
layer { q = linear(x); y = linear(o) }""",
        """input q[K], k[K]
output o[K] = q
layer { q, k = linear(x); y = linear(o) }""",
    ),
    Code(
        "E0507",
        "two layer blocks",
        """A file has at most one layer block.""",
        """layer { q = linear(x) }
layer { y = linear(o) }""",
        """layer {
  q = linear(x)
  y = linear(o)
}""",
    ),
)
