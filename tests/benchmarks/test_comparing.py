"""`compare` and `zoo compare`: one call for any program, with an exact answer or without; bad input in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import benchmarks
import zoo as zoo_package
from benchmarks import compare, targets
from inference import fit
from tests.benchmarks.report.test_comparison import check
from zoo.errors import CapabilityError, ImplicitDensityError, OptionError, UnknownNameError

QUICK: dict[str, Any] = {
    "steps": 5, "compile": "never", "warmup": 20, "draws": 20, "chains": 2, "max_tree_depth": 3,
}  # fmt: skip

BIOASSAY = """
import pyro
import pyro.distributions as dist
import torch


def model(dose, animals, deaths=None):
    \"\"\"How many animals die of a dose (Racine et al. 1986; Gelman et al., Bayesian Data Analysis, section 3.7).\"\"\"
    alpha = pyro.sample("alpha", dist.Normal(0.0, 2.0))
    beta = pyro.sample("beta", dist.Normal(10.0, 10.0))
    with pyro.plate("groups", len(dose)):
        pyro.sample("deaths", dist.Binomial(animals, logits=alpha + beta * dose), obs=deaths)
"""
TABLE = "dose,animals,deaths\n-0.86,5,0\n-0.30,5,1\n-0.05,5,3\n0.73,5,5\n"


def groups(group, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("groups", 2):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
    with pyro.plate("rows", len(group)):
        pyro.sample("y", dist.Normal(theta[group], 0.5), obs=y)


@pytest.fixture(scope="module")
def coin() -> benchmarks.Comparison:
    torch.set_default_dtype(torch.float64)
    return compare("coin", methods=["svi", "svi:normal", "nuts", "exact"], options=QUICK)


def test_everything_is_in_one_answer(coin: benchmarks.Comparison, tmp_path: Path) -> None:
    assert list(coin.fits) == ["svi", "svi normal", "nuts", "exact"]
    assert coin.values["exact"]["kl_reverse"] == pytest.approx(0, abs=1e-9)
    assert coin.values["svi normal"]["kl_reverse"] > 0
    assert coin.values["nuts"]["elbo"] is None
    assert list(coin.worst) == ["p"]
    assert coin.truth.is_exact
    assert {"marginals", "bounds", "gaps", "traces-nuts", "ranks-nuts", "predictions"} == set(coin.pictures)
    for name, figure in coin.pictures.items():
        check(figure, name)
    page = coin.write(tmp_path / "new" / "folder")
    assert page.read_text().count("data:image/png;base64,") == 6
    assert "The worst is p" in page.read_text()
    assert len(list((tmp_path / "new" / "folder" / "plots").iterdir())) == 6


def test_it_is_told_in_a_line_and_shown_whole_in_a_notebook(coin: benchmarks.Comparison) -> None:
    assert repr(coin) == "Comparison(coin on coin: svi, svi normal, nuts, exact; truth: exact)"
    shown = coin._repr_html_()
    assert "<html" not in shown
    assert "<style" not in shown
    assert shown.count("data:image/png;base64,") == 6


def test_each_example_has_its_own_posterior() -> None:
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    found = compare(
        "ppca", x, [("svi", {"epochs": 1, "compile": "never"}), "svi:normal", "exact"], options={"steps": 3}
    )
    assert found.notes[0] == "The model's own parameters were fitted first, by em; they are the same for all methods."
    assert found.notes[1] == "Each example has its own posterior; those of the first 20 of 30 are shown."
    # The amortised guide learns from all, what belongs to single examples from those that are looked at.
    assert [each.train.size for each in found.fits.values()] == [30, 20, 20]
    weights = [each.program.weight for each in found.fits.values()]
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0])
    assert found.values["exact"]["kl_reverse"] == pytest.approx(0, abs=1e-8)
    assert next(iter(found.worst)).startswith("z[")


def test_without_an_exact_answer_it_is_a_chain_and_it_says_so() -> None:
    program = zoo_package.adopt(groups)
    data = {"group": torch.tensor([0, 0, 1, 1]), "y": torch.tensor([0.1, 0.3, 1.0, 1.2])}
    found = compare(program, data, ["svi:normal", "svi:multivariate_normal"], options=QUICK, particles=50)
    assert not found.truth.is_exact
    assert "not known exactly" in found.truth.sentence
    assert "the reference is NUTS" in found.truth.sentence
    assert "R-hat is at most" in found.truth.sentence
    assert found.values["svi normal"]["kl_reverse"] is None
    assert set(found.worst) == {"mu", "tau", "theta[0]", "theta[1]"}
    assert "gaps" not in found.pictures
    (gaps,) = [section for section in found.report.sections if section.title == "The gap in three parts"]
    assert list(gaps.text) == ["No gap to split of svi normal, svi multivariate_normal: the evidence is not known."]


def test_by_default_a_method_that_these_data_are_not_for_is_named_and_ends_nothing() -> None:
    """The density of a hierarchy grows without end where its groups are alike: Laplace has no mode to stand at."""
    program = zoo_package.adopt(groups)
    data = {"group": torch.tensor([0, 0, 1, 1]), "y": torch.tensor([0.1, 0.3, 1.0, 1.2])}
    found = compare(program, data, options=QUICK, particles=50, c2st=False, gaps=False)
    assert set(found.fits) == {"svi normal", "svi multivariate_normal", "pathfinder", "nuts"}
    (failure,) = found.failures
    assert failure.startswith("laplace failed: laplace groups: none of 8 starts led to a maximum")


def test_fits_and_targets_are_taken_as_they_are() -> None:
    coin = targets.load("coin")
    normal = fit(coin.program(), coin.data, "svi", guide="normal", steps=3, compile="never")
    found = compare(coin, methods={"mine": normal}, gaps=False)
    assert found.fits["mine"] is normal
    assert found.truth.truth is coin
    assert coin.description in found.notes


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (("gan",), ImplicitDensityError, "implicit"),
        (("independent", "digits-binary"), CapabilityError, "no latents"),
        ((3,), OptionError, "program must be"),
        (("coin", None, "svi"), OptionError, r"methods must be a list such as"),
        (("coin", None, ["svy"]), UnknownNameError, "Did you mean 'svi'"),
        (("coin", None, ["svi:norml"]), UnknownNameError, "Did you mean 'normal'"),
        (("coin", None, ["svi", "svi"]), OptionError, "Two methods are called 'svi'"),
        (("coin", None, [("svi", 3)]), OptionError, "A method is a name"),
        (("coin", None, ["gan"]), CapabilityError, "cannot fit BetaBernoulli"),
        (("ppca", "digits", ["em"]), CapabilityError, "fits the model's own parameters"),
    ],
)
def test_bad_input_is_named_before_anything_is_fitted(given: tuple[Any, ...], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        compare(*given)


def test_options_and_truths_that_make_no_sense_are_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'steps'"):
        compare("coin", methods=["svi"], options={"stepz": 3})
    with pytest.raises(UnknownNameError, match="Did you mean 'nuts'"):
        compare("coin", methods=["exact"], truth="nutz")
    with pytest.raises(OptionError, match="in the place of the program"):
        compare("coin", truth=targets.load("coin"))
    with pytest.raises(OptionError, match="leave data out"):
        compare(targets.load("coin"), [1.0])
    other = fit("eight-schools", None, "exact")
    with pytest.raises(OptionError, match="of another program"):
        compare("coin", methods={"other": other})


def bioassay(zoo: Any, folder: Path, *words: object) -> dict[str, Any]:
    (folder / "bioassay.py").write_text(BIOASSAY)
    (folder / "bioassay.csv").write_text(TABLE)
    program, data = f"{folder / 'bioassay.py'}:model", folder / "bioassay.csv"
    code, out, err = zoo("compare", program, "--data", data, "--out", folder / "out", "--json", *words)
    assert code == 0, err
    return json.loads(out)


def test_the_command_takes_a_file_of_ones_own(zoo: Any, tmp_path: Path) -> None:
    chain = ("-o", "warmup=10", "-o", "draws=10", "-o", "chains=2", "-o", "max_tree_depth=3")
    said = bioassay(
        zoo, tmp_path, "--methods", "svi", "--truth", "nuts", "-o", "steps=5", "-o", "compile=never", *chain
    )
    assert said["exact"] is False
    assert "The reference is NUTS: 2 chain(s), 20 draws" in said["truth"]
    assert set(said["off"]) == {"alpha", "beta"}
    assert set(said["methods"]) == {"svi"}
    assert Path(said["page"]).exists()


@pytest.mark.slow
def test_the_bioassay_is_held_against_its_grid(zoo: Any, tmp_path: Path) -> None:
    said = bioassay(zoo, tmp_path)
    assert said["exact"] is True
    assert "(grid)" in said["truth"]
    found = said["methods"]
    assert set(found) == {"svi normal", "svi multivariate_normal", "nuts", "exact"}
    assert found["exact"]["kl_reverse"] == pytest.approx(0, abs=1e-3)
    # alpha and beta go together, which the full-rank Gaussian knows.
    assert 0 < found["svi multivariate_normal"]["kl_reverse"] < found["svi normal"]["kl_reverse"]
    assert found["nuts"]["mean_error"] < 0.15


@pytest.mark.slow
def test_eight_schools_has_its_worst_number_where_the_spread_is(zoo: Any, tmp_path: Path) -> None:
    code, out, err = zoo("compare", "eight-schools", "--out", tmp_path, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["exact"] is True
    assert set(said["off"]) == {"mu", "tau", *(f"eta[{i}]" for i in range(8))}
    assert said["methods"]["nuts"]["mean_error"] < 0.15
    assert 0 < said["methods"]["svi normal"]["kl_reverse"] < 1


def test_the_command_names_mistakes(zoo: Any, tmp_path: Path) -> None:
    for words, message in (
        (("coin", "--methods", "svy"), "Did you mean 'svi'"),
        (("coin", "--truth", "exat"), "Did you mean 'exact'"),
        (("coin", "-o", "stepz=3"), "Did you mean 'steps'"),
        (("cion",), "Did you mean 'coin'"),
    ):
        code, _, err = zoo("compare", *words, "--out", tmp_path / "out")
        assert code == 2, err
        assert message in err


def test_the_door_is_light() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compares'"):
        benchmarks.compares  # noqa: B018
