"""One recurrence at one shape, timed side by side with other ways to run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..recurrence import Recurrence
from ..verify.data import Arguments
from ..verify.metric import TOLERANCES
from .ceilings import Ceilings, measure_ceilings
from .contenders import opponent, subject
from .data import draw_arguments
from .floors import Floor, forward_floor, training_floor
from .results import Benchmark, rows_of
from .shape import Shape
from .side_by_side import DIRECTIONS, Contender, Direction, Key, differences, timed


def bench(
    recurrence: Recurrence,
    shape: Shape,
    *,
    against: Sequence[str] = ("eager",),
    backend: str = "auto",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    repeats: int = 10,
    ceilings: Ceilings | None = None,
    before: Callable[[str], None] = lambda what: None,
) -> Benchmark:
    """Time forward and forward + backward of a recurrence and of what it is measured against.

    All take the same random inputs of ``dtype`` and give the gradients of all outputs by all inputs and learned
    params. ``against`` are names as :func:`contenders.opponent` takes them; one that cannot run is told in the
    result's ``failed``. Unless ``ceilings`` are given they are measured before and after, and the higher ones taken.
    ``before`` is called with a name before each of the ``2 * (1 + len(against)) * (1 + repeats)`` runs at most.
    BackendError if ``backend`` refuses.
    """
    place = torch.device(device)
    program = recurrence.program
    highest = ceilings or measure_ceilings(place)
    arguments = draw_arguments(program, shape, dtype, place)
    own = subject(recurrence, shape, arguments, backend, dtype)
    contenders, failed = _admitted(own, against, recurrence, shape, arguments, dtype)
    with torch.no_grad():
        outputs = own.run()
    cotangents = [torch.randn_like(output) for output in outputs]
    directions, notes = _directions(own)
    apart = differences(contenders)

    def announce(key: Key) -> None:
        before(f"{program.name}: {key[0]}, {key[1]}")

    samples = timed(contenders, cotangents, repeats, directions=directions, before=announce)
    if ceilings is None:
        highest = highest.or_better(measure_ceilings(place))
    floors = {direction: _FLOORS[direction](program, shape, dtype) for direction in directions}
    allowed = max(10 * TOLERANCES[dtype]["output"], 1e-3)
    notes += [f"{name} differs from {own.name} by {far:.1e}" for name, far in apart.items() if not far <= allowed]
    kind = str(dtype).removeprefix("torch.")
    rows = rows_of(samples, own.name, floors, highest, apart)
    return Benchmark(program.name, shape.as_data(), kind, own.name, floors, highest, rows, failed, tuple(notes))


_FLOORS: dict[Direction, Callable[..., Floor]] = {"forward": forward_floor, "forward + backward": training_floor}


def _admitted(
    own: Contender,
    against: Sequence[str],
    recurrence: Recurrence,
    shape: Shape,
    arguments: Arguments,
    dtype: torch.dtype,
) -> tuple[list[Contender], dict[str, str]]:
    """The subject and those opponents that get through a run, and why others do not."""
    admitted, failed = [own], {}
    for name in dict.fromkeys(against):
        try:
            found = opponent(name, recurrence, shape, arguments, dtype)
            if found.name in {contender.name for contender in admitted}:
                continue
            with torch.no_grad():
                found.run()
            admitted.append(found)
        except Exception as error:  # whatever a compiler or a user's own function raises
            failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    return admitted, failed


def _directions(own: Contender) -> tuple[tuple[Direction, ...], list[str]]:
    """Forward alone where outputs have no gradient."""
    if any(output.requires_grad for output in own.run()):
        return DIRECTIONS, []
    return ("forward",), ["outputs have no gradient, so there is no backward pass"]
