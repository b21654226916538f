"""Seeds leave the caller's random state alone, devices that are not there are refused."""

from __future__ import annotations

import pytest
import torch

from inference import fit
from tests.inference.factors import data, ppca
from zoo import errors


def test_unavailable_device_is_refused():
    if torch.cuda.is_available():
        pytest.skip("CUDA is available here")
    with pytest.raises(errors.OptionError, match="not available"):
        fit(ppca(), data(20), device="cuda")
