"""Numbers that papers print, each with how sure we are of it, and our results beside them.

A status is 'verified in ...' (seen there), 'reproduced here' (computed from the same files by us) or 'from memory': a
target to check before it is quoted, since the paper's own table could not be opened. All numbers are mean test negative
log-likelihoods in nats, an example or, for the chorales, a time step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.document import Cell, Column, Table, once
from benchmarks.report.summary import Row, Value
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

MADE = "Germain, Gregor, Murray and Larochelle (ICML 2015)"
NADE = "Larochelle and Murray (AISTATS 2011), as listed in the MADE paper"
EONADE = "Uria, Murray and Larochelle (ICML 2014)"
DARN = "Gregor et al. (ICML 2014), as listed in the MADE paper"
TREES = "Rahman, Kothalkar and Gogate (ECML 2014)"
CHORALES = "Boulanger-Lewandowski, Bengio and Vincent (ICML 2012)"
FILES = "computed from these files"

SPLIT = "the paper's training set of DNA is said to be 1,400 rows (600 for validation, from memory), ours has 1,600"
"""What differs for DNA in the tables that go back to Larochelle and Murray; the 1,186 test rows are as many."""


def _made(
    model: str, row: str, dna: float, mushrooms: float, status: str = MEMORY, paper: str = MADE
) -> list[Published]:
    return [
        Published(model, "dna", dna, status, paper, row, SPLIT),
        Published(model, "mushrooms", mushrooms, status, paper, row),
    ]


def _twenty(model: str, paper: str, row: str = "", status: str = MEMORY, **values: float) -> list[Published]:
    return [Published(model, dataset, value, status, paper, row) for dataset, value in values.items()]


def _chorales(model: str, value: float, row: str = "", status: str = MEMORY) -> Published:
    return Published(model, "jsb-frames" if row else "jsb", value, status, CHORALES, row)


PUBLISHED: tuple[Published, ...] = (
    *_made("MoBernoullis", "mixture of Bernoullis", 98.19, 14.46, paper=NADE),
    *_made("RBM", "", 96.74, 15.15, paper=NADE),
    *_made("FVSBN", "FVSBN", 83.64, 10.27, paper=NADE),
    *_made("NADE (fixed order)", "NADE", 84.81, 9.81, paper=NADE),
    *_made("EoNADE 1hl, 16 orders", "EoNADE", 82.31, 9.68, WIZWAND, EONADE),
    *_made("DARN", "", 81.04, 9.55, paper=DARN),
    *_made("MADE", "MADE", 83.63, 9.68),
    *_made("MADE, mask sampling", "MADE, mask sampling", 79.66, 9.69),
    *_twenty("independent Bernoulli", FILES, "independent", UNPUBLISHED, dna=100.39, mushrooms=34.23, nltcs=9.23,
             plants=31.27),
    *_twenty("Chow-Liu tree", TREES, "Chow-Liu", nltcs=6.76, plants=16.51, dna=87.70),
    *_twenty("Chow-Liu tree", FILES, "Chow-Liu", HERE, nltcs=6.76, plants=16.52, dna=87.66, mushrooms=20.96),
    *_twenty("LearnSPN", "Gens and Domingos (ICML 2013)", nltcs=6.11, plants=12.98, dna=82.52),
    *_twenty("ID-SPN", "Rooshenas and Lowd (ICML 2014)", nltcs=6.02, plants=12.54, dna=81.21),
    *_twenty("ACMN", "Lowd and Rooshenas (AISTATS 2013)", nltcs=6.00, plants=12.80, dna=80.03),
    *_twenty("mixture of trees", "Meila and Jordan (2000), as listed with ID-SPN", nltcs=6.01, plants=12.95, dna=85.14),
    *_twenty("Bayesian network (WinMine)", "as listed with ID-SPN", nltcs=6.02, plants=12.65),
    *_twenty("RAT-SPN", "Peharz et al. (UAI 2019)", nltcs=6.01, plants=13.44),
    *_twenty("EiNet", "Peharz et al. (ICML 2020)", nltcs=6.02, plants=13.68, dna=96.09),
    _chorales("note 1-gram (independent Bernoulli)", 11.06, "independent", HERE),
    _chorales("NADE", 7.19, "NADE"),
    _chorales("GMM + HMM", 11.90),
    _chorales("RBM", 7.43),
    _chorales("RNN", 8.71),
    _chorales("RTRBM", 6.35),
    _chorales("RNN-RBM", 6.27),
    _chorales("RNN-NADE (HF)", 5.56),
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A row of the suite beside one published number, or beside none. Numbers are nats, lower is better."""

    program: str
    dataset: str
    ours: float
    low: float
    high: float
    seeds: int
    how: str
    command: str
    published: Published | None = None

    @property
    def difference(self) -> float | None:
        """(ours - theirs) / theirs."""
        return None if self.published is None else self.ours / self.published.value - 1

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
        value = row.values.get("log_likelihood")
        if row.kind != "density" or value is None or value.median is None:
            continue
        matches: list[Published | None] = [p for p in PUBLISHED if (p.row, p.dataset) == (row.program, row.dataset)]
        found += [_comparison(row, value, published) for published in matches or [None]]
    order = list(dict.fromkeys(each.dataset for each in found))
    return sorted(found, key=lambda each: (order.index(each.dataset), each.ours))


def _comparison(row: Row, value: Value, published: Published | None) -> Comparison:
    assert value.median is not None
    unit = steps_per_example(row.dataset, row.split)
    ends = [value.median if end is None else end for end in (value.low, value.high)]
    select = f"{SUITE_NAME}/{row.program}/{row.method}/{row.dataset}"
    command = f'zoo bench {SUITE_NAME} --select "{select}" --out runs/{SUITE_NAME}'
    return Comparison(
        row.program, row.dataset, -value.median / unit, -ends[1] / unit, -ends[0] / unit, value.seeds, value.how,
        command, published,
    )  # fmt: skip


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
        spread = f" ({each.low:.2f} to {each.high:.2f})" if f"{each.low:.2f}" != f"{each.high:.2f}" else ""
        bound = "at most " if "lower bound" in each.how else ""
        row, p, difference = ["-"] * 5, each.published, each.difference
        if p is not None and difference is not None:
            row = [f"{p.value:.2f}", f"{100 * difference:+.2f} %", each.verdict, p.status, f"{p.model}, {p.paper}"]
        body.append([Cell(text) for text in (each.program, f"{bound}{each.ours:.2f}{spread}", *row)])
    return [Table(HEAD, body, "Beside published numbers")] if body else []


def remarks(found: Sequence[Comparison]) -> list[str]:
    """What must be said below the table of one data set: unit, differing splits, other published numbers."""
    lines = []
    for dataset in dict.fromkeys(each.dataset for each in found):
        if steps_per_example(dataset) != 1:
            lines.append("Per time step: the log-likelihood of all chorales over the number of their steps.")
        notes = once((p.note, each.program) for each in found if (p := each.published) is not None and p.note)
        lines += [f"Another split: {note} ({', '.join(dict.fromkeys(programs))})." for note, programs in notes]
        if others(dataset):
            listed = "; ".join(f"{p.model} {p.value:.2f} ({p.paper}; {p.status})" for p in others(dataset))
            lines.append(f"Also published, not run here: {listed}.")
    return lines


def commands(found: Sequence[Comparison]) -> list[str]:
    """How to make each row again."""
    return list(dict.fromkeys(f"{each.program}: `{each.command}`" for each in found))
