"""A syntax tree as nested parentheses: for `recurra show ast`, and for tests."""

from __future__ import annotations

from . import ast


def dump(node: object) -> str:
    """One line per statement for a whole file, one line for anything else; spans are left out.

    >>> from .parser import parse
    >>> from .source import Source
    >>> print(dump(parse(Source("r.rec", "recurrence r\\nlet x[K] = -a^2 @ S'.T"))))
    (recurrence r)
    (let x [K] (neg (@ (^ a 2) (T S'))))
    """
    match node:
        case ast.Recurrence(name=name, doc=doc, statements=statements):
            head = f"(recurrence {name.id} {doc!r})" if doc else f"(recurrence {name.id})"
            return "\n".join([head, *map(dump, statements)])
        case ast.Number(text=text):
            return text
        case ast.Name(id=name, primed=primed):
            return name + "'" * primed
        case ast.Ident(id=name):
            return name
        case ast.Unary(operand=operand):
            return f"(neg {dump(operand)})"
        case ast.Binary(op=op, left=left, right=right):
            return f"({op} {dump(left)} {dump(right)})"
        case ast.Call(function=function, args=args):
            return _list("call", function, *args)
        case ast.Index(value=value, index=index):
            return _list("index", value, index)
        case ast.Slice(value=value, start=start, stop=stop):
            return _list("slice", value, start or "_", stop or "_")
        case ast.Transpose(value=value):
            return _list("T", value)
        case ast.Range(low=low, high=high, low_open=low_open, high_open=high_open):
            return f"(in {'(['[not low_open]} {dump(low)} {dump(high)} {')]'[not high_open]})"
    return _declaration(node)


def _declaration(node: object) -> str:
    match node:
        case ast.Dims(items=items):
            return _list("dims", *map(_dim, items))
        case ast.Const(name=name, value=value):
            return _list("const", name, value)
        case ast.State(items=items):
            return _list("state", *(_list(i.name, i.axes, i.start) for i in items))
        case ast.Input(items=items):
            return _list("input", *(_list(i.name, i.axes, i.range, "unit" if i.unit else None) for i in items))
        case ast.Param(items=items):
            return _list("param", *map(_param_item, items))
        case ast.Def(name=name, parameters=parameters, body=body):
            return _list("def", _list(name, *parameters), body)
        case ast.Gate(name=name, axes=axes, range=declared, value=value):
            return _list("gate", name, axes, declared, value)
        case ast.Let(name=name, axes=axes, value=value):
            return _list("let", name, axes, value)
        case ast.Assign(name=name, value=value):
            return f"({name.id}' {dump(value)})"
        case ast.Repeat(variable=variable, bound=bound, body=body):
            return _list("repeat", variable, bound, *body)
        case ast.Transition(body=body, block=block):
            return _list("transition", "block" if block else None, *body)
        case ast.Output(name=name, axes=axes, value=value):
            return _list("output", name, axes, value)
        case ast.Layer(body=body):
            return _list("layer", *(_list(*item.names, item.value) for item in body))
    raise TypeError(f"not a node of the syntax tree: {type(node).__name__}")


def _dim(item: ast.Dim) -> str:
    if item.alias is None:
        return item.name.id
    return _list("=", item.name, _list("*", item.factor, item.alias) if item.factor else item.alias)


def _param_item(item: ast.ParamItem) -> str:
    init = _list("init", item.init) if item.init is not None else None
    return _list(item.name, item.axes, "frozen" if item.frozen else None, init)


def _list(*parts: object) -> str:
    """Parts in parentheses: nodes dumped, axes in brackets, words as they are, None left out."""
    shown = []
    for part in parts:
        match part:
            case None:
                continue
            case str():
                shown.append(part)
            case tuple():
                shown += [f"[{' '.join(axis.id for axis in part)}]"] if part else []
            case _:
                shown.append(dump(part))
    return f"({' '.join(shown)})"
