"""Learning rates against the formula, weight decay of weights alone, arithmetic that is put back."""

from __future__ import annotations

import pytest
import torch

from inference.training.optimizers import make_optimizer
from zoo import errors


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_is_of_weights_alone(optimizer):
    matrix, vector = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(3))
    made = make_optimizer(optimizer, [matrix, vector], 0.1, weight_decay=0.5)
    (0 * matrix.sum() + 0 * vector.sum()).backward()
    made.step()
    torch.testing.assert_close(matrix.detach(), torch.full((2, 3), 1 - 0.1 * 0.5))
    torch.testing.assert_close(vector.detach(), torch.ones(3))
    with pytest.raises(errors.OptionError, match="weight_decay"):
        make_optimizer(optimizer, [matrix], 0.1, weight_decay=-1.0)
