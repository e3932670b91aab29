"""What a verification found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One quantity of one comparison: the worst of all cases.

    ``ratio`` is the error in units of what is allowed, which is the tolerance or, where that is more,
    twice the error of the reference at the same precision.
    """

    spec: str
    check: str
    dtype: str
    quantity: str
    case: str
    error: float
    tolerance: float
    ratio: float

    @property
    def ok(self) -> bool:
        return self.ratio <= 1


@dataclass(frozen=True)
class Report:
    """All comparisons for one spec; prints as a table. ``notes`` say what was not compared, and why."""

    spec: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything compared agrees (and something was compared)."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON; errors that are infinite are the text ``inf``."""
        rows = [{**asdict(row), "ok": row.ok} for row in self.rows]
        for row in rows:
            row.update({key: "inf" for key in ("error", "ratio") if row[key] == float("inf")})
        return {"spec": self.spec, "ok": self.ok, "rows": rows, "notes": list(self.notes)}

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=110)
        with console.capture() as capture:
            console.print(table([self]))
            for note in self.notes:
                console.print(f"{self.spec}: {note}", highlight=False, markup=False)
        return capture.get().rstrip("\n")


def table(reports: Sequence[Report]) -> Any:
    """All reports as one table of rich: a line per spec, comparison and quantity."""
    from rich.table import Table

    result = Table("spec", "check", "dtype", "quantity", "worst case", "error", "tolerance", "ratio", "")
    for report in reports:
        for row in report.rows:
            mark = "[green]ok[/green]" if row.ok else "[bold red]FAIL[/bold red]"
            numbers = (f"{row.error:.1e}", f"{row.tolerance:.0e}", f"{row.ratio:.2f}")
            result.add_row(row.spec, row.check, row.dtype, row.quantity, row.case, *numbers, mark)
        result.add_section()
    return result
