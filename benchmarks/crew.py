"""Processes that do jobs for another one: a job is a line of JSON in, its result a line of JSON out.

A process that dies (or says that its device is lost) costs the job it had and is replaced; one that takes too long is
ended. Nothing waits past a deadline.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

Job = Mapping[str, Any]
Result = dict[str, Any]

LOST = "lost"
"""The key under which a result says that its process cannot go on."""


def work(
    command: Sequence[str],
    jobs: Sequence[Job],
    workers: int,
    until: float,
    limit: float,
    done: Callable[[Job, Result], None],
    environment: Mapping[str, str] | None = None,
) -> list[Job]:
    """Have all jobs done, in order, by ``workers`` processes of ``command``; the jobs that were not reached.

    ``until`` is a time of ``time.monotonic``, ``limit`` the most seconds for one job. ``done`` is told of every
    result, one at a time; a job that failed has the key ``failed`` with a sentence.
    """
    waiting, left, lock = deque(jobs), list[Job](), threading.Lock()

    def serve() -> None:
        worker = _Worker(command, environment)
        try:
            while waiting and time.monotonic() < until:
                try:
                    job = waiting.popleft()
                except IndexError:
                    break
                started = time.monotonic()
                result = worker.do(job, min(limit, until - started))
                if result is None and time.monotonic() >= until:
                    with lock:
                        left.append(job)
                    break
                if result is None:
                    result = {"failed": f"took longer than {limit:.0f} s"}
                with lock:
                    done(job, {**result, "seconds": round(time.monotonic() - started, 2)})
        finally:
            worker.end()

    threads = [threading.Thread(target=serve) for _ in range(min(workers, len(jobs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [*left, *waiting]


class _Worker:
    """One process, started when there is something to do."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None) -> None:
        self.command, self.environment = list(command), {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.errors: BinaryIO | None = None

    def do(self, job: Job, seconds: float) -> Result | None:
        """The result of a job; None (and the process has ended) if it takes longer."""
        process = self.process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return self._died()
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, seconds))
        if not ready:
            self.end()
            return None
        line = process.stdout.readline()
        if not line.endswith(b"\n"):
            return self._died()
        result: Result = json.loads(line)
        if result.get(LOST):
            self.end()
        return result

    def end(self) -> None:
        """End the process at once."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        if self.errors is not None:
            self.errors.close()
        self.process = self.errors = None

    def _start(self) -> subprocess.Popen[bytes]:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the process ends)
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=self.environment,
        )
        return self.process

    def _died(self) -> Result:
        assert self.process is not None and self.errors is not None
        self.process.wait()
        code = self.process.returncode
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()
        self.end()
        return {"failed": f"the process ended with {code}: {said[-1] if said else 'nothing said'}"}


def serve(do: Callable[[Job], Result]) -> None:
    """The other side: do every job that comes in, until there are no more. What jobs print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(do(json.loads(line))), file=answers, flush=True)
