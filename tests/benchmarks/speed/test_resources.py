"""Threads and memory: limits that are put back, a peak that sees what was held."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from benchmarks.speed import resources


def test_threads_are_limited_and_put_back_even_after_an_exception():
    torch.set_num_threads(2)
    with resources.limited(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    try:
        with resources.limited(1):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_peak_sees_what_was_held_and_let_go():
    resources.forget_peak()
    before = resources.peak()
    assert before == pytest.approx(resources.resident(), abs=30)
    held = np.ones(12 * 2**20)  # 96 MiB
    del held
    # Pages that were free before may be used, so somewhat less.
    assert 60 < resources.peak() - before < 130
    assert resources.resident() < resources.peak() - 50


def test_where_nothing_is_known_the_peak_stands_for_both(monkeypatch):
    monkeypatch.setattr(resources, "_status", lambda field: None)
    assert resources.resident() == resources.peak() > 10
