"""From the syntax tree to the typed IR: every statement in an order that works, all mistakes in one go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ...dsl import ast
from ...dsl.diagnostics import Diagnostic, Label, SpecError
from ..ir.program import Body, Gate, Initialiser, Output, Program, State, live
from ..ir.types import Axes
from .declarations import Declarations, declared
from .expressions import Expressions
from .functions import LAYER_FUNCTIONS
from .names import Names
from .order import Unit, assigned, calls_any, in_order
from .report import Mistake, Report
from .transitions import Block, bind, let
from .values import POISON, Poison


def elaborate(
    tree: ast.Recurrence, consts: Mapping[str, float] | None = None, broken_names: Iterable[str] = ()
) -> Program:
    """The typed program of a syntax tree; raises SpecError with all its independent errors.

    ``consts`` overrides consts by name. ``broken_names`` may have been declared by statements that could not be
    read (a state's assignment with its prime): nothing is said about them.
    """
    program, diagnostics = elaborate_partial(tree, consts, broken_names)
    if diagnostics:
        raise SpecError(tree.source, diagnostics)
    return program


def elaborate_partial(
    tree: ast.Recurrence, consts: Mapping[str, float] | None = None, broken_names: Iterable[str] = ()
) -> tuple[Program, tuple[Diagnostic, ...]]:
    """What is right of a syntax tree as a program, and what is wrong.

    With diagnostics the program lacks what they are about, and its states what they become.
    """
    return _Elaboration(tree, dict(consts or {}), frozenset(broken_names)).run()


class _Elaboration:
    """One run over one tree."""

    def __init__(self, tree: ast.Recurrence, consts: Mapping[str, float], broken: frozenset[str]) -> None:
        self.tree, self.broken = tree, broken
        self.report = Report(tree.source)
        self.names = Names(self.report, lost=set(broken))
        self.e = Expressions(self.report, self.names)
        self.declarations = Declarations(self.e, consts)
        self.gates: list[Gate] = []
        self.outputs: list[Output] = []
        self.orders: dict[int, int] = {}

    def run(self) -> tuple[Program, tuple[Diagnostic, ...]]:
        owned: dict[str, ast.Statement] = {}
        for statement in self.tree.statements:
            for ident in declared(statement):
                self.names.later.setdefault(ident.id, ident.span)
        self.names.lost -= self.names.later.keys()  # what reads as it should is declared, whatever a broken line says
        for statement in self.tree.statements:
            before = set(self.names.symbols)
            self.orders[id(statement)] = self.names.order
            self.declarations.declare(statement)
            for name in self.names.symbols.keys() - before:
                owned[name] = statement
        self.declarations.check_overrides(self.tree.name)
        functions = {s.name: s.function for s in self.names.symbols.values() if s.function is not None}
        units: list[Unit] = [
            s for s in self.tree.statements if isinstance(s, ast.Gate | ast.Let | ast.Output | ast.Transition)
        ]
        self._check_states(units)
        for position in in_order(units, functions, self.report):
            unit = units[position]
            self.e.before = self.orders[id(unit)]
            self._unit(unit, isinstance(unit, ast.Transition) or owned.get(unit.name.id) is unit)
        self._check_functions(functions)
        self._check_parts()
        program = self._program()
        whole = len(program.states) == len(self.declarations.found.states) and len(program.outputs) == sum(
            isinstance(unit, ast.Output) for unit in units
        )
        assert whole or self.report.diagnostics or self.broken, "something is missing and nothing was said"
        return program, self.report.diagnostics

    # ------------------------------------------------------------ units

    def _unit(self, unit: Unit, owns: bool) -> None:
        """Evaluate one statement; ``owns`` is false if its name belongs to an earlier one."""
        e = self.e
        match unit:
            case ast.Transition():
                for name, value in Block(e, unit).run().items():
                    if name not in e.nexts:
                        e.nexts[name] = value
            case ast.Let():
                value = let(e, unit)
                if owns:
                    e.values[unit.name.id] = value
            case ast.Gate():
                self._gate(unit, owns)
            case ast.Output():
                self._output(unit, owns)

    def _gate(self, unit: ast.Gate, owns: bool) -> None:
        e = self.e
        declared = self.declarations.interval(unit.range)
        with e.standing(gate=unit.name.id):
            value = let(e, unit)
        if not isinstance(value, int | Poison):
            try:
                value = e.tensor(value, unit.value)
            except Mistake as mistake:
                self.report.add(mistake)
                value = POISON
        if not owns:
            return
        e.values[unit.name.id] = value
        if isinstance(value, int):
            self.gates.append(Gate(unit.name.id, value, declared, unit.span))

    def _output(self, unit: ast.Output, owns: bool) -> None:
        e = self.e
        value = e.entries(unit.value)
        axes = self.names.axes(unit.axes, e.before)
        if axes is None:
            return
        found = bind(e, f"`{unit.name.id}`", value, axes, unit.name, unit.value)
        if owns and isinstance(found, int):
            self.outputs.append(Output(unit.name.id, axes, found, unit.span))

    # ------------------------------------------------------------ the whole

    def _check_states(self, units: Iterable[Unit]) -> None:
        """Every state has exactly one transition."""
        makers: dict[str, tuple[int, ast.Ident]] = {}
        for i, unit in enumerate(units):
            if not isinstance(unit, ast.Transition):
                continue
            for ident in assigned(unit.body):
                found = makers.setdefault(ident.id, (i, ident))
                if found[0] != i:
                    self.report.add(
                        Mistake(
                            "E0403",
                            f"`{ident.id}` has two transitions",
                            ident.span,
                            "assigned again here",
                            "join them in one `transition { ... }` block, which runs in order",
                            labels=(Label(found[1].span, "assigned here"),),
                        )
                    )
        for item, _ in self.declarations.found.states:
            name = item.name.id
            if name not in makers and f"{name}'" not in self.broken and not self._lost_transition():
                self.report.add(
                    Mistake(
                        "E0401",
                        f"the state `{name}` has no transition",
                        item.name.span,
                        "",
                        f"add `transition {name}' = ...`; `{name}' = {name}` keeps it",
                    )
                )

    def _lost_transition(self) -> bool:
        """Whether a statement that could not be read assigned something that cannot be told."""
        return "transition" in self.broken

    def _check_functions(self, functions: Mapping[str, ast.Def]) -> None:
        """Names and calls in functions that the step does not call."""
        for name, function in functions.items():
            if calls_any(function.body, LAYER_FUNCTIONS):
                continue  # for the layer block alone
            before = self.names.symbols[name].order
            seen: dict[str, ast.Ident] = {}
            for ident in function.parameters:
                if ident.id in seen:
                    self.report.add(
                        Mistake(
                            "E0202",
                            f"`{ident.id}` is declared twice",
                            ident.span,
                            "again here",
                            labels=(Label(seen[ident.id].span, "a parameter of that name"),),
                        )
                    )
                seen[ident.id] = ident
            with self.e.standing(before=before, locals=dict.fromkeys(seen, POISON), calling=(name,)):
                self.e.value(function.body)

    def _check_parts(self) -> None:
        """A recurrence has a state and an output, and its sizes can be found out."""
        kinds = {type(statement) for statement in self.tree.statements}
        found = self.declarations.found
        end = self.tree.name.span
        if ast.State not in kinds and not self.broken:
            self.report.add(Mistake("E0407", "a recurrence has a state", end, "", "declare it: `state h[D]`"))
        if ast.Output not in kinds and not self.broken:
            self.report.add(Mistake("E0408", "a recurrence has an output", end, "", "add `output o[D] = h'`"))
        if self.broken or self.report.diagnostics:
            return
        shapes: list[Axes] = [axes for _, axes in found.states]
        shapes += [item.axes for item in found.inputs] + [param.axes for param in found.params]
        bound = {name for axes in shapes for axis in axes for name, _ in axis.size.terms}
        for instr in self.e.b.body:
            if instr.op == "size" and instr.attrs[0] not in bound:
                dim = next(d for d in found.dims if d.name == instr.attrs[0])
                message = f"nothing has the axis `{dim.name}`, so its size is never known"
                self.report.add(Mistake("E0409", message, dim.span, "", f"make it a constant: `const {dim.name} = 8`"))

    def _program(self) -> Program:
        found = self.declarations.found
        states = []
        for item, axes in found.states:
            after, start = self.e.nexts.get(item.name.id), found.starts.get(item.name.id)
            if isinstance(after, int) and start is not None:
                states.append(State(item.name.id, axes, start, after, item.span))
        program = Program(
            self.tree.name.id,
            self.tree.doc,
            tuple(found.dims),
            tuple(found.consts),
            tuple(states),
            tuple(found.inputs),
            tuple(found.params),
            tuple(self.gates),
            tuple(self.outputs),
            tuple(self.e.b.body),
            next((s for s in self.tree.statements if isinstance(s, ast.Layer)), None),
            self.tree.source,
        )
        return _pruned(program)


def _pruned(program: Program) -> Program:
    """The program without values that nothing reads."""
    roots = [*program.roots(), *(s.start for s in program.states), *(g.value for g in program.gates)]
    roots += [p.init.value for p in program.params if p.init.value is not None]
    needed = sorted(live(program.body, roots))
    number = {old: new for new, old in enumerate(needed)}
    body: Body = tuple(
        replace(program.body[p], args=tuple(number[arg] for arg in program.body[p].args)) for p in needed
    )

    def moved(init: Initialiser) -> Initialiser:
        return init if init.value is None else replace(init, value=number[init.value])

    return replace(
        program,
        body=body,
        states=tuple(replace(s, start=number[s.start], next=number[s.next]) for s in program.states),
        params=tuple(replace(p, init=moved(p.init)) for p in program.params),
        gates=tuple(replace(g, value=number[g.value]) for g in program.gates),
        outputs=tuple(replace(o, value=number[o.value]) for o in program.outputs),
    )
