"""Reference posteriors of posteriordb: ten long NUTS chains each, for problems whose posterior has no closed form.

Source: Magnusson et al., posteriordb, github.com/stan-dev/posteriordb. `read_reference` reads any folder that is laid
out as that repository is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.datasets import originals
from zoo.datasets.data import File
from zoo.datasets.sources import at_home, fetch, local
from zoo.errors import DatasetError, UnknownNameError

__all__ = ["POSTERIORS", "ReferencePosterior", "observed", "read_reference", "reference_posterior", "source_of"]

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
    source = source_of(name)
    compact, data, draws = source.files
    path = local(compact)
    if path is not None:
        return _compact(source.name, json.loads(path.read_text()))
    return _original(source.name, *map(originals.zipped_json, fetch([data, draws], compact)))


def read_reference(folder: str | os.PathLike[str], name: str) -> ReferencePosterior:
    """A reference posterior from a folder of your own.

    Args:
        folder: As a checkout of posteriordb (its root or its `posterior_database`): posteriors/NAME.json says which
            data/data/DATA.json and reference_posteriors/draws/draws/NAME.json are meant, each of them zipped or not. Or
            any folder with NAME.json that has `data`, `chains` and `reference_draws` (parameter -> the draws of all
            chains, one after the other).
        name: posteriordb's name, DATA-MODEL.

    Raises: DatasetError for a posterior that is missing, damaged, or has no reference draws.
    """
    folder = at_home(Path(folder))
    try:
        if (folder / f"{name}.json").is_file():
            return _compact(name, json.loads((folder / f"{name}.json").read_text()))
        root = folder / "posterior_database" if (folder / "posterior_database").is_dir() else folder
        card = json.loads((root / "posteriors" / f"{name}.json").read_text())
        if not card.get("reference_posterior_name"):
            raise DatasetError(f"posteriordb has no reference draws of {name!r}; take 'nuts' as the truth.")
        draws = root / "reference_posteriors" / "draws" / "draws" / card["reference_posterior_name"]
        return _original(name, _json(root / "data" / "data" / card["data_name"]), _json(draws))
    except DatasetError:
        raise
    except Exception as error:  # whatever a damaged file may raise
        raise DatasetError(f"{folder} holds no whole posterior {name!r} ({type(error).__name__}: {error}).") from error


def _json(place: Path) -> Any:
    """The JSON document of this name, zipped or not."""
    plain = place.with_name(f"{place.name}.json")
    return (
        json.loads(plain.read_text())
        if plain.is_file()
        else originals.zipped_json(plain.with_name(f"{plain.name}.zip"))
    )


def _compact(name: str, found: Mapping[str, Any]) -> ReferencePosterior:
    """From one document with data and draws; moments that it states come from draws before they were rounded."""
    chains = {key: np.reshape(values, (found["chains"], -1)) for key, values in found["reference_draws"].items()}
    stated = found.get("reference_mean", {}), found.get("reference_sd", {})
    return _posterior(name, found["data"], chains, *stated)


def _original(name: str, data: Mapping[str, Any], by_chain: Any) -> ReferencePosterior:
    """From posteriordb's own two documents."""
    return _posterior(name, data, {key: np.array([chain[key] for chain in by_chain]) for key in by_chain[0]}, {}, {})


def _posterior(
    name: str, data: Mapping[str, Any], chains: dict[str, Array], mean: Mapping[str, float], sd: Mapping[str, float]
) -> ReferencePosterior:
    mean = {key: mean.get(key, float(values.mean())) for key, values in chains.items()}
    sd = {key: sd.get(key, float(values.std(ddof=1))) for key, values in chains.items()}
    return ReferencePosterior(name, _arrays(data), tuple(chains), draws=chains, mean=mean, sd=sd)


def observed(name: str) -> dict[str, Any]:
    """Only the data of a reference posterior.

    Raises: UnknownNameError, DatasetError.
    """
    compact, data, _ = source_of(name).files
    path = local(compact)
    return _arrays(json.loads(path.read_text())["data"] if path else originals.zipped_json(*fetch([data], compact)))


def source_of(name: str) -> Source:
    """Where a reference posterior is read from, likewise.

    Raises: UnknownNameError.
    """
    for short, source in POSTERIORS.items():
        if name in (short, source.name):
            return source
    raise UnknownNameError("reference posterior", name, POSTERIORS)


