"""Questions and answers: gaps, what is kept, which way is taken, and what is said where there is none."""

from __future__ import annotations

import pytest
import torch

from inference.evaluation.queries.questions import Answer, Question, Sampling, Way, answered, observed_values
from zoo.errors import CapabilityError, EmptyDataError, NonFiniteError, OptionError, ShapeError
from zoo.latent.ppca import PPCA

SINGLE = torch.arange(4)[:, None]
GAPS = torch.tensor([[1.0, torch.nan, 3, 4], [5, 6, 7, 8], [9, torch.nan, 1, 2]])


def test_rows_with_the_same_gaps_come_together() -> None:
    found = {tuple(rows.tolist()): there.tolist() for rows, there in Question("", GAPS, SINGLE, 0.0).patterns()}
    assert found == {(0, 2): [True, False, True, True], (1,): [True] * 4}


def test_what_is_known_for_certain_is_kept() -> None:
    drawn = torch.zeros(2, 3, 4)
    kept = Question("", GAPS, SINGLE, 0.0).kept(drawn)
    assert torch.equal(kept, GAPS.nan_to_num(0.0).expand(2, -1, -1))
    for other in (Question("", GAPS, SINGLE, 0.1), Question("", GAPS, torch.tensor([[0, 1], [2, 3]]), 0.0)):
        assert torch.equal(other.kept(drawn), drawn)


def way(reason: str | None, value: float) -> Way:
    return Way(
        lambda program, question: reason,
        lambda program, question, sampling: Answer.of(torch.full((sampling.draws, 3, 4), value), "it", True),
    )


def test_the_first_way_that_is_possible_is_taken() -> None:
    program, question = PPCA([2, 2], 1), Question("denoise", GAPS, SINGLE, 0.1)
    ways = {"a": way("it rains", 1.0), "b": way(None, 2.0), "c": way(None, 3.0)}
    found = answered(program, question, ways, "auto", Sampling(draws=2))
    assert torch.equal(found.values, torch.full((2, 3, 2, 2), 2.0))
    assert torch.equal(found.mean, torch.full((3, 2, 2), 2.0))
    assert answered(program, question, ways, "c", Sampling()).values.max() == 3
    with pytest.raises(CapabilityError, match=r"how='a' is not possible here: it rains\. Use how='b'"):
        answered(program, question, ways, "a", Sampling())
    with pytest.raises(CapabilityError, match="PPCA cannot denoise: it rains; it snows"):
        answered(program, question, {"a": way("it rains", 1.0), "d": way("it snows", 1.0)}, "auto", Sampling())
    with pytest.raises(OptionError, match="'auto', 'a', 'b', 'c', got 'd'"):
        answered(program, question, ways, "d", Sampling())


def test_observations_are_looked_at() -> None:
    program = PPCA([2, 2], 1)
    assert observed_values(program, [[[1, 2], [3, float("nan")]]], (2, 2)).dtype == torch.float64
    with pytest.raises(EmptyDataError):
        observed_values(program, torch.zeros(0, 2, 2), (2, 2))
    with pytest.raises(ShapeError, match="observations of shape"):
        observed_values(program, torch.zeros(3, 2), (2, 2))
    with pytest.raises(NonFiniteError, match="1 observations are infinite"):
        observed_values(program, torch.tensor([[[1.0, 2], [3, torch.inf]]]), (2, 2))
    with pytest.raises(OptionError, match="steps"):
        Sampling(steps=0)
