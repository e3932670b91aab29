"""Which parts of the chunk algorithm each kernel has, and in which order."""

from __future__ import annotations

_SOLVED = ("prologue_keys", "decays", "kept", "prologue_values", "solve")
_READ = ("prologue_queries", "reads", "cotangents", "signs")
_BACK = (
    "queries",
    "again_queries",
    "gradients_queries",
    "again_values",
    "writes",
    "gradients_values",
)
_BACK_KEYS = ("again_keys", "keys", "again_ends", "ends")

AGAIN: dict[str, tuple[str, ...]] = {
    "reads": (),
    "queries": ("query",),
    "values": (),
    "keys": ("key", "erase", "write"),
    "ends": ("key", "write"),
}
"""Kinds of roles that are computed again before a part of the algorithm."""

BLOCKS: dict[str, tuple[str, ...]] = {
    "infer": ("block", "prologue_keys", "decays", "inverse", "prologue_values", "solve", "again", "prologue_queries",
              "reads", "epilogue", "update", "advance"),
    "forward": ("block", "checkpoint", "prologue_keys", "decays", "inverse", "keep", "prologue_values", "solve",
                "again", "prologue_queries", "reads", "epilogue", "update", "advance"),
    "prepare": ("block", "prologue_keys", "decays", "inverse", "keep"),
    "states": ("block", "checkpoint", *_SOLVED, "update", "advance"),
    "outputs": ("block", "before", "state", *_SOLVED, "prologue_queries", "reads", "epilogue"),
    "backward": ("block", "before", "state", *_SOLVED, *_READ, "update_reads", *_BACK, "update_back", *_BACK_KEYS,
                 "logs", "gradients", "advance"),
    "costates": ("block", "before", "state", "checkpoint", *_SOLVED, *_READ, "update_reads", "costates", "update_back",
                 "advance"),
    "gradients": ("block", "before", "before_back", "state", *_SOLVED, *_READ, *_BACK, *_BACK_KEYS, "logs",
                  "gradients"),
}  # fmt: skip
"""The parts of each kernel, in order, by the names that the templates' markers have."""
