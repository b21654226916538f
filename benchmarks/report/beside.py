"""The report of a comparison: a table of the methods, then pictures, each with a sentence that says what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import torch

from benchmarks.cells.beside import Beside, bounds_of, chains_of
from benchmarks.cells.coordinates import Columns, worst_pairs
from benchmarks.cells.truths import Yardstick
from benchmarks.metrics import METRICS, Measurement
from benchmarks.report import comparison as draw
from benchmarks.report.document import Cell, Column, Details, Picture, Report, Section, Table, once
from benchmarks.report.summary import Value, cell_text
from benchmarks.suite import file_name
from benchmarks.targets import Target
from inference.chains import ess, rhat

__all__ = ["Differences", "build"]

Array = np.ndarray[Any, Any]

SHOWN = 6
"""Numbers of the posterior that are shown, the worst."""
NOISE = 3.0
"""Two sets of n and m independent draws are hardly further apart than this many (1/n + 1/m)^1/2 of an sd."""
METHOD = Column("method", number=False)
BRIEF = ("elbo", "kl_reverse", "kl_forward", "mean_error", "sd_error", "marginal_error", "k_hat", "seconds")
RANKS = 20


@dataclass(frozen=True)
class Differences:
    """How far every method is off in every number, in the order of `names`."""

    names: tuple[str, ...]
    truth: Columns
    columns: tuple[Columns, ...]
    """Of each method."""
    off: Array
    """(methods, D), see `benchmarks.cells.coordinates.distances`."""
    counted: tuple[int, ...]
    """The methods that say which numbers are worst: not the exact one, nor the reference, if there are others."""

    @classmethod
    def of(cls, rows: Sequence[Beside], yardstick: Yardstick) -> Differences:
        """Of the sites that the truth and all methods have."""
        common = [s for s in yardstick.draws if all(s in row.answer.draws for row in rows)]
        discrete = {site for row in rows for site in row.answer.discrete}
        columns = tuple(row.columns(common) for row in rows)
        counted = tuple(i for i, row in enumerate(rows) if not (row.is_exact or row.is_reference))
        off = np.stack([row.off(common) for row in rows])
        true = Columns.of(yardstick.draws, common, discrete)
        return cls(true.names, true, columns, off=off, counted=counted or tuple(range(len(rows))))

    @property
    def worst(self) -> list[int]:
        """Numbers, the one in which any counted method is furthest off first."""
        return [int(i) for i in np.argsort(-self.most, kind="stable")]

    @property
    def most(self) -> Array:
        """How far off the worst counted method is, (D,)."""
        found: Array = self.off[list(self.counted)].max(0)
        return found

    def culprit(self, number: int) -> int:
        """The counted method that is furthest off in a number."""
        return max(self.counted, key=lambda i: self.off[i, number])


def build(
    title: str, rows: Sequence[Beside], yardstick: Yardstick, notes: Sequence[str], failures: Sequence[str]
) -> Report:
    """The report.

    Args:
        title: Program and data.
        rows: The methods.
        yardstick: What they are held against.
        notes: What else must be known of program and data.
        failures: Methods that came to nothing, and why.
    """
    sections = [
        Section("What the methods are held against", [yardstick.sentence, *notes]),
        _methods(rows, failures),
        _differences(rows, Differences.of(rows, yardstick)),
        _bounds(rows, yardstick),
        _gaps(rows),
        _chains(rows, yardstick),
        _predictions(rows),
    ]
    known = "the exact posterior" if yardstick.is_exact else "the reference"
    question = f"How near is each of {len(rows)} methods to {known}, and where is it wrong?"
    shown = [section for section in sections if section is not None]
    return Report(title, question, yardstick.sentence, sections=shown)


def _labels(rows: Sequence[Beside]) -> list[str]:
    return [row.label for row in rows]


def _text(m: Measurement | None) -> Cell:
    if m is None:
        return Cell("")
    value = Value(m.value, m.value, m.value, standard_error=m.standard_error, seeds=1, how=m.how)
    return Cell(cell_text(m.metric, value), m.how, cell_text(m.metric, value, spread=False))


def _methods(rows: Sequence[Beside], failures: Sequence[str]) -> Section:
    by_name = [{m.metric: m for m in row.measured} for row in rows]
    metrics = [m for m in METRICS if any(m in found and found[m].value is not None for found in by_name)]
    columns = [METHOD, *(Column(METRICS[m].title, METRICS[m].meaning, m in BRIEF) for m in metrics)]
    body = [
        [Cell(row.label), *(_text(found.get(m)) for m in metrics)] for row, found in zip(rows, by_name, strict=True)
    ]
    warnings = [f"{row.label}: {row.fit.info['warning']}" for row in rows if row.fit.info.get("warning")]
    unfinished = [
        f"{row.label}: its bound still rose when the fit ended, so more steps would bring it nearer."
        for row, found in zip(rows, by_name, strict=True)
        if "under_way" in found and found["under_way"].value
    ]
    how = once(((METRICS[m].title, found[m].how), row.label)
               for row, found in zip(rows, by_name, strict=True) for m in metrics
               if m in found and found[m].how)  # fmt: skip
    budgets = [
        f"{row.label}: {', '.join(f'{k}={v}' for k, v in row.cell.method.options.items()) or 'defaults'}"
        for row in rows
    ]
    return Section(
        "Methods", (), (Table(columns, body),), remarks=[*failures, *warnings, *unfinished],
        details=(
            Details("Options of each method", budgets),
            Details("How each number was measured", [f"{what}: {way} ({', '.join(who)})" for (what, way), who in how]),
        ),
    )  # fmt: skip


def _differences(rows: Sequence[Beside], found: Differences) -> Section | None:
    if not found.names:
        return None
    worst = found.worst[:SHOWN]
    columns = [
        Column("number", "of the posterior; the first index of a local latent is the example", number=False),
        Column("truth", "mean ± sd of the reference"),
        *(Column(row.label, "mean ± sd, and how far off in true sds (discrete: total variation)") for row in rows),
    ]
    body = [
        [
            Cell(found.names[i]),
            Cell(_moments(found.truth.values[:, i])),
            *(
                Cell(f"{_moments(each.values[:, i])} ({found.off[k, i]:.2f})", brief=f"{found.off[k, i]:.2f}")
                for k, each in enumerate(found.columns)
            ),
        ]
        for i in worst
    ]
    first = worst[0]
    who, far = rows[found.culprit(first)].label, found.most[first]
    unit = "of probability in another place" if found.truth.discrete[first] else "true standard deviations off"
    verdict = f"The worst is {found.names[first]}, where {who} is {far:.2f} {unit}"
    noise = NOISE * (1 / len(found.truth.values) + 1 / min(len(each.values) for each in found.columns)) ** 0.5
    verdict += "." if far > noise else ", which is the noise of so many draws."
    return Section(
        "Where they differ", (), (Table(columns, body),),
        pictures=[_marginals(rows, found, worst, verdict), *_pairs(rows, found)],
    )  # fmt: skip


def _moments(values: Array) -> str:
    return f"{values.mean():.3g} ± {values.std():.2g}"


def _marginals(rows: Sequence[Beside], found: Differences, worst: Sequence[int], verdict: str) -> Picture:
    panels = [
        (
            f"{found.names[i]}: off by {found.most[i]:.2f}",
            bool(found.truth.discrete[i]),
            found.truth.values[:, i],
            [(row.label, each.values[:, i]) for row, each in zip(rows, found.columns, strict=True)],
        )
        for i in worst
    ]
    caption = (
        f"Marginals of the {len(worst)} of {len(found.names)} numbers that some method gets most wrong: the truth is "
        f"filled grey, each method a line. {verdict}"
    )
    return Picture("marginals", caption, draw.marginals_picture(panels))


def _pairs(rows: Sequence[Beside], found: Differences) -> list[Picture]:
    pairs = worst_pairs([found.columns[i] for i in found.counted], found.truth, found.most)
    if not pairs:
        return []
    names = [(found.names[i], found.names[j]) for i, j in pairs]
    truth = [found.truth.values[:, list(pair)] for pair in pairs]
    answers = [
        (row.label, [each.values[:, list(pair)] for pair in pairs])
        for row, each in zip(rows, found.columns, strict=True)
    ]
    true, theirs = _correlation(truth), [_correlation(values) for _, values in answers]
    k, m = max(
        ((k, m) for k in range(len(pairs)) for m in found.counted),
        key=lambda at: abs(theirs[at[1]][at[0]] - true[at[0]]),
    )
    caption = (
        "Pairs of numbers, the worst ones and not the first: the truth filled grey, each method by marks and contours. "
        f"The correlation of {' and '.join(names[k])} is {true[k]:.2f} in the truth and {theirs[m][k]:.2f} by "
        f"{rows[m].label}."
    )
    return [Picture("pairs", caption, draw.pairs_picture(names, truth, answers))]


def _correlation(pairs: Sequence[Array]) -> list[float]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return [float(np.nan_to_num(np.corrcoef(values, rowvar=False)[0, 1])) for values in pairs]


def _bounds(rows: Sequence[Beside], yardstick: Yardstick) -> Section | None:
    found = [(i, row.label, *curve) for i, row in enumerate(rows) if (curve := bounds_of(row)) is not None]
    if not found:
        return None
    level = None
    seen = [rows[i].fit.train for i, *_ in found]
    same = all(train is None or train.size == yardstick.truth.data.size for train in seen)
    if isinstance(yardstick.truth, Target) and same:
        level = float(yardstick.truth.log_evidence.sum()) / yardstick.truth.data.size
    ends = [float(bound[-max(1, len(bound) // 10) :].mean()) for *_, bound in found]
    place = int(np.argmax(ends))
    caption = f"The bound that each fit climbed; {found[place][1]} ends highest, at {ends[place]:.3f} nats per example"
    caption += " (the last tenth)."
    caption += (
        "" if level is None else f" The black line is log p(x), {level:.3f}, which no bound exceeds but by noise."
    )
    picture = Picture("bounds", caption, draw.curves_picture(found, level))
    return Section("How the fits went", pictures=[picture])


def _gaps(rows: Sequence[Beside]) -> Section | None:
    found = [(row.label, row.gap) for row in rows if row.gap]
    why = once((row.gap_note, row.label) for row in rows if row.gap_note and not row.is_exact)
    notes = [f"No gap to split of {', '.join(who)}: {said.rstrip('.')}." for said, who in why]
    if not found:
        return None if not notes else Section("The gap in three parts", notes)
    label, parts = max(found, key=lambda each: each[1]["total"][0])
    main = max(("approximation", "amortisation", "optimisation"), key=lambda part: parts[part][0])
    cure = {
        "approximation": "its family cannot express the posterior: take a richer guide",
        "amortisation": "its encoder could do better for each example: enlarge it, or train longer",
        "optimisation": "the fit has not arrived: take more steps",
    }[main]
    caption = (
        f"log p(x) less the ELBO, split. The largest gap is that of {label}, {parts['total'][0]:.3f} nats, most of it "
        f"{main} ({parts[main][0]:.3f}): {cure}."
    )
    names = ("total", "approximation", "amortisation", "optimisation", "settling")
    meanings = {"settling": "what the search for the family's best still gained in its last quarter"}
    table = Table(
        [METHOD, *(Column(name, meanings.get(name, "nats per unit")) for name in names)],
        [[Cell(who), *(Cell(f"{gap[n][0]:.3f} ± {gap[n][1]:.3f}") for n in names)] for who, gap in found],
    )
    picture = Picture("gaps", caption, draw.gaps_picture(found))
    return Section("The gap in three parts", (), (table,), remarks=notes, pictures=[picture])


def _chains(rows: Sequence[Beside], yardstick: Yardstick) -> Section | None:
    found = [(row, list(chains_of(row, list(yardstick.draws)))) for row in rows]
    found = [(row, chains) for row, chains in found if chains]
    if not found:
        return None
    body, pictures = [], []
    for row, chains in found:
        worst, draws = chains[0]
        r_hat, size = float(rhat(draws)), min(float(ess(values)) for _, values in chains[:SHOWN])
        body.append([
            Cell(row.label), Cell(f"{r_hat:.3f}"), Cell(f"{size:.0f}"), Cell(str(row.fit.info.get("divergences", "")))
        ])  # fmt: skip
        few = [(name, values.numpy()) for name, values in chains[:3]]
        slug = file_name(row.label.replace(" ", "-"))
        agrees = "the chains agree" if r_hat <= 1.01 else "the chains do not agree: run them longer"
        caption = f"{row.label}: the draws of each chain in their order, of the numbers with the largest R-hat; "
        caption += f"of {worst} it is {r_hat:.3f}, so {agrees}."
        pictures.append(Picture(f"traces-{slug}", caption, draw.traces_picture(few)))
        ranks = [_ranks(name, values) for name, values in few]
        name, counts, expected = max(ranks, key=lambda each: np.abs(each[1] - each[2]).max())
        caption = f"{row.label}: ranks of each chain's draws among all, uniform (black) where chains agree and forget. "
        caption += f"The most uneven bin is of {name}: {_furthest(counts, expected)} draws where {expected:.0f} belong."
        pictures.append(Picture(f"ranks-{slug}", caption, draw.ranks_picture(ranks)))
    columns = [
        METHOD, Column("R-hat", "the largest of any number; near 1 if the chains agree"),
        Column("ESS", f"effective draws, the least of the {SHOWN} numbers with the largest R-hat"),
        Column("diverged", "draws"),
    ]  # fmt: skip
    return Section("Chains", (), (Table(columns, body),), pictures=pictures)


def _ranks(name: str, values: Array) -> tuple[str, Array, float]:
    chains, n = values.shape
    ranks = scipy.stats.rankdata(values.reshape(-1), method="ordinal").reshape(chains, n) - 1
    counts = torch.as_tensor(ranks * RANKS // (chains * n)).long()
    return name, np.stack([torch.bincount(row, minlength=RANKS).numpy() for row in counts]), n / RANKS


def _furthest(counts: Array, expected: float) -> int:
    flat = counts.ravel()
    return int(flat[np.abs(flat - expected).argmax()])


def _predictions(rows: Sequence[Beside]) -> Section | None:
    places = [i for i, row in enumerate(rows) if row.checks]
    able = [rows[i] for i in places]
    names = [
        name
        for name in (able[0].checks if able else ())
        # What is the same in all data that can be, the largest of many tosses of a coin, says nothing.
        if all(name in row.checks and row.checks[name].replicated.std() > 0 for row in able)
    ]
    if not names:
        return None
    table = Table(
        [METHOD, *(Column(name, "share of data sets the fit generates whose value is above that of the data")
                   for name in names)],
        [[Cell(row.label), *(Cell(f"{row.checks[n].p_value:.2f}") for n in names)] for row in able],
    )  # fmt: skip
    shown = [
        (
            name,
            able[0].checks[name].observed,
            [(i, rows[i].label, rows[i].checks[name].replicated.numpy()) for i in places],
        )
        for name in names
    ]
    extreme = min(((row, name) for row in able for name in names), key=lambda at: _tail(at[0].checks[at[1]].p_value))
    p = extreme[0].checks[extreme[1]].p_value
    caption = "Statistics of data that each fit generates again (lines) and of the data (black). "
    if _tail(p) < 0.025:
        caption += f"The model does not make data like these: by {extreme[0].label}, p = {p:.2f} for {extreme[1]}."
    else:
        caption += f"No p-value is extreme; the furthest is {p:.2f}, {extreme[1]} by {extreme[0].label}."
    return Section(
        "Predictions", (), (table,), pictures=[Picture("predictions", caption, draw.predictions_picture(shown))]
    )


def _tail(p: float) -> float:
    return min(p, 1 - p)
