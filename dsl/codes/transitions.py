"""Error codes E04xx: transitions and well-formedness."""

from __future__ import annotations

from .code import Code

TRANSITIONS: tuple[Code, ...] = (
    Code(
        "E0401",
        "a state without a transition",
        """Every state needs exactly one transition, which says what it is after the step. `S' = S` keeps it.""",
        """state h[D], c[D]
transition h' = c""",
        """state h[D], c[D]
transition h' = c
transition c' = c""",
    ),
    Code(
        "E0402",
        "new states that depend on each other in a circle",
        """A transition may read the new value of another state (`c'`), which is then computed first; when two need
        each other there is no first one. Read the state before the step (`c`) somewhere in the circle. Several
        assignments to one state in sub-steps go into a block, where they run in order.""",
        """transition a' = b' + x
transition b' = a' * x""",
        """transition a' = b' + x
transition b' = a * x""",
    ),
    Code(
        "E0403",
        "a state with two transitions",
        """Every state has exactly one transition. Assignments that build a state step by step stand in one block,
        `transition { ... }`, and run in order.""",
        """transition S' = alpha * S
transition S' = S' + outer(k, v)""",
        """transition {
  S' = alpha * S
  S' = S' + outer(k, v)
}""",
    ),
    Code(
        "E0404",
        "a transition of something that is no state",
        """Only states are assigned in a transition; they are declared with `state`. Other values are named with
        `let`.""",
        """state S[K, V]
transition T' = S""",
        """state S[K, V]
transition S' = S""",
    ),
    Code(
        "E0405",
        "a new state that is read before it is assigned",
        """A transition block runs in order, and here it reads the new value of one of its states before assigning it.
        Move the assignment up, or read the state before the step, which has no prime. Inside `repeat`, and in its
        own assignment, a state that has not been assigned is still the one before the step.""",
        """state h, c
input f, x
transition {
  h' = tanh(c')
  c' = f * c + x
}""",
        """state h, c
input f, x
transition {
  c' = f * c + x
  h' = tanh(c')
}""",
    ),
    Code(
        "E0406",
        "a gate that depends on the state",
        """A gate steers the transition from outside: it reads inputs, params and other gates, never a state, so that
        it is computed for all steps at once. What depends on the state is named with `let`.""",
        """state h
input x
gate g in [0, 1] = sigmoid(x + h)""",
        """state h
input x
let g = sigmoid(x + h)""",
    ),
    Code(
        "E0407",
        "a recurrence without a state",
        """A recurrence carries something from step to step: its state.""",
        """recurrence r
input x
output o = x""",
        """recurrence r
input x
state h
transition h' = h + x
output o = h'""",
    ),
    Code(
        "E0408",
        "a recurrence without an output",
        """What a recurrence emits at each step is its output; without one nothing of it could be seen.""",
        """recurrence r
state h
transition h' = h""",
        """recurrence r
state h
transition h' = h
output o = h'""",
    ),
    Code(
        "E0409",
        "a dimension whose size is never known",
        """The size of a dimension is read off the inputs, params and states that have it as an axis. This one is used
        as a number and is an axis of none of them.""",
        """recurrence r
dims K, Q
state h[K]
transition h' = Q^-0.5 * h
output o[K] = h'""",
        """recurrence r
dims K
state h[K]
transition h' = K^-0.5 * h
output o[K] = h'""",
    ),
    Code(
        "E0410",
        "the bound of a repeat",
        """`repeat j < N { ... }` is written out N times, so N is a whole number of at least 1 that is known while
        compiling: a literal or a const.""",
        """dims N
transition { repeat j < N { S' = alpha * S' } }""",
        """const N = 2
transition { repeat j < N { S' = alpha * S' } }""",
    ),
    Code(
        "E0411",
        "a transition that is too long",
        """Repeats are written out, and the result would have more statements than can sensibly be compiled. Steps that
        are as many as that belong into the sequence.""",
        "transition { repeat i < 100 { repeat j < 100 { S' = alpha * S' } } }",
        "transition { repeat i < 8 { S' = alpha * S' } }",
    ),
)
