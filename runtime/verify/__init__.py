"""Verification: every way to run a recurrence against the exact one."""

from .report import Report, Row, table
from .verify import Case, verify

__all__ = ["Case", "Report", "Row", "table", "verify"]
