"""A fit that diverges names what is not finite; a bound on held-out data is the same each time."""

from __future__ import annotations

import pytest

from inference import fit
from tests.inference.factors import data, ppca
from zoo import errors


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_divergence_says_where_and_what_to_do():
    with pytest.raises(errors.DivergenceError, match=r"step \d+ of 300.*'.*'.*learning rate"):
        fit(ppca(), data(), "svi", steps=300, lr=1e8, optimizer="sgd")
