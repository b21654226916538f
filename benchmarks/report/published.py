"""Numbers that papers print, each with how sure we are of it, and our results beside them.

A status is 'verified in ...' (seen there), 'reproduced here' (computed from the same files by us) or 'from memory': a
target to check before it is quoted, since the paper's own table could not be opened. All numbers are mean test negative
log-likelihoods in nats, an example or, for the chorales, a time step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.document import Cell, Column, Table, once
from benchmarks.report.summary import Row
from benchmarks.results import Record
from benchmarks.suites.published import SUITE_NAME
from zoo import datasets

__all__ = [
    "PUBLISHED", "TOLERANCE", "Comparison", "Published", "commands", "compare", "others", "remarks",
    "steps_per_example", "tables",
]  # fmt: skip

TOLERANCE = 0.01
"""Relative difference up to which a number counts as reproduced."""


@dataclass(frozen=True)
class Published:
    """One number of one paper. `row` is the program of the suite that it is compared with, or '' for none of them."""

    model: str
    dataset: str
    value: float
    status: str
    paper: str
    row: str = ""
    note: str = ""


MEMORY = "from memory"
HERE = "reproduced here"
UNPUBLISHED = "reproduced here (not published)"
WIZWAND = (
    'verified in the benchmark list for "A Deep and Tractable Density Estimator" at wizwand.com (best result of that '
    "paper)"
)

DMM_TUTORIAL = "verified in Pyro's tutorial on the DMM (pyro-ppl/pyro, tutorial/source/dmm.ipynb)"

MADE = "Germain, Gregor, Murray and Larochelle (ICML 2015)"
NADE = "Larochelle and Murray (AISTATS 2011), as listed in the MADE paper"
EONADE = "Uria, Murray and Larochelle (ICML 2014)"
DARN = "Gregor et al. (ICML 2014), as listed in the MADE paper"
TREES = "Rahman, Kothalkar and Gogate (ECML 2014)"
CHORALES = "Boulanger-Lewandowski, Bengio and Vincent (ICML 2012)"
DMM = "Krishnan, Shalit and Sontag (AAAI 2017)"
PYRO = "Pyro's tutorial on the DMM"
FILES = "computed from these files"

SPLIT = "the paper's training set of DNA is said to be 1,400 rows (600 for validation, from memory), ours has 1,600"
"""What differs for DNA in the tables that go back to Larochelle and Murray; the 1,186 test rows are as many."""


def _of(model: str, paper: str, row: str = "", status: str = MEMORY, **values: float) -> list[Published]:
    """The numbers of one model in one paper, by data set ('_' for '-')."""
    split = SPLIT if paper in (MADE, NADE, EONADE, DARN) else ""
    return [
        Published(
            model, name.replace("_", "-"), value, status=status, paper=paper, row=row, note=split * (name == "dna")
        )
        for name, value in values.items()
    ]


PUBLISHED: tuple[Published, ...] = (
    *_of("MoBernoullis", NADE, "mixture of Bernoullis", dna=98.19, mushrooms=14.46),
    *_of("RBM", NADE, dna=96.74, mushrooms=15.15),
    *_of("FVSBN", NADE, "FVSBN", dna=83.64, mushrooms=10.27),
    *_of("NADE (fixed order)", NADE, "NADE", dna=84.81, mushrooms=9.81),
    *_of("EoNADE 1hl, 16 orders", EONADE, "EoNADE", WIZWAND, dna=82.31, mushrooms=9.68),
    *_of("DARN", DARN, dna=81.04, mushrooms=9.55),
    *_of("MADE", MADE, "MADE", dna=83.63, mushrooms=9.68),
    *_of("MADE, mask sampling", MADE, "MADE, mask sampling", dna=79.66, mushrooms=9.69),
    *_of("independent Bernoulli", FILES, "independent", UNPUBLISHED, dna=100.39, mushrooms=34.23, nltcs=9.23,
             plants=31.27),
    *_of("Chow-Liu tree", TREES, "Chow-Liu", nltcs=6.76, plants=16.51, dna=87.70),
    *_of("Chow-Liu tree", FILES, "Chow-Liu", HERE, nltcs=6.76, plants=16.52, dna=87.66, mushrooms=20.96),
    *_of("LearnSPN", "Gens and Domingos (ICML 2013)", nltcs=6.11, plants=12.98, dna=82.52),
    *_of("ID-SPN", "Rooshenas and Lowd (ICML 2014)", nltcs=6.02, plants=12.54, dna=81.21),
    *_of("ACMN", "Lowd and Rooshenas (AISTATS 2013)", nltcs=6.00, plants=12.80, dna=80.03),
    *_of("mixture of trees", "Meila and Jordan (2000), as listed with ID-SPN", nltcs=6.01, plants=12.95, dna=85.14),
    *_of("Bayesian network (WinMine)", "as listed with ID-SPN", nltcs=6.02, plants=12.65),
    *_of("RAT-SPN", "Peharz et al. (UAI 2019)", nltcs=6.01, plants=13.44),
    *_of("EiNet", "Peharz et al. (ICML 2020)", nltcs=6.02, plants=13.68, dna=96.09),
    *_of("note 1-gram (independent Bernoulli)", CHORALES, "independent", HERE, jsb_frames=11.06),
    *_of("NADE", CHORALES, "NADE", jsb_frames=7.19),
    *_of("GMM + HMM", CHORALES, jsb=11.90),
    *_of("RBM", CHORALES, jsb=7.43),
    *_of("RNN", CHORALES, jsb=8.71),
    *_of("RTRBM", CHORALES, jsb=6.35),
    *_of("RNN-RBM", CHORALES, jsb=6.27),
    *_of("RNN-NADE (HF)", CHORALES, jsb=5.56),
    *_of("DMM, bound", DMM, "DMM", DMM_TUTORIAL, jsb=6.93),
    *_of("DMM, importance sampling", DMM, jsb=6.388),
    *_of("DMM, bound", PYRO, "DMM", DMM_TUTORIAL, jsb=6.87),
    *_of("DMM with 1 IAF, bound", PYRO, status=DMM_TUTORIAL, jsb=6.82),
    *_of("DMM with 2 IAFs, bound", PYRO, status=DMM_TUTORIAL, jsb=6.80),
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A row of the suite beside one published number, or beside none."""

    row: Row
    published: Published | None = None

    @property
    def nats(self) -> tuple[float, float, float]:
        """Our negative log-likelihood in the published unit: median over seeds, least and largest; lower is better."""
        value, unit = self.row.values["log_likelihood"], steps_per_example(self.row.dataset, self.row.split)
        assert value.median is not None
        high, low = (value.median if end is None else end for end in (value.low, value.high))
        return -value.median / unit, -low / unit, -high / unit

    @property
    def command(self) -> str:
        """What makes the row again."""
        select = f"{SUITE_NAME}/{self.row.program}/{self.row.method}/{self.row.dataset}"
        return f'zoo bench {SUITE_NAME} --select "{select}" --out runs/{SUITE_NAME}'

    @property
    def difference(self) -> float | None:
        """(ours - theirs) / theirs."""
        return None if self.published is None else self.nats[0] / self.published.value - 1

    @property
    def verdict(self) -> str:
        """Within 1 %: 'yes', 'no', or 'better' where we are below it; '' beside nothing."""
        if self.difference is None:
            return ""
        if abs(self.difference) <= TOLERANCE:
            return "yes"
        return "better" if self.difference < 0 else "no"