def _arrays(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: np.array(value) if isinstance(value, list) else value for key, value in data.items()}


def _listed(name: str, compact: str, data: str, draws: str) -> Source:
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


# Each with the sha256 of the conversion, of posteriordb's data and of its draws.
POSTERIORS: dict[str, Source] = {
    "arK": _listed(
        "arK-arK",
        "410c4be4b4164f7e09ecd59b7589b11e3adaa98740871646c770862c47b5a688",
        "6f2acbacb04655927bfc9173c42e51fc330bf08c6184242a62b7e39c22abe410",
        "7ddb947e6c1ac5380f9c1e1fa101833a1236ef03de30f2cf5ece7b5b71841530",
    ),
    "eight_schools": _listed(
        "eight_schools-eight_schools_noncentered",
        "310276fd98ca4b07e8ddba3bc85aea58786ca18b8dd47a8238479bd3e3d3197d",
        "8e37cc01fe05b0e1779255e9bd386261f3d61daf7f75f02f72f38cdc9750531c",
        "0858641e630c877103dba2b78beaf6bc1f39435fc43d2894c4dff5d609c7a264",
    ),
    "garch": _listed(
        "garch-garch11",
        "1801a5abdf9f1b786f6bba4c588919c2baf99bfd82ad2b092d426bcf56e5d283",
        "056100504a96a72ee6be6af80228d26189dea7343a30df6ecfefac70cc9b3957",
        "5a56df72455394fec4bca2b8186432be76c8b8ecabfa43eff15bf19308edbf18",
    ),
    "hmm_example": _listed(
        "hmm_example-hmm_example",
        "78fa4c22ca6bafd233ec82b57320d56cbcae823c9b33e24676503858acc6b5d7",
        "8c346cc7627db1b5614b1eacb81ab9b0926aa63071ba2f3b6d6ec3b492892787",
        "cd67e28247da25233d79d09df235075c6603735e45c28fdfa76125e515ece3cf",
    ),
    "kidiq": _listed(
        "kidiq-kidscore_momhs",
        "373d3e6c65a4b4f83f5224f23174ad142d00560578902f810a5d5c1da177b4fc",
        "16d341a99ec8178231eab660d8fda084a44145f6a241daf35276d0192d13b92d",
        "4140f0e3e2e3026a4a1628f2a4516380ee6f4f2a789f3915052b37a15943edaf",
    ),
    "low_dim_gauss_mix": _listed(
        "low_dim_gauss_mix-low_dim_gauss_mix",
        "d5e4f612954ec43ad7368b4b27574b01cc256a15ee1f731c3999b1c860911aff",
        "9b5ea284321417a7816b0426a0c96788a6824e6ceb4ec4ecd89493779720b8f9",
        "422de750b20aef29c7b86f6bfa88dd9759050b6ffeb3588c004d6a4861c1e776",
    ),
    "arma-arma11": _listed(
        "arma-arma11",
        "04027c28a406632af0ab5aab75defd357c5cd9b4522bae264cad2be2df350bce",
        "354e7d7bb05ee08a3deeac45ce1d92ae11964a696b933ba82a3a0cfe134eb45a",
        "6de4bfe5263e09b0421b15368da42720b3ddc2559f81b35e178a18ce05e299b9",
    ),
    "bball_drive_event_1-hmm_drive_1": _listed(
        "bball_drive_event_1-hmm_drive_1",
        "10d3734842e38d5eebd218e6cc23aaae116a863279e9d491108b0c87dcf51724",
        "5b4332702c475f94b2d1c651e9ae1bebf155e761f2cc6683879db50129c70f4d",
        "ca7b6d8d5d7cbeaa669781b9ad596f6f3b6e6619d574aad5b0efed289b2529eb",
    ),
    "diamonds-diamonds": _listed(
        "diamonds-diamonds",
        "bc786a88e139fa457f3b254c4afc4e8d9e4f412844d6460be22f64b6b9945c96",
        "127d44a642f954b707bec2d82725e168d57a412d59487708794d4a17097f26ba",
        "2745f4857ceb358ff6c692ba1dd1fd9d01cf8bc5ac456ae87e3c957fd51c4aae",
    ),
    "earnings-logearn_interaction_z": _listed(
        "earnings-logearn_interaction_z",
        "cf361c5d1ba0fe0ab9a12de3b200765632d07a2f39c6ab0bb8ce39737bcd56bc",
        "06a67aa61a99d59aee057486dae51ffad6b4f887e7f8f17733739cf893af312f",
        "a98da5225e5cef14b00431aebfe7382a0ad8a22c88fad905a72e87a986ea710a",
    ),
    "gp_pois_regr-gp_pois_regr": _listed(
        "gp_pois_regr-gp_pois_regr",
        "42bf6d0882e2880a53ca8abb22d071972c5dc5cdd0dbe96d1103001e396e2f28",
        "9aaaa9d5694b74e2aefa6d0bd2f0a48637fcb4d455a74b33985e58154f285da9",
        "0e8b39f525d6723ac6b0972fcf27d54185893825174ed8e7eec468d25fa8b7e8",
    ),
    "hudson_lynx_hare-lotka_volterra": _listed(
        "hudson_lynx_hare-lotka_volterra",
        "50d3095cfec1185c3d03bd5d6bc42745a225cd85f220ef640d43fd4b944efb2d",
        "36d116efc116fee9c9e7286df5545cbf11d08171c4f48b84476740464a4e33ec",
        "1d2124d283c104fb8faeb8c65b68e3fa22e39665accdac95979238587f85314b",
    ),
    "kidiq-kidscore_interaction": _listed(
        "kidiq-kidscore_interaction",
        "b42b98945564df2b1aee5ddf3937f3e44d0e6181a0d12b46d0071256d1bed336",
        "16d341a99ec8178231eab660d8fda084a44145f6a241daf35276d0192d13b92d",
        "acac3c394dfeb65ced6f14ddf20b5a5c075d7a80ae663d1d71f904c16d207065",
    ),
    "kilpisjarvi_mod-kilpisjarvi": _listed(
        "kilpisjarvi_mod-kilpisjarvi",
        "7c5ec81f8b84eba6899eecf247e0680142bb6f83b7dcef9763b2bee5e15a99da",
        "232e8c55bbe5c07b79b0b28c92917f71711c713579292a2f40a50bda279d968e",
        "a5bc7f19720bfaa073bc6ab16c837aa1ff921014bad09ea715494ed4723b9fad",
    ),
    "mesquite-logmesquite": _listed(
        "mesquite-logmesquite",
        "d52e21e916632507096cc4f58a1915979d28749144269d7f0c7ee0b9d1ff8dba",
        "ec9db3a2e390892473e6172d76386ba9b26c3633a9682532eb34217189dcb0ac",
        "741ddf71cad063821af0549ac78987f9f1d834848aeb180ce4edd083b02c8d62",
    ),
    "mesquite-mesquite": _listed(
        "mesquite-mesquite",
        "36ee4570939632479a28d6fc8548a0ebc1172ae3118a1a5fd2c00ce8227fda40",
        "ec9db3a2e390892473e6172d76386ba9b26c3633a9682532eb34217189dcb0ac",
        "48f9a22ba3e5ae08c80fca3974a5db1341356bfd7eb3dc9f7df4c15ac1505ce4",
    ),
    "nes1972-nes": _listed(
        "nes1972-nes",
        "a7b64d4286f7c11097e98621c035abf2b31095ce490efc93a074fa6d41c8fa38",
        "8ccd9cb76d3259b331414a971958a4a6edfcb8897029d5999231bb7d5823197e",
        "59deb232b508701047fecfb8005e37995c6a5e446ca711ffe654d8dc0ded6697",
    ),
    "sblri-blr": _listed(
        "sblri-blr",
        "f04e21d51a400503db24cf7c2d62b12326891bde19e3a00201efefd1f5ac450b",
        "e975f6641b5e08d65cb1e3519f1d0370939afbc82bfbeb3c1f5a07e5bbd717a7",
        "4e1f20dc9ccc45e1b05d0b67ee83b9a2ffdd21c90ca576549571940b5c4369e8",
    ),
}
"""By the name of the data set where it is the first of these data, else by posteriordb's name."""
