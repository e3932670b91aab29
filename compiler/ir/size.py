"""Sizes of axes: linear expressions in the dimensions of a spec, such as ``K`` or ``M - 2``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """``constant + sum(factor * dimension)``, in canonical form, so equality is by value."""

    constant: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(dimension: str) -> Size:
        """The size of a declared dimension."""
        return Size(0, ((dimension, 1),))

    def __add__(self, other: Size) -> Size:
        factors = dict(self.terms)
        for name, factor in other.terms:
            factors[name] = factors.get(name, 0) + factor
        terms = tuple(sorted((name, factor) for name, factor in factors.items() if factor))
        return Size(self.constant + other.constant, terms)

    def __sub__(self, other: Size) -> Size:
        return self + other * -1

    def __mul__(self, factor: int) -> Size:
        if not factor:
            return Size(0)
        return Size(self.constant * factor, tuple((name, f * factor) for name, f in self.terms))

    @property
    def known(self) -> int | None:
        """The number, where no dimension is involved."""
        return None if self.terms else self.constant

    def bind(self, sizes: Mapping[str, int]) -> int:
        """The number for given sizes of the dimensions (KeyError for one that is missing)."""
        return self.constant + sum(factor * sizes[name] for name, factor in self.terms)

    def __str__(self) -> str:
        parts = [
            ("-" if factor < 0 else "+", name if abs(factor) == 1 else f"{abs(factor)}*{name}")
            for name, factor in sorted(self.terms, key=lambda term: -term[1])
        ]
        if self.constant or not parts:
            parts.append(("-" if self.constant < 0 else "+", str(abs(self.constant))))
        first, *rest = parts
        return ("-" if first[0] == "-" else "") + first[1] + "".join(f" {s} {p}" for s, p in rest)
