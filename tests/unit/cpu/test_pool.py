"""Memory that results lie in: aligned, taken again when they are gone, bounded."""

from __future__ import annotations

import gc

import torch

from recurra.runtime.ops import pool

MEGABYTE = 1 << 20


def test_results_are_aligned_and_contiguous() -> None:
    for shape in ((3, 5), (7, MEGABYTE // 4), (2, 3, MEGABYTE)):
        value = pool.empty(shape, torch.float32)
        assert value.shape == shape and value.is_contiguous() and value.dtype == torch.float32
        assert value.data_ptr() % 64 == 0


def test_memory_is_taken_again_when_the_last_view_is_gone() -> None:
    value = pool.empty((2 * MEGABYTE,), torch.float32)
    place, view = value.data_ptr(), value[5:7]
    del value
    gc.collect()
    other = pool.empty((2 * MEGABYTE,), torch.float32)
    assert other.data_ptr() != place  # a view still reads it
    view.fill_(3)
    del view
    gc.collect()
    assert pool.empty((2 * MEGABYTE,), torch.float32).data_ptr() == place


def test_what_is_kept_is_bounded() -> None:
    values = [pool.empty((pool.MOST // 4 // 4,), torch.float32) for _ in range(6)]
    del values
    gc.collect()
    assert 0 < pool.kept() <= pool.MOST


def test_small_and_empty_results() -> None:
    assert pool.empty((0, 5), torch.float64).numel() == 0
    assert pool.empty((), torch.bfloat16).shape == ()
