"""What can go wrong when a compiled recurrence is used."""

from __future__ import annotations


class CallError(ValueError):
    """An argument that does not fit: which one, what was expected, what came. Nothing was changed.

    Attributes: ``spec`` and ``argument`` (names; ``argument`` is empty where the whole call is
    wrong), ``problem`` (one sentence), ``expected`` and ``came`` (both may be empty).
    """

    def __init__(self, spec: str, argument: str, problem: str, expected: str = "", came: str = "") -> None:
        super().__init__(spec, argument, problem, expected, came)
        self.spec, self.argument, self.problem = spec, argument, problem
        self.expected, self.came = expected, came

    def __str__(self) -> str:
        subject = f"{self.spec}: `{self.argument}` " if self.argument else f"{self.spec}: "
        details = [f"expected {self.expected}"] if self.expected else []
        details += [f"came {self.came}"] if self.came else []
        return subject + self.problem + (f" ({', '.join(details)})" if details else "")


class BackendError(RuntimeError):
    """A backend that was asked for by name cannot run this call; the message says why."""


class NoCompiler(BackendError):
    """No C++ compiler works on this machine; the message says what was tried and how to get one."""


class StoreError(OSError):
    """The folder of generated files cannot be used; the message names it and says what to do."""
