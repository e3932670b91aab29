"""Error codes E01xx: syntax."""

from __future__ import annotations

from .code import Code

SYNTAX: tuple[Code, ...] = (
    Code(
        "E0100",
        "unexpected text",
        """Something stands where the grammar of its statement allows nothing of its kind. The message lists
        what could have come instead. The rest of the file is read as if this statement were not there.""",
        "const N = 2 < 3",
        "const N = 2",
    ),
    Code(
        "E0101",
        "a character that means nothing",
        """A `.rec` file is made of ASCII letters, digits, `_`, the operators and brackets of the language,
        spaces and line ends; anything may stand in comments and in the docstring. Greek letters are
        spelled out (`alpha`), and typographic signs are replaced: `-` for a minus sign, `<=` for a less-
        or-equal sign, `'` for a prime.""",
        "let x = \u03b1 * S",
        "let x = alpha * S",
    ),
    Code(
        "E0102",
        "a bracket is never closed",
        """Every `(`, `[` and `{` needs its closing partner. Inside round and square brackets a statement may
        go over several lines; when one stays open, the statement is taken to end where the next one
        begins.""",
        """let x = exp(a + b
let y = x""",
        """let x = exp(a + b)
let y = x""",
    ),
    Code(
        "E0103",
        "a closing bracket without its partner",
        """A closing bracket closes nothing, or a bracket of another shape. Only the bounds of a range mix
        shapes: `in (0, 1]` leaves 0 out and takes 1 in.""",
        "let x = exp(a + b]",
        "let x = exp(a + b)",
    ),
    Code(
        "E0104",
        "no statement begins like this",
        """Every statement of a file begins with its keyword: recurrence, dims, const, state, input, param,
        def, gate, let, transition, output or layer. Inside a transition block stand assignments to primed
        names, `let` and `repeat`. A value gets its name with `let`, a state its next value with
        `transition`.""",
        """trasition S' = a * S
x = a + b""",
        """transition S' = a * S
let x = a + b""",
    ),
    Code(
        "E0105",
        "the first line is not `recurrence NAME`",
        """A file describes one recurrence, and its first statement gives the name. The name is made of
        letters, digits and `_`. A docstring may follow on the next line.""",
        """recurrence gated-delta-net
dims K, V""",
        """recurrence gated_delta_net
dims K, V""",
    ),
    Code(
        "E0106",
        "a power is written with `^`",
        """`^` is the power, as on paper. It binds tighter than a minus before it (`-x^2` is `-(x^2)`), takes
        a minus after it (`K^-0.5`), and groups from the right (`a^b^c` is `a^(b^c)`).""",
        "let x = a ** 2",
        "let x = a^2",
    ),
    Code(
        "E0107",
        "`=` is missing or misplaced",
        """One `=` stands between a name and its value, once per statement. Two of them, `==`, compare values
        and stand only inside expressions. Functions take no keyword arguments, parameters have `init`
        instead of `=`, inputs have no value, and nothing is changed in place.""",
        """output o[V] q @ S'
let x == 2 * a""",
        """output o[V] = q @ S'
let x = 2 * a""",
    ),
    Code(
        "E0108",
        "a prime too many or too few",
        """`S` is the state before the step and `S'` the state after it. `S'` is only ever made by a
        transition, so no other statement can declare a primed name, and a transition assigns to primed
        names only. A helper value inside a transition block is bound with `let`.""",
        """let S' = a * S
transition S = a * S""",
        "transition S' = a * S",
    ),
    Code(
        "E0109",
        "a malformed number",
        """A number is written in decimal digits with at most one point and an optional exponent: `2`, `0.5`,
        `1e-6`. It must fit a 64-bit float: neither overflow nor vanish. Infinity is `inf`.""",
        "const c = 1e",
        "const c = 1e-6",
    ),
    Code(
        "E0110",
        "a value is missing",
        """An operator lacks one of its values, or an argument is empty. A statement ends with its line; an
        expression over several lines is put in parentheses.""",
        """let x = a +
  b""",
        """let x = (a +
  b)""",
    ),
    Code(
        "E0111",
        "an operator is missing",
        """Two values stand side by side. Products are always written out: `*` multiplies element by element
        and `@` contracts the last axis of the left value with the first of the right one.""",
        "let x = 2a",
        "let x = 2 * a",
    ),
    Code(
        "E0112",
        "a name is missing or cannot be used",
        """A declaration needs a name: a letter or `_` followed by letters, digits and `_`. The words `in`
        and `inf` are reserved. All other keywords may be used as names, because they mean something only
        in their own place.""",
        "let in = 2 * a",
        "let inner = 2 * a",
    ),
    Code(
        "E0113",
        "a docstring in the wrong place or form",
        """A file may have one docstring: three double quotes on either side, right after the `recurrence`
        line, over as many lines as needed. Everything else that is meant for readers is a comment: `#
        ...`.""",
        """recurrence gru
dims D
\"\"\"A gated recurrent unit.\"\"\"""",
        """recurrence gru
\"\"\"A gated recurrent unit.\"\"\"
dims D""",
    ),
    Code(
        "E0114",
        "square brackets that cannot be read",
        """After a declared name the brackets list its axes by name, separated by commas; a scalar has none,
        and sizes are declared with `dims` or `const`. In an expression they hold one index (`x[j]`) or
        one range (`x[1:N]`) of the first axis.""",
        "state S[4, V]",
        """const N = 4
state S[N, V]""",
    ),
    Code(
        "E0115",
        "a range that cannot be read",
        """A range is written `in (0, 1]`: the word `in`, two bounds and a comma. `[` and `]` take a bound
        in, `(` and `)` leave it out, and `inf` is allowed as a bound. Inputs and gates have ranges,
        before the `=` of a gate.""",
        "gate g in 0, 1 = sigmoid(x)",
        "gate g in (0, 1) = sigmoid(x)",
    ),
    Code(
        "E0116",
        "a property is given twice",
        """Each of `in`, `unit`, `init` and `frozen` can stand once after an item.""",
        "input b in (0, 1) in [0, 2]",
        "input b in (0, 1)",
    ),
    Code(
        "E0117",
        "a statement inside the wrong block",
        """Declarations stand in the file, before the block that uses them. A transition block holds
        assignments to primed names, `let` and `repeat`; a layer block holds plain assignments such as `q,
        k = linear(x)`; `repeat` stands only inside a transition block.""",
        """transition {
  gate g = sigmoid(x)
  S' = g * S
}""",
        """gate g = sigmoid(x)
transition {
  S' = g * S
}""",
    ),
    Code(
        "E0118",
        "nested too deeply",
        """An expression may have 100 levels, and blocks 16: far more than anyone reads. Every operator, call
        and index adds a level, so that a sum of n terms has n of them.""",
        "let y = f(f(f(... 200 times ...)))",
        """let a = f(f(f(x)))
let y = f(f(f(a)))""",
    ),
    Code(
        "E0119",
        "a semicolon outside of braces",
        """`;` separates assignments that share a line inside braces. In the file every statement has a line
        of its own, and arguments are separated by commas.""",
        "let x = a; let y = b",
        """let x = a
let y = b""",
    ),
    Code(
        "E0120",
        "syntax of another language",
        """The language has arithmetic, comparisons and function calls, and nothing else: no `if`, `and`,
        `or`, `not`, no integer division or remainder, no strings, no types, no colons at the end of a
        line. Choices are made with `where(condition, a, b)`, bounds with `min`, `max` and `clamp`.""",
        "let x = a if a > b else b",
        "let x = where(a > b, a, b)",
    ),
    Code(
        "E0121",
        "items are separated by commas",
        """`dims`, `state`, `input` and `param` declare several items separated by commas. After a name and
        its axes stand only the properties of that kind of item: `in` and `unit` for inputs, `init` and
        `frozen` for parameters, a start value after `=` for states.""",
        "input q[K] k[K] unti",
        "input q[K], k[K] unit",
    ),
    Code(
        "E0122",
        "comparisons cannot be chained",
        """A comparison gives a truth value, not a number to compare again. Nest two `where` to ask for two
        conditions.""",
        "let x = where(0 < a < 1, a, 0)",
        "let x = where(0 < a, where(a < 1, a, 0), 0)",
    ),
    Code(
        "E0123",
        "a sub-step is written `repeat j < N { ... }`",
        """Sub-steps repeat the assignments in braces with a counter from 0 to the bound minus one. The bound
        is a constant expression, so that the steps can be unrolled.""",
        """transition {
  for j in range(N) { S' = householder(k[j], beta[j]) @ S' }
}""",
        """transition {
  repeat j < N { S' = householder(k[j], beta[j]) @ S' }
}""",
    ),
    Code(
        "E0124",
        "only `.T` follows a value",
        """A value has one attribute, its transpose `.T`. Functions are called by their bare names: `exp(x)`,
        not `torch.exp(x)` or `x.exp()`.""",
        "let y = torch.exp(x)",
        "let y = exp(x)",
    ),
    Code(
        "E0125",
        "the file is too long",
        """A file of more than 100000 characters is no specification of a recurrence, and is not read.""",
        "# any file of a megabyte",
        "# some twenty lines",
    ),
)
