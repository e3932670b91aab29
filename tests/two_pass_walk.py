"""The passes of the two-pass backward, walked step by step in float64 by the reference's evaluator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from recurra.compiler.autodiff.sweep import FLOW, Sweep
from recurra.compiler.autodiff.two_pass import TwoPass
from recurra.compiler.ir.program import Program
from recurra.runtime import reference

Leaves = dict[tuple[str, str], Tensor]


class Walk:
    """Gradients of inputs [B, T, H, ...], params [H, ...] and start states from the cotangents of what comes out."""

    def __init__(self, passes: TwoPass, sizes: Mapping[str, int], leaves: Leaves, steps: int) -> None:
        self.passes, self.sizes, self.leaves, self.steps = passes, sizes, leaves, steps
        self.states = [s.name for s in passes.infer.states]
        self.saved: list[Leaves] = [{} for _ in range(steps)]

    def gradients(self, starts: Mapping[str, Tensor], cotangents: Mapping[str, Tensor], restart: int) -> Leaves:
        """By leaf; ``cotangents`` by output and by state, which means its end."""
        self._forward(starts)
        outputs = [("cotangent", o.name) for o in self.passes.infer.outputs]
        given = [{leaf: cotangents[leaf[1]][:, t] for leaf in outputs} for t in range(self.steps)]
        back = {("cotangent", f"{s}'"): cotangents[s] for s in self.states}
        checkpoints = {self.steps: back}
        for t in reversed(range(self.steps)):
            found = self._run(self.passes.reverse, t, {**given[t], **back})
            back = {("cotangent", f"{s}'"): found["state", s] for s in self.states}
            checkpoints[t] = back
        self.slopes: Leaves = {("state", s): back["cotangent", f"{s}'"] for s in self.states}
        states: Leaves = {("state", s): starts[s] for s in self.states}
        flow: Leaves = {}
        sums: dict[tuple[str, str], list[Tensor]] = {}
        for t in range(self.steps):
            if self.passes.restart is not None and t % restart == 0:
                flow = self._restart(self.passes.restart, states | checkpoints[t])
            found = self._run(self.passes.again, t, {**given[t], **states, **flow})
            states = {("state", s): found["state", s] for s in self.states}
            if self.passes.finish is not None:
                found = self._run(self.passes.finish, t, {**given[t], **flow})
            for leaf, value in found.items():
                if leaf[0] in ("input", "param"):
                    sums.setdefault(leaf, []).append(value)
            if ("flow", FLOW) in found:
                flow = {("saved", FLOW): found["flow", FLOW]}
        for leaf, values in sums.items():
            self.slopes[leaf] = torch.stack(values, 1) if leaf[0] == "input" else sum(v.sum(0) for v in values)
        return self.slopes

    def _forward(self, starts: Mapping[str, Tensor]) -> None:
        program = self.passes.forward
        states: Leaves = {("state", s): starts[s] for s in self.states}
        for t in range(self.steps):
            values = self._values(program, t, states)
            for output in program.outputs:
                if output.name in self.passes.kept:
                    self.saved[t]["saved", output.name] = values[output.value]
            states = {("state", s.name): values[s.next] for s in program.states}

    def _values(self, program: Program, t: int, states: Leaves) -> dict[int, Tensor]:
        roots = [*(s.next for s in program.states), *(o.value for o in program.outputs)]
        return self._evaluate(program.body, roots, t, states)

    def _evaluate(self, body: object, roots: list[int], t: int, more: Leaves) -> dict[int, Tensor]:
        now = {leaf: x if leaf[0] == "param" else x[:, t] for leaf, x in self.leaves.items()}
        like = torch.empty((), dtype=torch.float64)
        return reference.evaluate(body, roots, {**now, **more}, self.sizes, 2, like=like)  # type: ignore[arg-type]

    def _run(self, sweep: Sweep, t: int, more: Leaves) -> Leaves:
        values = self._evaluate(sweep.body, list(sweep.roots()), t, {**self.saved[t], **more})
        for row in sweep.rows:
            self.saved[t]["saved", row.name] = values[row.value]
        found: Leaves = {("state", s): values[v] for s, v in sweep.carried}
        for kind, named in (("input", sweep.inputs), ("param", sweep.params)):
            found |= {(kind, name): values[v] for name, v in named if v is not None}
        return found if sweep.flow is None else {**found, ("flow", FLOW): values[sweep.flow]}

    def _restart(self, sweep: Sweep, leaves: Leaves) -> Leaves:
        assert sweep.flow is not None
        values = reference.evaluate(sweep.body, [sweep.flow], leaves, self.sizes, 2)
        return {("saved", FLOW): values[sweep.flow]}
