"""Old Faithful by enumeration of all assignments."""

from __future__ import annotations

import torch

from benchmarks import targets


def test_old_faithful_agrees_with_the_programs_own_enumeration():
    target = targets.load("old-faithful")
    torch.testing.assert_close(target.program().log_evidence(*target.data), target.log_evidence)
