"""Processes that do jobs: in order, replaced when they die, ended when time is up."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from unit.bench.scripts import BENCHMARKS, script

WORKER = f"""
import os, sys, time
sys.path.insert(0, {str(BENCHMARKS)!r})
from crew import serve

def do(job):
    print("chatter that is no answer")
    if job.get("die"):
        print("out of luck", file=sys.stderr)
        os._exit(3)
    time.sleep(job.get("sleep", 0))
    return {{"twice": 2 * job["n"], "process": os.getpid(), "lost": job.get("lost", False)}}

serve(do)
"""


def run(tmp_path: Path, jobs: list[dict], *, workers: int = 1, seconds: float = 60.0, limit: float = 30.0):
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    done: list[tuple[dict, dict]] = []
    command = [sys.executable, str(path)]
    until = time.monotonic() + seconds
    left = script("crew").work(command, jobs, workers, until, limit, lambda *found: done.append(found))
    return done, left


def test_jobs_are_done_in_order_by_one_process(tmp_path):
    done, left = run(tmp_path, [{"n": n} for n in range(4)])
    assert [(job["n"], result["twice"]) for job, result in done] == [(0, 0), (1, 2), (2, 4), (3, 6)]
    assert len({result["process"] for _, result in done}) == 1 and not left


def test_several_processes_share_the_jobs(tmp_path):
    done, left = run(tmp_path, [{"n": n, "sleep": 0.3} for n in range(6)], workers=2)
    assert sorted(job["n"] for job, _ in done) == list(range(6)) and not left
    assert len({result["process"] for _, result in done}) == 2


def test_a_process_that_dies_costs_one_job(tmp_path):
    done, _ = run(tmp_path, [{"n": 0}, {"n": 1, "die": True}, {"n": 2}])
    assert done[1][1]["failed"] == "the process ended with 3: out of luck"
    assert done[0][1]["process"] != done[2][1]["process"] and done[2][1]["twice"] == 4


def test_a_process_that_lost_its_device_is_replaced(tmp_path):
    done, _ = run(tmp_path, [{"n": 0, "lost": True}, {"n": 1}])
    assert done[0][1]["twice"] == 0 and done[0][1]["process"] != done[1][1]["process"]


def test_a_job_that_takes_too_long_is_ended(tmp_path):
    done, left = run(tmp_path, [{"n": 0}, {"n": 1, "sleep": 100}, {"n": 2}], limit=2.5)
    assert done[1][1]["failed"] == "took longer than 2 s" and done[2][1]["twice"] == 4 and not left


def test_nothing_waits_past_the_deadline(tmp_path):
    began = time.monotonic()
    done, left = run(tmp_path, [{"n": 0}, {"n": 1, "sleep": 100}, {"n": 2}], seconds=4.0)
    assert time.monotonic() - began < 15
    assert [job["n"] for job, _ in done] == [0] and [job["n"] for job in left] == [1, 2]


def test_no_jobs():
    assert script("crew").work(["false"], [], 3, time.monotonic() + 9, 1, print) == []
