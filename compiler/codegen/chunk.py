"""The chunk algorithm as Triton text: which blocks of a kernel print what (the parts are in chunk_*.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..lower.chunk import ChunkFacts
from .chunk_decays import ChunkDecays
from .chunk_products import in_place


def chunk_blocks(facts: ChunkFacts, blocks: Sequence[str], first: str) -> dict[str, list[str]]:
    """Those of a kernel's blocks that are the algorithm's own; ``first``: when to write what several tiles share."""
    back = "cotangents" in blocks
    p = ChunkDecays(facts, back)
    side = facts.chunk * facts.substeps
    lines = f"tl.arange(0, {side})" if facts.substeps > 1 else "o_rows"
    place = f"p_inverse_checkpoint + {lines}[:, None] * {side} + {lines}[None, :]"
    turned = f"p_inverse_checkpoint + {lines}[None, :] * {side} + {lines}[:, None]"
    solves = facts.substeps > 0
    if "kept" in blocks:
        p.narrow |= {"inverse", "inverse_t"}
    printers: dict[str, Callable[[], Iterable[str]]] = {
        "state": lambda: [*p.states_kept(), *(p.costates_kept() if back and "update_back" not in blocks else ())],
        "decays": lambda: [*p.decays(), *(p.border() if "logs" in blocks else ())],
        "inverse": p.inverse,
        "keep": lambda: [f"tl.store({place}, inverse{f', mask={first}' if first else ''})"] if solves else [],
        "kept": lambda: [
            *([f"inverse = tl.load({place})"] if solves and "solve" in blocks else []),
            *([f"inverse_t = tl.load({turned})"] if solves and back else []),
        ],
        "solve": lambda: [*p.values(), *p.solution()],
        "reads": lambda: p.read_outs(facts.asked if back else None),
        "prologue_queries": p.queries,
        "signs": p.cotangents_of_reads,
        "update_reads": p.update_back_reads,
        "queries": p.cotangents_of_queries,
        "costates": p.cotangents_of_solves,
        "writes": lambda: [*p.cotangents_of_writes(), *p.values_apart()],
        "again": p.cumulated,
        "again_queries": p.moved_queries,
        "again_keys": p.cumulated,
        "keys": lambda: [*p.cotangents_of_erases(), *p.cotangents_of_keys()],
        "ends": lambda: [*p.cotangents_from_end(), *p.cotangents_within_steps()],
        "update": p.update,
        "update_back": p.update_back,
        "logs": p.cotangents_of_decays,
    }
    return {block: [in_place(line) for line in printers[block]()] for block in blocks if block in printers}
