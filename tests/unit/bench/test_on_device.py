"""Times by a device's events, with a device that is only pretended."""

from __future__ import annotations

import torch

from recurra.runtime.bench import on_device


def test_every_job_is_timed_in_every_round_after_a_flush(monkeypatch):
    log: list[str] = []
    now = [0.0]

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("event")
            self.at = now[0]

        def elapsed_time(self, end: Event) -> float:
            return 1e3 * (end.at - self.at)

    def job(name: str, seconds: float):
        def run() -> None:
            log.append(name)
            now[0] += seconds

        return run

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("wait"))
    monkeypatch.setattr(on_device, "FLUSHED", 16)
    jobs = {"a": job("a", 2.0), "b": job("b", 3.0)}
    samples = on_device.interleaved_on_device(jobs, 4, torch.device("cpu"))
    assert {key: found.seconds for key, found in samples.items()} == {"a": (2.0,) * 4, "b": (3.0,) * 4}
    runs = [entry for entry in log if entry in jobs]
    assert sorted(runs) == ["a"] * 4 + ["b"] * 4 and runs != ["a", "b"] * 4
    assert log == ["wait", *(entry for name in runs for entry in ("event", name, "event", "wait"))]


def test_a_graph_is_captured_after_a_first_run_and_replays(monkeypatch):
    log: list[str] = []

    class Context:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            log.append(f"{self.name} begins")

        def __exit__(self, *error: object) -> None:
            log.append(f"{self.name} ends")

    class Stream:
        def wait_stream(self, other: Stream) -> None:
            log.append("waits")

    class Graph:
        def replay(self) -> None:
            log.append("replay")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: Context("stream"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: Context("capture"))
    replay = on_device.graphed(lambda: log.append("job") or "result")
    assert replay() == "result"
    first = ["waits", "stream begins", "job", "stream ends", "waits"]
    assert log == [*first, "capture begins", "job", "capture ends", "replay"]
