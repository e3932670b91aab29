"""The tables of bytes, launches and resources: targets, rows, and the commands."""

from __future__ import annotations

import subprocess
import sys

import pytest
from unit.bench.scripts import BENCHMARKS, environment, script

from recurra.runtime.ops.ahead import Resources

table, resources = script("bytes"), script("resources")


@pytest.fixture(scope="module")
def rows():
    failed: list[str] = []
    found = list(table.rows(["gated_delta_net", "hgrn"], failed))
    assert not failed
    return found


def test_rows(rows):
    """Every way that applies, at both sizes."""
    expected = [("gated_delta_net", size, way) for size in (64, 128) for way in ("fused", "split", "recurrent")]
    expected += [("hgrn", size, way) for size in (64, 128) for way in ("scan", "recurrent")]
    assert [(r.spec, r.size, r.schedule) for r in rows] == expected


def test_targets_are_met(rows):
    """Fused: at most 4 launches and 1.5 times the ideal bytes; split: at most 6 launches."""
    by_way = {(r.size, r.schedule): r for r in rows if r.spec == "gated_delta_net"}
    for size in table.SIZES:
        fused, split = by_way[size, "fused"], by_way[size, "split"]
        assert len(fused.traffic.both) <= 4 and fused.ratio <= 1.5
        assert len(split.traffic.both) <= 6
    assert [(t.spec, t.schedule, t.launches, t.ratio) for t in table.TARGETS] == [
        ("gated_delta_net", "fused", 4, 1.5),
        ("gated_delta_net", "split", 6, None),
    ]


def test_the_ideal_is_arguments_and_results(rows):
    r = next(r for r in rows if (r.spec, r.size) == ("gated_delta_net", 128))
    step, steps = 2 * (3 * 128 + 2), table.LEAD["T"]
    forward = step + 2 * 128 + (4 * 2 + 4 * 128 * 128) / steps
    assert r.ideal == pytest.approx((forward, 2 * step + 2 * 128 + 2 * 4 * 2 / steps))
    assert 1 < r.ratio < r.loaded


def test_what_does_not_compile_is_a_line(monkeypatch):
    def broken(name: str, size: int, schedule: str) -> None:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr(table, "row", broken)
    failed: list[str] = []
    assert list(table.rows(["gla"], failed)) == [] and len(failed) == 8
    text = table.markdown([], failed)
    assert "* gla 64 fused does not compile: IndexError: tuple index out of range" in text


def test_markdown(rows):
    text = table.markdown(rows)
    assert "| hgrn | 64 | scan |" in text and text.count("met)") + text.count("missed)") == 3
    assert "* gated_delta_net 128 fused, forward + backward:" in text


def test_one_recurrence_launch_by_launch():
    command = [sys.executable, str(BENCHMARKS / "bytes.py"), "--only", "mingru"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    assert "mingru_adjoint" in done.stdout and "reads" in done.stdout


def test_kernels_of_a_case():
    """One target of one case is compiled for real; both schedules of the chunk strategy are rows."""
    case = resources.Case("linear_attention", {"K": 16, "V": 16}, "chunk", ("sm_90",), (("bf16", "tf32"),))
    found = resources.compiled(case, ("sm_90", "gfx942"))
    names = {r.kernel.removeprefix("linear_attention_chunk_") for r in found}
    assert names == {"infer", "forward", "backward", "states", "outputs", "costates", "gradients"}
    assert {r.target for r in found} == {"sm_90"} and all(r.registers > 0 for r in found)
    assert resources.compiled(case, ("sm_80",)) == []


def test_the_table_of_resources(monkeypatch, capsys, tmp_path):
    """Both forms of products are there; what a stopped run has done is not done again."""
    made = Resources("k", "sm_90", "bf16", "tf32", 4, 255, 8, 1024, 3)
    monkeypatch.setattr(resources, "TABLE", tmp_path / "resources.md")
    monkeypatch.setattr(resources, "PARTS", tmp_path / "resources.part.json")
    first, second = (resources.Case("hgrn", {"D": size}, "scan") for size in (8, 9))

    def stopped(program, sizes, **settings):
        if sizes["D"] == 9:
            raise KeyboardInterrupt
        return [made]

    monkeypatch.setattr(resources, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        resources.main([first, second], ("sm_90",), write=True, resume=False)
    assert not (tmp_path / "resources.md").exists()
    monkeypatch.setattr(resources, "measure", lambda program, sizes, **settings: [made] * (sizes["D"] == 9))
    resources.main([first, second], ("sm_90",), write=True, resume=True)
    text = (tmp_path / "resources.md").read_text()
    for size in (8, 9):
        assert text.count(f"| k | D={size} | bf16 | tf32 | sm_90 | 4 | 255 | 8 | 1024 | 3 |") == 2
    assert "4 of 4 spill." in text and "| k | D=9 |" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["resources.md"]


def test_cases_cover_what_is_claimed():
    chunked = {(c.name, c.sizes["K"]) for c in resources.CASES if c.strategy == "chunk"}
    assert chunked == {(name, size) for name in resources.CHUNKED for size in (64, 128)}
    assert {c.strategy for c in resources.CASES} == {"chunk", "scan", "recurrent"}
    assert all(c.targets for c in resources.CASES)