def steps_per_example(dataset: str, split: str = "test") -> float:
    """What the mean over examples is divided by to be in the published unit: the mean length of a chorale, else 1."""
    if dataset != "jsb":
        return 1.0
    return datasets.card("jsb-frames").splits[split] / datasets.card("jsb").splits[split]


def compare(records: Sequence[Record], rows: Sequence[Row]) -> list[Comparison]:
    """Our rows beside the published numbers, by data set, best first; nothing for other suites.

    Args:
        records: Of a results folder.
        rows: Their summary.
    """
    if all(record["suite"] != SUITE_NAME for record in records):
        return []
    found = []
    for row in rows:
        if row.kind == "density" and row.median("log_likelihood") is not None:
            matches: list[Published | None] = [p for p in PUBLISHED if (p.row, p.dataset) == (row.program, row.dataset)]
            found += [Comparison(row, published) for published in matches or [None]]
    order = list(dict.fromkeys(each.row.dataset for each in found))
    return sorted(found, key=lambda each: (order.index(each.row.dataset), each.nats[0]))


def others(dataset: str) -> list[Published]:
    """Numbers on a data set that no program of the suite stands for."""
    return [p for p in PUBLISHED if p.dataset == dataset and not p.row]


HEAD = (
    Column("program", number=False), Column("ours, NLL in nats"), Column("published"), Column("difference"),
    Column("within 1 %", number=False), Column("status", brief=False, number=False),
    Column("source", brief=False, number=False),
)  # fmt: skip


def tables(found: Sequence[Comparison]) -> list[Table]:
    """The comparisons of one data set, if there are any."""
    body = []
    for each in found:
        ours, low, high = (f"{nats:.2f}" for nats in each.nats)
        bound = "at most " if "lower bound" in each.row.values["log_likelihood"].how else ""
        ours = f"{bound}{ours}" + (f" ({low} to {high})" if low != high else "")
        row, p, difference = ["-"] * 5, each.published, each.difference
        if p is not None and difference is not None:
            row = [f"{p.value:.2f}", f"{100 * difference:+.2f} %", each.verdict, p.status, f"{p.model}, {p.paper}"]
        body.append([Cell(text) for text in (each.row.program, ours, *row)])
    return [Table(HEAD, body, "Beside published numbers")] if body else []


def remarks(found: Sequence[Comparison]) -> list[str]:
    """What must be said below the table of one data set: unit, differing splits, other published numbers."""
    lines = []
    for dataset in dict.fromkeys(each.row.dataset for each in found):
        if steps_per_example(dataset) != 1:
            lines.append("Per time step: the log-likelihood of all chorales over the number of their steps.")
        notes = once((p.note, each.row.program) for each in found if (p := each.published) is not None and p.note)
        lines += [f"Another split: {note} ({', '.join(dict.fromkeys(programs))})." for note, programs in notes]
        if others(dataset):
            listed = "; ".join(f"{p.model} {p.value:.2f} ({p.paper}; {p.status})" for p in others(dataset))
            lines.append(f"Also published, not run here: {listed}.")
    return lines


def commands(found: Sequence[Comparison]) -> list[str]:
    """How to make each row again."""
    return list(dict.fromkeys(f"{each.row.program}: `{each.command}`" for each in found))
