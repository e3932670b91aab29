"""Random diagonal-plus-low-rank recurrences as `.rec` text, each in two ways: free form and transition operators."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

SCALAR_DECAYS = (
    "sigmoid(g0)",
    "exp(-softplus(g1))",
    "alpha",  # an input in (0, 1]
    "exp(-exp(lam))",  # a param: constant
    "tanh(g0)",  # signed
    "relu(g0)",  # often 0
    "alpha * sigmoid(g0)",
    "0.9",
    "(2 * sigmoid(g1) - 1)",
    "(-0.5)",
)
PLAIN_DECAYS = 7  # so many without numbers
CHANNEL_DECAYS = ("sigmoid(w0)", "exp(-exp(w1))", "exp(-softplus(w0) * beta)", "tanh(w1)", "alpha * sigmoid(w0)")
NEW = "S'"
KEYS = ("k0", "k1", "kn", "k0 * w0", "sigmoid(w1)")
READS = ("k0", "kn", "k1", "p0", "kn * p0")
SCALES = (None, "beta", "beta * alpha", "2 * sigmoid(g0)", "-1", "0.5")
PLAIN_SCALES = 3


@dataclass(frozen=True)
class Erase:
    """``key (scale * (value - read @ S))^T``; nothing is given where ``value`` is None."""

    key: str
    read: str
    scale: str | None
    value: int | None


@dataclass(frozen=True)
class Step:
    """A sub-step: a decay (scalar or per channel), erases that read after it or before it, and plain writes."""

    decay: str | None
    channel: bool
    post: bool
    erases: tuple[Erase, ...]
    writes: tuple[tuple[str, str | None, int], ...]


@dataclass(frozen=True)
class AffineSpec:
    """A recurrence of a matrix state mixed along ``K``, its first axis (``left``) or its last one."""

    left: bool
    steps: tuple[Step, ...]
    normaliser: bool
    before: bool
    bonus: bool
    column_read: bool
    epilogue: str

    def text(self, operators: bool = False) -> str:
        """The recurrence in free form, or with its transitions as matrices."""
        shape = "K, V" if self.left else "V, K"
        states = f"S[{shape}]" + (", n[K]" if self.normaliser else "")
        lines = [
            "recurrence drawn",
            "dims K, V",
            f"state {states}",
            "input q[K], k0[K], k1[K], p0[K], u[K], w0[K], w1[K], c[V]",
            "input z0[V], z1[V], z2[V]",
            "input g0, g1, beta in [0, 2], alpha in (0, 1]",
            "param lam",
            "let kn = l2norm(k0)",
            *self._transition("S", operators),
            *(self._transition("n", operators) if self.normaliser else ()),
            *self._outputs(),
        ]
        return "\n".join(lines) + "\n"

    def _transition(self, state: str, operators: bool) -> list[str]:
        lines = ["transition {"]
        now = state
        for step in self.steps:
            found = self._operator(step, state, now) if operators else self._free(step, state, now)
            lines += [f"  {state}' = {text}" for text in found]
            now = f"{state}'"
        return [*lines, "}"]

    # ------------------------------------------------------------ free form

    def _free(self, step: Step, state: str, now: str) -> list[str]:
        decayed = now if step.decay is None else f"{step.decay} * {now}"
        found = []
        if step.post and step.erases and step.decay is not None:
            found.append(decayed)
            now = decayed = f"{state}'"
        parts = [decayed]
        for erase in step.erases:
            read = self._read(erase.read, now, state)
            inner = f"-{read}" if erase.value is None else f"{self._value(erase.value, state)} - {read}"
            parts.append(self._outer(erase.key, _scaled(erase.scale, f"({inner})"), state))
        parts += self._writes(step, state)
        return [*found, " + ".join(parts)]

    def _writes(self, step: Step, state: str) -> list[str]:
        return [self._outer(key, _scaled(scale, self._value(v, state)), state) for key, scale, v in step.writes]

    def _value(self, index: int, state: str) -> str:
        return f"z{index}" if state == "S" else ("1", "g0", "g1")[index]

    def _read(self, key: str, now: str, state: str) -> str:
        return f"({now} @ ({key}))" if state == "S" and not self.left else f"(({key}) @ {now})"

    def _outer(self, key: str, value: str, state: str) -> str:
        if state == "n":
            return f"{key} * ({value})"
        return f"outer({key}, {value})" if self.left else f"outer({value}, {key})"

    # ------------------------------------------------------------ operators

    def _operator(self, step: Step, state: str, now: str) -> list[str]:
        flipped = state == "S" and not self.left  # the transposed operator, from the right
        decay = _diagonal(step)
        erased = []
        for erase in step.erases:
            pair = f"{erase.read}, {erase.key}" if flipped else f"{erase.key}, {erase.read}"
            erased.append(_scaled(erase.scale, f"outer({pair})"))
        minus = "".join(f" - {text}" for text in erased)
        if not erased:
            matrix = decay
        elif step.post or step.decay is None:
            (first, *others) = step.erases
            house = not others and first.key == first.read and first.scale is not None and "-" not in first.scale
            factor = f"householder({first.key}, {first.scale})" if house else f"(eye(K){minus})"
            matrix = f"{decay} @ {factor}" if flipped else f"{factor} @ {decay}"
            if step.decay is None:
                matrix = factor
        else:
            matrix = f"({decay}{minus})"
        parts = [f"{now} @ ({matrix})" if flipped else f"({matrix}) @ {now}"]
        for erase in step.erases:
            if erase.value is not None:
                parts.append(self._outer(erase.key, _scaled(erase.scale, self._value(erase.value, state)), state))
        parts += self._writes(step, state)
        return [" + ".join(parts)]

    # ------------------------------------------------------------ outputs

    def _outputs(self) -> list[str]:
        def read(state: str) -> str:
            return f"(q @ {state})" if self.left else f"({state} @ q)"

        value = f"K^-0.5 * {read(NEW)}"
        if self.before:
            value = f"{read('S')} + {value}" if self.bonus else read("S")
        if self.bonus:
            value = f"{value} + (q @ (u * kn)) * z0"
        if self.normaliser:
            value = f"({value}) / max(abs(q @ n'), 1)"
        lines = [f"let y = {value}", f"output o[V] = {self.epilogue}"]
        if self.column_read:
            lines.append("output r[K] = " + ("S' @ c" if self.left else "c @ S'"))
        return lines


def _scaled(scale: str | None, text: str) -> str:
    return text if scale is None else f"{scale} * {text}"


def _diagonal(step: Step) -> str:
    if step.decay is None:
        return "eye(K)"
    return f"diag({step.decay})" if step.channel else f"({step.decay} * eye(K))"


@st.composite
def steps(draw: st.DrawFn, numbers: bool = True) -> Step:
    """A sub-step with at most two erases and three writes, and something in it."""
    kind = draw(st.sampled_from(["none", "scalar", "channel"]))
    scalars = SCALAR_DECAYS if numbers else SCALAR_DECAYS[:PLAIN_DECAYS]
    scales = SCALES if numbers else SCALES[:PLAIN_SCALES]
    decay = None if kind == "none" else draw(st.sampled_from(scalars if kind == "scalar" else CHANNEL_DECAYS))
    erases = []
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from(KEYS))
        read = key if draw(st.booleans()) else draw(st.sampled_from(READS))
        value = draw(st.one_of(st.none(), st.integers(0, 2)))
        erases.append(Erase(key, read, draw(st.sampled_from(scales)), value))
    one = st.tuples(st.sampled_from(KEYS), st.sampled_from(scales), st.integers(0, 2))
    writes = draw(st.lists(one, min_size=0 if erases else 1, max_size=3))
    return Step(decay, kind == "channel", draw(st.booleans()), tuple(erases), tuple(writes))


@st.composite
def specs(draw: st.DrawFn, most_steps: int = 3, numbers: bool = True) -> AffineSpec:
    """A recurrence of one to three sub-steps; ``.text()`` is what to compile. ``numbers``: some factors are numbers."""
    return AffineSpec(
        left=draw(st.booleans()),
        steps=tuple(draw(st.lists(steps(numbers), min_size=1, max_size=most_steps))),
        normaliser=draw(st.booleans()),
        before=draw(st.booleans()),
        bonus=draw(st.booleans()),
        column_read=draw(st.sampled_from([False, False, False, True])),
        epilogue=draw(st.sampled_from(["y", "rmsnorm(y)", "y * silu(c)", "layernorm(y) * c + z0"])),
    )
