"""Data sets in files: what each file is, and how the splits are read from it.

Each has a compact conversion (looked for under `ZOO_DATA`) or its public originals (downloaded), with equal content.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.datasets import embedded, originals
from zoo.datasets.data import File
from zoo.datasets.reference import observed
from zoo.datasets.sources import fetch, local
from zoo.datasets.splits import SPLITS, Splits

__all__ = [
    "DEBD", "FREYFACES", "JSB", "MNIST", "MNIST10K", "OLIVETTI",
    "converted", "debd", "freyfaces", "jsb", "jsb_frames", "kidiq", "mnist", "mnist10k", "olivetti",
]  # fmt: skip

Array = np.ndarray[Any, Any]


def converted(file: File, convert: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    """The arrays of our compact file where it lies on this machine, else what `convert` makes of the originals."""
    path = local(file)
    if path is None:
        return convert()
    with np.load(path) as arrays:
        return dict(arrays)


def mnist() -> Splits:
    """Handwritten digits 28x28; valid is the last 10,000 of the training images."""
    train_x, train_y, test_x, test_y = map(originals.idx, fetch(MNIST))
    return Splits(
        {"train": train_x[:50_000], "valid": train_x[50_000:], "test": test_x},
        labels={"train": train_y[:50_000], "valid": train_y[50_000:], "test": test_y},
        scale=255,
    )


def mnist10k() -> Splits:
    """Ten thousand of them, with their own split."""
    compact, *digits = MNIST10K
    found = converted(compact, lambda: originals.digits_json(fetch(digits, compact)))
    return Splits(
        {split: found["images"][found[split]] for split in SPLITS},
        labels={split: found["labels"][found[split]] for split in SPLITS},
        scale=255,
    )


def freyfaces() -> Splits:
    """Video frames 28x20, in consecutive blocks."""
    compact, *pickled = FREYFACES
    images = converted(compact, lambda: originals.frey_pickle(*fetch(pickled, compact)))["images"]
    return Splits({"train": images[:1565], "valid": images[1565:1765], "test": images[1765:]}, scale=255)


def olivetti(size: int = 64) -> Splits:
    """Faces of people; those of the first thirty are train, of the last five test; smaller ones are means."""
    compact, *matlab = OLIVETTI
    found = converted(compact, lambda: originals.olivetti_mat(*fetch(matlab, compact)))
    step = 64 // size
    images = found["images"].reshape(-1, size, step, size, step).mean((2, 4))
    by_person = np.split(images, np.searchsorted(found["people"], (30, 35)))
    return Splits(dict(zip(SPLITS, by_person, strict=True)), scale=255)


def debd(name: str) -> Splits:
    """One of the binary sets with published tables."""
    compact, *texts = DEBD[name]
    return Splits(converted(compact, lambda: originals.debd(fetch(texts, compact))))


def _chorales() -> dict[str, Array]:
    """All steps of a split after one another, 'train_roll' (steps, 88), and 'train_lengths'."""
    compact, *text = JSB
    return converted(compact, lambda: originals.jsb_json(*fetch(text, compact)))


def jsb() -> Splits:
    """Piano rolls padded to the longest chorale of all splits; context is the lengths."""
    found = _chorales()
    lengths = {split: found[f"{split}_lengths"] for split in SPLITS}
    longest = max(int(each.max()) for each in lengths.values())
    x = {}
    for split in SPLITS:
        x[split] = np.zeros((len(lengths[split]), longest, 88), np.uint8)
        chorales = np.split(found[f"{split}_roll"], np.cumsum(lengths[split])[:-1])
        for row, chorale in zip(x[split], chorales, strict=True):
            row[: len(chorale)] = chorale
    return Splits(x, context=lengths)


def jsb_frames() -> Splits:
    """The steps alone, as if there were no time: what the published numbers per time step weigh alike."""
    found = _chorales()
    return Splits({split: found[f"{split}_roll"] for split in SPLITS})


def kidiq() -> Splits:
    """Test scores given [1, mother finished high school]."""
    data = observed("kidiq")
    design = np.column_stack([np.ones(data["N"]), data["mom_hs"]])
    return embedded.same(np.asarray(data["kid_score"]), design)


# The files. Addresses name a commit, so that what they give cannot change.


def _github(repository: str, commit: str, folder: str, hashes: dict[str, str], into: str) -> tuple[File, ...]:
    base = f"https://raw.githubusercontent.com/{repository}/{commit}/{folder}"
    return tuple(File(f"{into}/{name}", sha256, (base + name,)) for name, sha256 in hashes.items())


def _debd_files(name: str, compact: str, *texts: str) -> tuple[File, ...]:
    hashes = {f"{name}.{split}.data": sha256 for split, sha256 in zip(SPLITS, texts, strict=True)}
    commit = "850908666388f1b1c766a304b37dae14613f1e51"
    return (
        File(f"debd/{name}.npz", compact),
        *_github("arranger1044/DEBD", commit, f"datasets/{name}/", hashes, "debd"),
    )


MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST = tuple(
    File(f"mnist/{name}", sha256, tuple(mirror + name for mirror in MNIST_MIRRORS))
    for name, sha256 in {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    }.items()
)
MNIST10K = (
    File("mnist10k.npz", "827bed02e851c7248612c29cf415876e4a9abc112670848e7556eef05f3be269"),
    *_github(
        "cazala/mnist",
        "76157793a26e2eed9313a6cde6ee60d8167a04fd",
        "src/digits/",
        {
            "0.json": "64c965faccfe0483cf69df89a24fb69ee338abb4dcf4ddc890258d66e40d5de2",
            "1.json": "2143d080bd62935928448372a5315c2ddfdcb0c517f2939e12eb0472ffc9b25e",
            "2.json": "7db7b18ebab81b02468fb36acd349137fff8d9024988a7c64361ab5e6567be90",
            "3.json": "c12910410ef545feacb25e36d96af981833f45fb814899e7f7d82cedbb54fa54",
            "4.json": "b2cb87a1d05a8bd86b0a84d12070bb31f2a4c6cffa19a5c5f598502afc28b5a8",
            "5.json": "9286c3b47bdcb24c6b10552e81159233dd1c4c4c13aff7833a2ebaba6bf396ca",
            "6.json": "0ef0d890993b69694719899c0a326b026caa48cee34508ad15ac5427f92d641a",
            "7.json": "14b83ca1b3d3db6f05c4ed1b386ddc9ad9072230856500950b491bd3d21a2a33",
            "8.json": "6ea5298d9b7e4012e0980d97b565e0cdde50befee0e20b2ef8a86d0abce0c762",
            "9.json": "bd0ffaad429227dacd35988a05dc0801a294a021e28da86392d628278cfa58ab",
        },
        "mnist10k",
    ),
)
FREYFACES = (
    File("freyfaces.npz", "3c70375e0a9c4751ad49ad5f1f692bd094c46f133cf4aa8ea77d1cb14e1efcd1"),
    *_github(
        "jmtomczak/vae_vampprior",
        "bb6ff3e58036adbea448e82d7bc55593d605b52c",
        "datasets/Freyfaces/",
        {"freyfaces.pkl": "3b69410c6a5fd6e03f09012905168be3712373a094a776f7e58fcd0670d2138a"},
        "freyfaces",
    ),
)
OLIVETTI = (
    File("olivetti.npz", "d56df635f9dd12a61df451371f1299267a7ebeef643dcea588e1b4281593fe45"),
    *_github(
        "sjgershm/DBM",
        "a30d9abb523aab874a299b8b1aa21e7df2023f60",
        "",
        {"olivettifaces.mat": "b1988d02c72fe5b8ee82b5ef3bb7982eafc74f1e1ff0ae0ade35061ad0af534d"},
        "olivetti",
    ),
)
JSB = (
    File("jsb_quarter.npz", "de8d4f0eacf74be5f33216d2efd442a26e5a9527117ea4fcdd17e083dfcb71ab"),
    *_github(
        "czhuang/JSB-Chorales-dataset",
        "9a7f733ddb4ed91f48da64ac7f0f621c34aadd4d",
        "",
        {"jsb-chorales-quarter.json": "2db9329f1881a1d3f49703ec556bf1d6f84b4f6c1d702c156536e93cf31e1c91"},
        "jsb",
    ),
)
DEBD = {
    "nltcs": _debd_files(
        "nltcs",
        "a8420b36315e682f0eb471817d216293df38fa02173e2d4a2edf52fc3b79bc37",
        "e547a7aedad1dd2f7177030881ab1b92c7e24ae5464c71a0f1f89daecaf52b30",
        "93bbbf5c6febdc9bc6e5b5bfab636f4dc0685ab2896d24b23dd267794c3bfcf6",
        "f9ffa6b74b27dc03bee3203d157ee31079e80b13be40d0c0093d635c25aed523",
    ),
    "dna": _debd_files(
        "dna",
        "a1a01944f2e95e56ec53e5d1f3d66c7000f06258e16d11d0397be2cb594b3a56",
        "bb8de0ca4b6ad9b610036b7a302962ebecd4b504354b14c02c7d0bee48d207d9",
        "4b0fc89cda5eaf5c75926e281afb6af99de194a546070d5b81b524ba251f4f3f",
        "fec3ae7b26804020a9c43c99828441c5e08bb76b23719368a74ad2b09af99100",
    ),
    "mushrooms": _debd_files(
        "mushrooms",
        "f99ab91a07c02ba27beeca427aaa04cfda9b5984d7d5c9bf82426ec2293656b4",
        "465c712c066bbbee3ccceded24bbe42b4c379df67b524e28cce9bf3a8b83f27b",
        "5a067e6854df71623415e6adc8e913cbff766637a324788882ba800907aa5385",
        "313c5f04b5d0a18bee2f2ffa264be265d09f5362aad6f714637acd9552f81aa0",
    ),
    "plants": _debd_files(
        "plants",
        "2a4d15b4d93411e78f97a5692348875ae4bb89a53a0a75f3fc1568e86c040345",
        "1fb1219ff94068d12a563f9e81f8889a1885f41e867884cff608669300c6848f",
        "47834ed318b2d74f48e4b083226ef47fd446d41986012ceae19d230574821b34",
        "95f53c033cd1d86467aec2610dc5bfe014534206c2da4919f73bcab246ab8755",
    ),
}
