"""No door lets bad data through, or lets an error of torch out; and none minds in which form good data come."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference import fit
from inference.evaluation import bidirectional, log_likelihood
from inference.evaluation.queries import anomalies, completion
from inference.fitted import Fit
from tests import doors
from zoo import catalogue
from zoo.datasets import Card, Data, Dataset
from zoo.errors import EmptyDataError, NonFiniteError, OptionError, ShapeError, SupportError

QUICK = settings(
    max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
NAMES = sorted(catalogue.BUILTIN)


def test_bad_data_come_through_no_door(record_property: pytest.RecordProperty) -> None:
    """250 cases of program x door x fault, the same every time; `tests/doors.py` says which there are."""
    found: Counter[str] = Counter()

    @QUICK
    @given(
        st.sampled_from(NAMES), st.sampled_from(sorted(doors.DOORS)), st.sampled_from(sorted(doors.BAD)), st.integers(0)
    )
    def put(name: str, door: str, what: str, at: int) -> None:
        said = doors.attempt(name, door, what, at)
        found[said] += 1
        assert not said.startswith("RAW"), said

    put()
    for said, count in found.items():
        record_property(said, count)
    assert found["SupportError"] + found["ShapeError"] + found["NonFiniteError"] + found["EmptyDataError"] > 80


@settings(QUICK, max_examples=60)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(sorted(set(doors.DOORS) - {"fit by name", "decoder"})),
    st.sampled_from(sorted(doors.GOOD)),
)
def test_the_form_of_good_data_does_not_matter(name: str, door: str, what: str) -> None:
    said = doors.same_answer(name, door, what)
    assert not said.startswith("RAW"), said


# The faults by which this was found, one by one


def split(valid: torch.Tensor, train: torch.Tensor | None = None) -> Dataset:
    train = torch.zeros(8, 4) if train is None else train
    card = Card("mine", "", shape=(4,), support="binary", splits={}, source="", licence="")
    return Dataset(card, train=Data(train), valid=Data(valid), test=Data(train))


@pytest.mark.parametrize(
    ("valid", "error"),
    [
        (torch.full((8, 4), torch.nan), NonFiniteError),
        (torch.full((8, 4), 7.0), SupportError),
        (torch.zeros(0, 4), EmptyDataError),
        (torch.zeros(8, 5), ShapeError),
    ],
)
def test_the_validation_split_is_looked_at(valid, error):
    with pytest.raises(error, match="validation split"):
        fit("independent", split(valid), "svi", steps=2, patience=3)


def test_a_category_that_training_has_not_is_named():
    train, valid = torch.tensor([[0.0], [1.0], [2.0]]).repeat(1, 4), torch.full((2, 4), 3.0)
    with pytest.raises(SupportError, match=r"validation split.*from 3 to 3"):
        fit("markov-chain", split(valid, train), "em")


@pytest.mark.parametrize("door", ["log_likelihood", "anomalies", "code_length"])
def test_instruments_refuse_what_scored_above_every_code(door):
    program, bits = catalogue.create("made", event_shape=[16], hidden=[8]), (torch.rand(5, 16) > 0.5).double()
    case = doors.Given(program, bits, None)
    for shifted in (bits - 0.5, bits * 255):
        with pytest.raises(SupportError, match="Binarise"):
            doors.DOORS[door](case, shifted, None)


def test_impossible_contexts_are_refused():
    schools = catalogue.create("eight-schools")
    x, sigma = torch.zeros(8), torch.full((8,), 10.0)
    for bad in (-sigma, 0 * sigma):
        with pytest.raises(SupportError, match="contexts"):
            fit(schools, (x, bad), "svi", steps=1)
        assert schools.log_evidence(x, bad).isnan()
        with pytest.raises(SupportError, match="contexts"):
            schools.generate(8, bad)
    pixels = catalogue.create("gated-pixelcnn", event_shape=[4, 4], classes=3)
    x = pixels.generate(2, torch.eye(3)[:2])
    for bad in (-3.0, 1e6, 0.5):
        with pytest.raises(SupportError, match="one-hot"):
            log_likelihood(pixels, (x, torch.eye(3)[:2] * bad))
    with pytest.raises(ShapeError, match="one_hot"):
        fit("gated-pixelcnn", (x, torch.tensor([0, 2])), "svi", steps=1)
    with pytest.raises(ShapeError, match="one_hot"):
        fit("cgan", (torch.rand(4, 4, 4), torch.tensor([0, 1, 2, 0])), "gan", steps=1)


def test_nothing_is_sized_by_what_data_should_not_hold():
    for name, options in (("hmm", {"emission": "categorical"}), ("markov-chain", {}), ("dirichlet-categorical", {})):
        x = torch.zeros(4, 3) if name != "dirichlet-categorical" else torch.zeros(4)
        for huge in (3e5, 1e9):
            x.view(-1)[1] = huge
            with pytest.raises(OptionError, match=r"categories.*values="):
                fit(name, x, "svi", steps=1, **options)
        x.view(-1)[1] = torch.inf if name == "hmm" else torch.nan  # to an HMM, NaN is a missing value
        with pytest.raises(NonFiniteError):
            fit(name, x, "svi", steps=1, **options)
    with pytest.raises(OptionError, match="GB in single precision"):
        catalogue.create("hmm", event_shape=[3], emission="categorical", values=10**9)


def test_as_many_as_asked_and_at_least_one():
    program = catalogue.create("ppca", event_shape=[3], latent_dim=1)
    found = Fit(program=program, method="svi", data="", seed=0, guide=program.guide)
    for n in (0, -1):
        with pytest.raises(OptionError, match="at least 1"):
            program.generate(n)
        with pytest.raises(OptionError, match="at least 1"):
            found.draw(n, torch.zeros(2, 3))
        with pytest.raises(OptionError, match="at least 1"):
            bidirectional(program, n)
    with pytest.raises(ShapeError):
        found.draw(2, torch.zeros(2, 4))


def test_hidden_sites_may_hold_anything():
    program = catalogue.create("nade", event_shape=[3], hidden=4)
    x, known = torch.tensor([[1.0, torch.nan, 99.0]]), torch.tensor([True, False, False])
    for how in ("prefix", "enumerate", "importance"):
        drawn = completion.inpaint(program, x, known, how=how, draws=5).values
        assert bool(program.support.check(drawn).all())
        assert bool((drawn[..., 0] == 1).all())
    with pytest.raises(NonFiniteError):
        completion.inpaint(program, x, torch.tensor([True, True, False]))


def test_scores_of_any_form_are_compared():
    assert anomalies.auroc([0.0, 1.0], [2.0, 3.0]) == 1.0


# Shapes that are natural


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("maf", "svi", {"layers": 1}),
        ("ppca", "em", {"latent_dim": 1}),
        ("ali", "ali", {}),
        ("gan", "gan", {}),
        ("cgan", "gan", {}),
    ],
)
def test_single_numbers_are_examples(name, method, options):
    x, context = torch.rand(10), torch.eye(2)[torch.arange(10) % 2]
    length = {} if method == "em" else {"method.steps": 2, "method.compile": "never"}
    found = fit(name, (x, context) if name == "cgan" else x, method, **options, **length)
    assert found.program.generate(3, context[:3] if name == "cgan" else None).shape == (3,)


@pytest.mark.parametrize(("name", "method"), [("infogan", "gan"), ("ali", "ali"), ("dcgan", "gan")])
def test_batches_of_one_are_normalised(name, method):
    for n, batch_size in ((1, 4), (3, 1)):
        found = fit(name, torch.rand(n, 8, 8), method, epochs=1, batch_size=batch_size, compile="never")
        assert bool(torch.isfinite(found.program.generate(2)).all())


def test_a_mixture_density_network_starts_from_one_example():
    for likelihood in ("gaussian-mixture", "logistic-mixture"):
        x = torch.full((1, 4), 1.0)
        found = fit("rnade", x, "svi", **{"steps": 2, "compile": "never", "likelihood": likelihood})
        assert bool(torch.isfinite(found.program.log_prob(x)).all())


@pytest.mark.parametrize("name", ["ar-chain", "chow-liu", "full-joint", "independent", "markov-chain"])
def test_chains_take_particles(name):
    bits = (torch.rand(12, 4) > 0.5).double()
    losses = [
        fit(name, bits, "svi", steps=2, particles=n, compile="never", batch_size=12).history.rows[0]["loss"]
        for n in (1, 2)
    ]
    assert losses[0] == pytest.approx(losses[1])
