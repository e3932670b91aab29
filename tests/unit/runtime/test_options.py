"""What a user chooses for kernels: kept, carried through pickling, and refused with a reason."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

import recurra

ZOO = Path(__file__).parents[3] / "examples" / "zoo"


def test_options_reach_the_generated_code() -> None:
    plain = recurra.load(ZOO / "m2rnn.rec")
    chosen = plain.with_options(precision="tf32x3", checkpoint=5)
    assert 'input_precision="ieee"' in plain.source()
    assert 'input_precision="tf32x3"' in chosen.source()
    assert "chunk * 5 + 5" in chosen.source()


def test_options_change_nothing_else() -> None:
    rec = recurra.load(ZOO / "delta_net.rec")
    chosen = rec.with_options(tiles={"V": 2}, checkpoint=2)
    q, k = torch.randn(2, 1, 3, 2, 4)
    v, beta = torch.randn(1, 3, 2, 5), torch.rand(1, 3, 2)
    found = chosen(q=q, k=k, v=v, beta=beta, backend="triton")
    torch.testing.assert_close(found, rec(q=q, k=k, v=v, beta=beta))


def test_options_are_part_of_the_value() -> None:
    rec = recurra.load(ZOO / "delta_net.rec")
    chosen = rec.with_options(tiles={"V": 2})
    assert pickle.loads(pickle.dumps(chosen)) == chosen != rec
    assert chosen.with_options(checkpoint=4).options.tiles == (("V", 2),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "no precision 'fp8'; there are ieee, tf32, tf32x3"),
        ({"tiles": {"K": 4}}, "axis 'K' cannot be cut into tiles; independent axes are: V"),
        ({"tiles": {"V": 5}}, "the tile of V must be a power of two, not 5"),
        ({"checkpoint": 0}, "checkpoint must be a whole number of steps >= 1, not 0"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        recurra.load(ZOO / "delta_net.rec").with_options(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_a_slice_beyond_the_end_is_one_clear_error() -> None:
    rec = recurra.load(ZOO / "alrnn.rec")
    one = torch.ones(1, 1)
    with pytest.raises(recurra.CallError, match=r"alrnn.rec:\d+:\d+: takes entries 0 to -1 of the axis M, which has 1"):
        rec(A=one, W=one[..., None], h=one, initial={"z": one[..., None]}, steps=3)
