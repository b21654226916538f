"""The registry: every data set with its card and its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from zoo.datasets import embedded, glyphs, modes, remote, speech, tags, unicode_names
from zoo.datasets.data import Card
from zoo.datasets.letter_names import WORDS
from zoo.datasets.reference import POSTERIORS
from zoo.datasets.splits import SPLITS, Splits

__all__ = ["REGISTRY", "Entry"]


@dataclass(frozen=True)
class Entry:
    """A data set of the registry: what is known of it and how it is read."""

    card: Card
    read: Callable[[], Splits]


SKLEARN = "inside scikit-learn"
UCI = "UCI Machine Learning Repository (CC BY 4.0); scikit-learn's copy is under its BSD 3-Clause licence"
DIGITS = f"{SKLEARN} (load_digits): UCI optical recognition of handwritten digits, test part"
CAZALA = "github.com/cazala/mnist, src/digits/0.json to 9.json"
GENERATED = "none needed (generated)"
PUBLIC = "public domain (facts)"
DEJAVU = "inside matplotlib (mpl-data/fonts/ttf): the DejaVu fonts 2.37, nine faces, drawn by Pillow"
VERA = "Bitstream Vera fonts licence, DejaVu changes in the public domain (matplotlib's LICENSE_DEJAVU)"
FSDD: dict[str, Any] = {
    "source": "github.com/Jakobovski/free-spoken-digit-dataset, recordings/*.wav (v1.0.10)",
    "licence": "CC BY-SA 4.0", "files": speech.SPOKEN_DIGITS,
}  # fmt: skip


def _sizes(train: int, valid: int, test: int) -> dict[str, int]:
    return {"train": train, "valid": valid, "test": test}


def _debd_entry(name: str, what: str, width: int, *sizes: int) -> Entry:
    source = f"github.com/arranger1044/DEBD, datasets/{name}/"
    splits = dict(zip(SPLITS, sizes, strict=True))
    description = f"{what}, {width} binary variables; the split of the published tables."
    card = Card(
        name,
        description,
        shape=(width,),
        support="binary",
        splits=splits,
        source=source,
        licence="none stated",
        files=remote.DEBD[name],
    )
    return Entry(card, partial(remote.debd, name))


def _numbers(name: str, what: str, read: Callable[[], Splits], sizes: dict[str, int], **origin: Any) -> Entry:
    """One number an example; `origin` is support, source, licence and files."""
    return Entry(Card(name, what, shape=(), splits=sizes, **origin), read)


def _plane(name: str, what: str, source: str, read: Callable[[], Splits]) -> Entry:
    return Entry(
        Card(name, what, shape=(2,), support="real", splits=_sizes(2000, 500, 500), source=source, licence=GENERATED),
        read,
    )


def _gaussians(name: str, what: str, sizes: dict[str, int]) -> Entry:
    card = Card(
        name, what, shape=(2,), support="real", splits=sizes, source="generated here, seed 0", licence=GENERATED
    )
    return Entry(card, partial(modes.gaussians, name, sizes))


def _stacked(of: str, read: Callable[[], Splits], shape: tuple[int, ...], train: int, **origin: Any) -> Entry:
    """`origin` is source, licence and files of the single digits."""
    name, sizes = f"stacked-{of}", _sizes(train, 2000, 2000)
    description = (
        f"Three images of {of} as the channels of one, drawn independently with seed 0, each split from its own "
        "images; a thousand modes (Metz et al. 2017). The label is the three digits, read as a number."
    )
    card = Card(name, description, shape=shape, support="unit", splits=sizes, **origin)
    return Entry(card, partial(modes.stacked, read, sizes))


def _glyphs(ending: str, what: str, read: Callable[[], Splits], sizes: dict[str, int], **more: Any) -> Entry:
    """`more` is further fields of the card."""
    description = (
        f"{what} Letters that the faces share, baseline and advance alike in all, white on black; no character, nor "
        "one that looks like it, is in two splits (seed 0)."
    )
    fields: dict[str, Any] = {"shape": (32, 32), "support": "unit", "splits": sizes}
    fields |= {"source": DEJAVU, "licence": VERA, "rigid": True, **more}
    fields |= {"judged_by": "glyphs"} if fields["shape"] == (32, 32) and "classes" not in fields else {}
    return Entry(Card(f"glyphs{ending}", description, **fields), read)


def _font_pairs(ending: str, target: int, words: str) -> list[Entry]:
    """Paired, and with the training and the valid pairs torn apart."""
    what = f"Letters of DejaVu {words} 32x32; the context is the same letter in DejaVu Sans."
    torn = (
        f"Letters of DejaVu {words} 32x32; the context is a letter in DejaVu Sans: another one in train and valid, "
        "whose characters are halved between the two sides, the same in test."
    )
    return [
        _glyphs(ending, what, partial(glyphs.pairs, target), CHARACTERS, context_kind="image"),
        _glyphs(
            f"{ending}-unpaired",
            torn,
            partial(glyphs.pairs, target, paired=False),
            CHARACTERS | {"train": 609, "valid": 46},
            context_kind="image",
            unpaired=("train", "valid"),
        ),
    ]


def _olivetti(ending: str, size: int) -> Entry:
    description = (
        f"Faces of 40 people {size}x{size}, ten pictures of each; bytes divided by 255; split by person, so that no "
        "face of the test split was seen."
    )
    card = Card(
        f"olivetti{ending}",
        description,
        shape=(size, size),
        support="unit",
        splits=_sizes(300, 50, 50),
        source="github.com/sjgershm/DBM, olivettifaces.mat (AT&T Laboratories Cambridge; edited by Sam Roweis)",
        licence="none stated",
        files=remote.OLIVETTI,
    )
    return Entry(card, partial(remote.olivetti, size))


CHARACTERS = _sizes(1218, 92, 204)
IN_FACES: Any = {"classes": len(glyphs.FACES), "class_names": tuple(face.file for face in glyphs.FACES)}
IN_EACH_FACE = {split: len(glyphs.FACES) * count for split, count in CHARACTERS.items()}


def _takes(name: str, slower: int, levels: int = 0) -> Entry:
    rate, size, how = speech.RATE // slower, speech.TAKE // slower, f", as {levels} mu-law levels" if levels else ""
    card = Card(
        name,
        f"Whole recordings of digits 0 to 9 by six speakers, at {rate:,} samples a second, scaled to a largest "
        f"amplitude of 1{how}: the first {size:,} samples (1.02 s; 17 of 3,000 takes are longer), then silence. Split "
        "by take as 'spoken_digits'.",
        shape=(size,),
        support="unit" if levels else "real",
        splits=_sizes(2400, 300, 300),
        **FSDD,
        classes=10,
        rate=rate,
        levels=levels,
        judged_by=name.removesuffix("-levels") if levels else "",
    )
    return Entry(card, partial(speech.whole_takes, slower, levels))


def _by_name(entries: Iterable[Entry]) -> dict[str, Entry]:
    return {entry.card.name: entry for entry in entries}


REGISTRY: dict[str, Entry] = _by_name(
    [
        Entry(
            Card(
                "digits",
                "Handwritten digits 8x8; values 0 to 16 divided by 16; split stratified by class with seed 0.",
                shape=(8, 8),
                support="unit",
                splits=_sizes(1297, 250, 250),
                source=DIGITS,
                licence=UCI,
                classes=10,
            ),
            embedded.digits,
        ),
        Entry(
            Card(
                "mnist",
                "MNIST handwritten digits; bytes divided by 255; valid is the last 10,000 of the training images.",
                shape=(28, 28),
                support="unit",
                splits=_sizes(50_000, 10_000, 10_000),
                source="LeCun, Cortes and Burges; mirrors of the four original files",
                licence="none stated by the authors; Keras lists it as CC BY-SA 3.0",
                files=remote.MNIST,
                classes=10,
            ),
            remote.mnist,
        ),
        Entry(
            Card(
                "mnist10k",
                "10,000 MNIST digits; bytes divided by 255; stratified split with seed 0 (published MNIST numbers do "
                "not compare).",
                shape=(28, 28),
                support="unit",
                splits=_sizes(8000, 1000, 1000),
                source=CAZALA,
                licence="MIT",
                files=remote.MNIST10K,
                classes=10,
            ),
            remote.mnist10k,
        ),
        Entry(
            Card(
                "freyfaces",
                "One face on video; bytes divided by 255; neighbouring frames are alike, so the splits are consecutive "
                "blocks in the order of the video.",
                shape=(28, 20),
                support="unit",
                splits=_sizes(1565, 200, 200),
                source="github.com/jmtomczak/vae_vampprior, datasets/Freyfaces/freyfaces.pkl (Roweis and Frey)",
                licence="none stated for the data (code: MIT)",
                files=remote.FREYFACES,
            ),
            remote.freyfaces,
        ),
        _olivetti("", 64),
        _olivetti("-32", 32),
        _debd_entry("nltcs", "National long-term care survey", 16, 16181, 2157, 3236),
        _debd_entry("dna", "DNA splice sites", 180, 1600, 400, 1186),
        _debd_entry("mushrooms", "Mushrooms", 112, 2000, 500, 5624),
        _debd_entry("plants", "Plants and where they grow", 69, 17412, 2321, 3482),
        Entry(
            Card(
                "jsb",
                "Bach chorales as piano rolls, a step per quarter note, column k = MIDI note 21 + k; padded with zeros "
                "to 160 steps, the context is the length; split of Boulanger-Lewandowski et al. (2012).",
                shape=(160, 88),
                support="binary",
                splits=_sizes(229, 76, 77),
                source="github.com/czhuang/JSB-Chorales-dataset, jsb-chorales-quarter.json",
                licence="none stated",
                files=remote.JSB,
            ),
            remote.jsb,
        ),
        Entry(
            Card(
                "jsb-frames",
                "Single time steps of the Bach chorales of 'jsb', 88 keys, one row a step, so that every step has the "
                "same weight, as in the published numbers per time step.",
                shape=(88,),
                support="binary",
                splits=_sizes(13807, 4602, 4725),
                source="github.com/czhuang/JSB-Chorales-dataset, jsb-chorales-quarter.json",
                licence="none stated",
                files=remote.JSB,
            ),
            remote.jsb_frames,
        ),
        Entry(
            Card(
                "spoken_digits",
                "Recordings of digits 0 to 9 by six speakers, 8 kHz, as mu-law levels k/255: windows of 1,024 samples "
                "(an eighth of a second) side by side within each recording, whose last samples that fill no window "
                "are left out, so nothing is padded. The context is the digit, one-hot. Split by take, the same "
                "speakers in each: takes 0 to 4 are the data set's own test split, 5 to 9 serve as valid.",
                shape=(speech.WINDOW,),
                support="unit",
                splits=_sizes(7017, 887, 860),
                **FSDD,
                rate=speech.RATE,
                levels=speech.LEVELS,
            ),
            speech.spoken_digits,
        ),
        _takes("spoken_digits-whole", 1),
        _takes("spoken_digits-4khz", 2),
        _takes("spoken_digits-4khz-levels", 2, speech.LEVELS),
        Entry(
            Card(
                "photo-patches",
                "Colour patches 8x8 of two photographs, side by side without overlap; bytes divided by 255. The splits "
                "are separate parts of each photograph, left to right, with a column of patches left out between "
                "them, so that no patch has a neighbour in another split.",
                shape=(3, 8, 8),
                support="unit",
                splits=_sizes(6360, 954, 954),
                source=f"{SKLEARN} (load_sample_images): china.jpg by danielbuechele, flower.jpg by vultilion (Flickr)",
                licence="CC BY 2.0",
            ),
            embedded.photo_patches,
        ),
        _numbers(
            "eight_schools",
            "Effect of coaching in eight schools (x) and its standard error (context); every split is all rows.",
            embedded.eight_schools,
            _sizes(8, 8, 8),
            support="real",
            source="Rubin (1981), table 1; Gelman et al., Bayesian Data Analysis, section 5.5",
            licence=PUBLIC,
        ),
        _numbers(
            "kidiq",
            "Test score of 434 children (x) given [1, mother finished high school] (context); every split is all rows.",
            remote.kidiq,
            _sizes(434, 434, 434),
            support="real",
            source="posteriordb, data set kidiq; Gelman and Hill (2006)",
            licence="BSD 3-Clause",
            files=POSTERIORS["kidiq"].files[:2],
        ),
        _numbers(
            "diabetes",
            "Disease progression after a year (x) given an intercept and ten covariates (context), standardised by "
            "the training rows; random split with seed 0.",
            embedded.diabetes,
            _sizes(354, 44, 44),
            support="real",
            source=f"{SKLEARN} (load_diabetes): Efron, Hastie, Johnstone and Tibshirani (2004)",
            licence="none stated for the data; scikit-learn: BSD 3-Clause",
        ),
        _numbers(
            "breast-cancer",
            "Whether a tumour is benign (x) given thirty measurements of its cells (context), standardised by the "
            "training rows; split stratified by x with seed 0.",
            embedded.breast_cancer,
            _sizes(455, 57, 57),
            support="binary",
            source=f"{SKLEARN} (load_breast_cancer): Street, Wolberg and Mangasarian (1993), Wisconsin diagnostic",
            licence=UCI,
        ),
        Entry(
            Card(
                "iris",
                "Four measurements of flowers of three species, standardised by the training rows; split stratified by "
                "species with seed 0.",
                shape=(4,),
                support="real",
                splits=_sizes(90, 30, 30),
                source=f"{SKLEARN} (load_iris): Fisher (1936)",
                licence=UCI,
            ),
            embedded.iris,
        ),
        _numbers(
            "horse_kicks",
            "Deaths by horse kick (x) in an army corps, 0 to 13, and a year, standardised by the training rows "
            "(context); random split with seed 0.",
            embedded.horse_kicks,
            _sizes(224, 28, 28),
            support="integer",
            source="von Bortkiewicz (1898), Das Gesetz der kleinen Zahlen; Andrews and Herzberg (1985), table 4.1",
            licence=PUBLIC,
        ),
        _numbers(
            "coin",
            "Twelve tosses of a drawing pin, 9 point up (1); their order does not matter; every split is all rows.",
            embedded.coin,
            _sizes(12, 12, 12),
            support="binary",
            source="the example of Lindley and Phillips (1976), Inference for a Bernoulli process",
            licence=PUBLIC,
        ),
        Entry(unicode_names.CARD, unicode_names.read),
        _plane("moons", "Two half circles, noise 0.1.", "scikit-learn's make_moons, seed 0", embedded.moons),
        _plane(
            "circles",
            "Two circles of radius 1 and 0.5, noise 0.05.",
            "scikit-learn's make_circles, seed 0",
            embedded.circles,
        ),
        _plane(
            "blobs",
            "Three round Gaussians with standard deviations 0.5, 0.8 and 1.1.",
            "scikit-learn's make_blobs, seed 0",
            embedded.blobs,
        ),
        _gaussians(
            "ring", "Eight Gaussians of standard deviation 0.1 on a circle of radius 2.", _sizes(2000, 500, 500)
        ),
        _gaussians(
            "narrow-ring",
            "Eight Gaussians of standard deviation 0.02 on a circle of radius 2, as in Metz et al. (2017).",
            _sizes(10_000, 1000, 2000),
        ),
        _gaussians(
            "grid25",
            "Twenty-five Gaussians of standard deviation 0.05 on a grid of step 2, as in Lin et al. (2018).",
            _sizes(10_000, 1000, 2000),
        ),
        _stacked("digits", embedded.digits, (3, 8, 8), 20_000, source=DIGITS, licence=UCI),
        _stacked("mnist10k", remote.mnist10k, (3, 28, 28), 10_000, source=CAZALA, licence="MIT", files=remote.MNIST10K),
        _glyphs("", "Letters in nine faces 32x32; the label is the face.", glyphs.faces, IN_EACH_FACE, **IN_FACES),
        _glyphs(
            "-64",
            "Letters in nine faces 64x64; the label is the face.",
            partial(glyphs.faces, 64),
            IN_EACH_FACE,
            shape=(64, 64),
            **IN_FACES,
        ),
        _glyphs(
            "-attributes",
            "Letters in nine faces 32x32; the context is whether the face is sans, serif, mono, bold, oblique.",
            glyphs.attributes,
            IN_EACH_FACE,
            context_kind="attributes",
            context_names=glyphs.ATTRIBUTES,
        ),
        _glyphs(
            "-captions",
            "Letters in nine faces 32x32; the context is the words of the letter's Unicode name as numbers, padded "
            "with 0. Some words are of test letters alone.",
            glyphs.captions,
            IN_EACH_FACE,
            context_kind="caption",
            context_names=WORDS,
            **IN_FACES,
        ),
        _glyphs(
            "-combinations",
            "As 'glyphs-captions', but valid and test hold what training lacks: combinations of a letter and a "
            "modifier, each of whose parts occurs in training with others.",
            partial(glyphs.captions, combinations=True),
            {split: len(glyphs.FACES) * count for split, count in _sizes(1211, 91, 212).items()},
            context_kind="caption",
            context_names=WORDS,
            **IN_FACES,
        ),
        _glyphs(
            "-tags",
            "The vector of one word of a letter's Unicode name, in each face the next; the context is the letter, "
            "32x32. Vectors are learned from the names of training letters.",
            tags.glyph_tags,
            IN_EACH_FACE,
            shape=(tags.DIM,),
            support="real",
            context_kind="image",
        ),
        *_font_pairs("-sans-to-serif", glyphs.SERIF, "Serif"),
        *_font_pairs("-sans-to-bold-serif", glyphs.BOLD_SERIF, "Serif Bold"),
    ]
)
