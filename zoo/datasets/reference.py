"""Reference posteriors of posteriordb: ten long NUTS chains each, for problems whose posterior has no closed form.

Source: Magnusson et al., posteriordb, github.com/stan-dev/posteriordb.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.datasets import originals
from zoo.datasets.data import File
from zoo.datasets.sources import fetch, local
from zoo.errors import UnknownNameError

__all__ = ["POSTERIORS", "ReferencePosterior", "observed", "reference_posterior"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ReferencePosterior:
    """Draws from a posterior that stand for the truth, up to the Monte Carlo error of 10,000 draws."""

    name: str
    data: Mapping[str, Any]
    """What was observed, by Stan's names: numbers and arrays."""
    parameters: tuple[str, ...]
    """Scalar parameters by Stan's names, 'theta[1]' say (counted from one)."""
    draws: Mapping[str, Array]
    """Parameter -> (chains, draws)."""
    mean: Mapping[str, float]
    sd: Mapping[str, float]
    """Standard deviation with divisor n - 1."""


@dataclass(frozen=True)
class Source:
    """Where a reference posterior is read from."""

    name: str
    """posteriordb's name, DATA-MODEL."""
    files: tuple[File, File, File]
    """The conversion, then posteriordb's data and draws."""


def reference_posterior(name: str) -> ReferencePosterior:
    """A reference posterior, by the name of its data set ('eight_schools') or by posteriordb's ('arK-arK').

    Raises: UnknownNameError, DatasetError.
    """
    source = _source(name)
    compact, data, draws = source.files
    path = local(compact)
    if path is not None:
        found = json.loads(path.read_text())
        chains = {key: np.reshape(values, (found["chains"], -1)) for key, values in found["reference_draws"].items()}
        mean, sd = found["reference_mean"], found["reference_sd"]
    else:
        observations, by_chain = map(originals.zipped_json, fetch([data, draws], compact))
        found = {"data": observations}
        chains = {key: np.array([chain[key] for chain in by_chain]) for key in by_chain[0]}
        mean = {key: float(values.mean()) for key, values in chains.items()}
        sd = {key: float(values.std(ddof=1)) for key, values in chains.items()}
    return ReferencePosterior(
        source.name, data=_arrays(found["data"]), parameters=tuple(chains), draws=chains, mean=mean, sd=sd
    )


def observed(name: str) -> dict[str, Any]:
    """Only the data of a reference posterior.

    Raises: UnknownNameError, DatasetError.
    """
    compact, data, _ = _source(name).files
    path = local(compact)
    return _arrays(json.loads(path.read_text())["data"] if path else originals.zipped_json(*fetch([data], compact)))


def _source(name: str) -> Source:
    for short, source in POSTERIORS.items():
        if name in (short, source.name):
            return source
    raise UnknownNameError("reference posterior", name, POSTERIORS)


def _arrays(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: np.array(value) if isinstance(value, list) else value for key, value in data.items()}


def _posterior(name: str, compact: str, data: str, draws: str) -> Source:
    short = name.split("-")[0]
    # The address names a commit, so that what it gives cannot change.
    commit = "28f8d3d6e975315f42aa274a8399f21e07a43b30"
    base = f"https://raw.githubusercontent.com/stan-dev/posteriordb/{commit}/posterior_database"
    data_url = f"{base}/data/data/{short}.json.zip"
    draws_url = f"{base}/reference_posteriors/draws/draws/{name}.json.zip"
    files = (
        File(f"posteriordb/{name}.json", compact),
        File(f"posteriordb/data/{short}.json.zip", data, (data_url,)),
        File(f"posteriordb/draws/{name}.json.zip", draws, (draws_url,)),
    )
    return Source(name, files)


POSTERIORS: dict[str, Source] = {
    "eight_schools": _posterior(
        "eight_schools-eight_schools_noncentered",
        "310276fd98ca4b07e8ddba3bc85aea58786ca18b8dd47a8238479bd3e3d3197d",
        "8e37cc01fe05b0e1779255e9bd386261f3d61daf7f75f02f72f38cdc9750531c",
        "0858641e630c877103dba2b78beaf6bc1f39435fc43d2894c4dff5d609c7a264",
    ),
    "arK": _posterior(
        "arK-arK",
        "410c4be4b4164f7e09ecd59b7589b11e3adaa98740871646c770862c47b5a688",
        "6f2acbacb04655927bfc9173c42e51fc330bf08c6184242a62b7e39c22abe410",
        "7ddb947e6c1ac5380f9c1e1fa101833a1236ef03de30f2cf5ece7b5b71841530",
    ),
    "kidiq": _posterior(
        "kidiq-kidscore_momhs",
        "373d3e6c65a4b4f83f5224f23174ad142d00560578902f810a5d5c1da177b4fc",
        "16d341a99ec8178231eab660d8fda084a44145f6a241daf35276d0192d13b92d",
        "4140f0e3e2e3026a4a1628f2a4516380ee6f4f2a789f3915052b37a15943edaf",
    ),
    "low_dim_gauss_mix": _posterior(
        "low_dim_gauss_mix-low_dim_gauss_mix",
        "d5e4f612954ec43ad7368b4b27574b01cc256a15ee1f731c3999b1c860911aff",
        "9b5ea284321417a7816b0426a0c96788a6824e6ceb4ec4ecd89493779720b8f9",
        "422de750b20aef29c7b86f6bfa88dd9759050b6ffeb3588c004d6a4861c1e776",
    ),
    "hmm_example": _posterior(
        "hmm_example-hmm_example",
        "78fa4c22ca6bafd233ec82b57320d56cbcae823c9b33e24676503858acc6b5d7",
        "8c346cc7627db1b5614b1eacb81ab9b0926aa63071ba2f3b6d6ec3b492892787",
        "cd67e28247da25233d79d09df235075c6603735e45c28fdfa76125e515ece3cf",
    ),
    "garch": _posterior(
        "garch-garch11",
        "1801a5abdf9f1b786f6bba4c588919c2baf99bfd82ad2b092d426bcf56e5d283",
        "056100504a96a72ee6be6af80228d26189dea7343a30df6ecfefac70cc9b3957",
        "5a56df72455394fec4bca2b8186432be76c8b8ecabfa43eff15bf19308edbf18",
    ),
}
