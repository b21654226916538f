"""The declared suites: distinct cells that name what exists, and the questions each asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import targets
from benchmarks.cells import anomalies as anomaly
from benchmarks.cells import captions, codes, completions, samples, tags, topics
from benchmarks.cells.samples import REAL_DATA
from benchmarks.report import published
from benchmarks.suites import SUITES, adversarial, get_suite, references, representation, translation
from benchmarks.suites import anomalies as anomaly_suite
from benchmarks.suites import published as published_suite
from benchmarks.targets import trained
from inference.fit import make_method
from zoo import catalogue, datasets
from zoo.datasets import base_name
from zoo.errors import OptionError, UnknownNameError

KINDS_WITH_YARDSTICKS = {
    "samples": samples, "completion": completions, "caption": captions, "tags": tags, "codes": codes, "topics": topics,
}  # fmt: skip


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_declared_cells_name_what_exists(suite: str) -> None:
    for cell in get_suite(suite).cells():
        options = {k: v for k, v in cell.method.options.items() if v != "categorical"}
        most = 0.1 if options.get("optimizer", "adam") == "adam" else 10.0  # others' steps are as small as the slope
        assert all(0 < rate <= most for name, rate in options.items() if name.endswith("lr"))
        if cell.kind in KINDS_WITH_YARDSTICKS and cell.program.name in KINDS_WITH_YARDSTICKS[cell.kind].YARDSTICKS:
            card = datasets.card(cell.dataset)
            assert card.splits["valid"] > 0
            assert cell.kind != "samples" or cell.program.name == REAL_DATA or card.context_kind == "image"
            continue
        if cell.method.method != "exact":
            make_method(cell.method.method, **options)
        if cell.kind == "posterior":
            assert cell.program.name in {*targets.TARGETS, *targets.REFERENCES, *trained.TRAINED}
        else:
            grey = {"faces among digits": [20, 20], "digits among faces": [20, 20]}
            anomalous = {"nines among digits": [8, 8], **grey}
            shape = anomalous.get(cell.dataset) or list(datasets.card(cell.dataset).shape)
            known = catalogue.get(cell.program.name).option_names()
            sized = {"event_shape": shape} if "event_shape" in known else {}
            built = catalogue.create(cell.program.name, **{**sized, **cell.program.options})
            assert make_method(cell.method.method, **options).why_not(built) is None


@pytest.mark.parametrize("name", sorted(SUITES))
def test_declared_suites_hold_distinct_cells(name: str) -> None:
    cells = get_suite(name).cells()
    assert len({cell.key for cell in cells}) == len(cells)


def test_the_adversarial_suite_asks_all_of_its_questions() -> None:
    cells = adversarial.SUITE.cells()
    images = {c.program.name for c in cells if base_name(c.dataset) == "mnist10k"}
    assert {"gan", "dcgan", "cgan", "infogan", "wgan", "wgan-gp", "sngan", "ali", "aae", "vae", "nade"} <= images
    assert REAL_DATA in images
    methods = {c.method.method for c in cells if c.kind == "posterior"}
    assert {"exact", "svi", "avb", "ali", "aae"} <= methods
    assert {c.program.name for c in cells if c.kind == "posterior"} == {"ppca-digits", "banana", "two-modes"}
    for data, names in (("ring", {"gan", "wgan-gp", "sngan"}), ("stacked-digits", {"gan", "dcgan", "wgan-gp"})):
        assert {c.program.name for c in cells if c.dataset == data} == {*names, REAL_DATA}
    assert datasets.card(adversarial.LETTERS).splits["valid"] >= adversarial.AS_MANY["samples"]
    assert {c.seed for c in cells if c.program.name != REAL_DATA} == {0, 1, 2}
    # All cells of a table are judged by as many samples.
    sizes = {(base_name(c.dataset), c.evaluation.get("samples")) for c in cells if c.kind == "samples"}
    assert len(sizes) == len({data for data, _ in sizes})
    grown = {c.program.name for c in cells if c.dataset == adversarial.LETTERS}
    assert grown == {REAL_DATA, "progan", "dcgan"}
    assert datasets.card("mnist10k").splits["test"] == datasets.card("mnist10k").splits["valid"] == 1000


def test_every_face_is_reached_with_pairs_and_without_and_beside_what_costs_nothing() -> None:
    cells = translation.SUITE.cells()
    for data in translation.TARGETS:
        rows = {(c.program.name, c.method.options.get("adversarial", 1.0)) for c in cells if c.dataset == data}
        assert rows == {("copying", 1.0), ("nearest-pair", 1.0), ("pix2pix", 1.0), ("pix2pix", 0.0)}
        assert {c.program.name for c in cells if c.dataset == f"{data}-unpaired"} == {"cyclegan"}
    asked = {(c.kind, c.program.name) for c in cells if c.kind != "samples"}
    for kind, name in (("completion", "puzzle-gan"), ("caption", "text2image"), ("tags", "tag-gan")):
        assert {n for k, n in asked if k == kind} == {name, *KINDS_WITH_YARDSTICKS[kind].YARDSTICKS}


def test_the_published_suite_has_the_rows_it_promises():
    assert get_suite(published.SUITE_NAME) is published_suite.SUITE
    every = {(cell.program.title, cell.dataset) for cell in published_suite.SUITE.cells()}
    for data in ("dna", "mushrooms"):
        wanted = {"independent", "mixture of Bernoullis", "Chow-Liu", "FVSBN", "NADE", "EoNADE", "MADE"}
        assert {label for label, name in every if name == data} == wanted | {"MADE, mask sampling", "RBM"}
    assert {cell.seed for cell in published_suite.SUITE.cells()} == {0, 1, 2}


def test_topics_are_compared_under_the_same_priors_and_rounds() -> None:
    cells = get_suite("topics").cells(seeds=1)
    ours = [c for c in cells if c.program.name == "lda"]
    assert {c.method.options["iterations"] for c in ours} == {topics.SKLEARN["iterations"]}
    assert {c.program.options["topics"] for c in ours} == {topics.SKLEARN["topics"]}
    program = catalogue.create("lda", event_shape=[5], **ours[0].program.options)
    assert bool((program.prior_words == topics.SKLEARN["sparsity"]).all())
    assert bool((program.prior_mixing == 1 / topics.SKLEARN["topics"]).all())


def test_every_cell_of_anomalies_names_a_problem_and_a_program() -> None:
    for cell in anomaly_suite.SUITE.cells():
        assert cell.dataset in anomaly.PROBLEMS
        catalogue.get(cell.program.name)


OWN = """
from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite

GRID = Grid("density", (ProgramSpec("coin"),), (MethodSpec("exact", "exact"),), ("log_likelihood",), ("coin",), seeds=1)
SUITE = Suite("mine", "My coins", "Which method knows my coin?", (GRID,))
OURS = Suite("main", "Mine as well", "", (GRID,))
NUMBER = 3
"""


def test_a_suite_of_ones_own_is_found_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    found = get_suite(f"{path}:SUITE")
    assert (found.name, found.title, found.source) == ("mine", "My coins", f"{path}:SUITE")
    assert get_suite(str(path)) == found
    with pytest.raises(OptionError, match="has no 'MINE'"):
        get_suite(f"{path}:MINE")
    with pytest.raises(OptionError, match="has a int as 'NUMBER'"):
        get_suite(f"{path}:NUMBER")
    with pytest.raises(OptionError, match="is called 'main', as one of the project's own; rename it"):
        get_suite(f"{path}:OURS")
    with pytest.raises(UnknownNameError, match="no file"):
        get_suite(f"{tmp_path}/other.py:SUITE")
    path.write_text("1 / 0")
    with pytest.raises(UnknownNameError, match="Did you mean 'posterior'"):
        get_suite("posteriors")
    with pytest.raises(OptionError, match="suite"):
        get_suite(3)  # type: ignore[arg-type]


def test_a_suite_of_another_package_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"zoo.suites": {"ours-too": "benchmarks.suites.aevb:SUITE"}}
    monkeypatch.setattr("benchmarks.suites.plugins", found.__getitem__)
    with pytest.raises(OptionError, match="is called 'aevb'"):
        get_suite("ours-too")
    monkeypatch.setattr("benchmarks.suites.aevb.SUITE", replace(get_suite("aevb"), name="ours-too"))
    assert get_suite("ours-too").source == "benchmarks.suites.aevb:SUITE"


def test_codes_of_every_kind_are_asked_beside_the_numbers_themselves() -> None:
    cells = representation.SUITE.cells()
    rows: dict[str, set[str]] = {}
    for cell in cells:
        rows.setdefault(base_name(cell.dataset), set()).add(cell.program.name)
    assert rows["mnist10k"] == {
        "raw-numbers", "pca", "ppca", "bernoulli-mixture", "hmm", "vae", "hvae", "restoring-vae", "cvae",
        "semi-supervised-vae", "aae", "ali", "infogan", "rbm", "dbm", "nade", "dequantised-flow",
    }  # fmt: skip
    assert {"raw-numbers", "pca"} <= rows["digits"] & rows["glyphs"]
    assert {"factors", "noise"} <= rows["glyphs"]
    assert all(("mig" in cell.metrics) == (cell.dataset == "glyphs") for cell in cells)
    assert {cell.seed for cell in cells} == {0, 1, 2}
    labels = [(base_name(c.dataset), c.program.title, c.seed) for c in cells]
    assert len(set(labels)) == len(labels), "rows of one table have names of their own"


def test_every_posterior_of_posteriordb_is_given_to_every_method() -> None:
    cells = get_suite("references").cells(seeds=1)
    methods = {"other chains", "SVI, mean-field", "SVI, low rank", "SVI, full rank", "SVI, flow", "NUTS", "Laplace"}
    methods |= {"Pathfinder", "SVGD", "SMC"}
    asked = {(cell.program.name, cell.method.label) for cell in cells}
    flat = {(f"posteriordb/{name}", "SMC") for name in references.FLAT}  # whose prior cannot be drawn from
    assert asked == {(name, method) for name in targets.REFERENCES for method in methods} - flat
