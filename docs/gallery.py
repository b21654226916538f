"""Writes docs/gallery.md, a picture of every program, and draws the pictures: `python docs/gallery.py [NAME ...]`.

With names only those are drawn, with `--page` none: only the page is written. A fit that runs/gallery holds is taken
from there; all of them take about six minutes of one core. Tests compare the page with the catalogue.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gallery_pictures as made  # beside this file
import matplotlib
import torch
from gallery_pictures import Draw
from PIL import Image

from inference import Fit, fit
from inference.environment import seeded
from zoo import catalogue, datasets

matplotlib.use("Agg")

DOCS = Path(__file__).parent
PAGE, FOLDER, FITS = DOCS / "gallery.md", DOCS / "img" / "gallery", Path("runs") / "gallery"
COLOURS, DPI = 48, 100
LARGEST = (660, 460)
PANEL = (312, 338)
"""Pixels of a panel of a sheet of samples."""
LENGTHS = ("steps", "epochs", "iterations")


@dataclass(frozen=True)
class Entry:
    """What the gallery shows of one program: the picture, what is on it, how the fit differs from preset 'small'."""

    draw: Draw
    shown: str
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    """Smaller than the preset's."""
    then: str = ""
    """A command that looks at the fit in much the same way, after `zoo`."""


@dataclass(frozen=True)
class Recorded:
    """A picture that a benchmark has drawn already, of a fit that takes minutes."""

    file: str
    """In docs/results."""
    shown: str
    panels: tuple[int, ...] = ()
    """Those that are shown of a sheet of samples."""
    part: tuple[float, float] = (1.0, 1.0)
    """Shares of the picture that are shown, from the left and from the top."""
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    then: str = ""


# What is drawn of each program

SHEET = "64 test images of {data}, and 64 samples"
SAMPLE = "sample runs/{name} -n 64 --out {name}.png"
HALVES = "upper halves of test images of {data}, three lower halves drawn for each, the truth"
PLANE = "test data of {data} (grey), and 500 samples (red)"
ROWS = "predictions for {data} test rows with 95% of their draws, and what came (black)"
MNIST = "adversarial-plots/samples-mnist10k.png"
DIGITS = "64 test images of mnist10k, and 64 samples"
LETTERS = "translation-plots/translations-glyphs-sans-to-serif.png"
TRANSLATED = "test letters in sans, what each program of the record makes of them, and the true serif"
HEARD = "spoken digits and samples, as spectrograms: time to the right, pitch upwards"
PIECES = "pieces of spoken digits, and as many samples: time to the right, pitch upwards"
TRUTH = "draws of the guide, over the exact posterior (grey)"
COMPARE = "compare {name} --methods {method},exact --out runs/{name}-compared"
RESTORED = "test images of {data}: what is given, three answers, the truth"
CODES = "the class code through all its values, a row for each of six latents"
DECODED = "test images of {data}, the same after their codes, and samples"
EVERY = "ten samples of each class of {data}, a row each"


def sheet(draw: Draw = made.samples, shown: str = SHEET, *, data: str | None = None, **options: Any) -> Entry:
    """A program of images."""
    return Entry(draw, shown, options, data, SAMPLE)


def plane(**options: Any) -> Entry:
    """A program of points."""
    return Entry(made.points, PLANE, options, then="score runs/{name}")


def truth(draw: Draw, of: str, **options: Any) -> Entry:
    """A program whose posterior is known."""
    return Entry(draw, f"{of}: {TRUTH}", options, then=COMPARE)


ENTRIES: dict[str, Entry | Recorded] = {
    "independent": sheet(
        made.beside("probabilities of ink", lambda p: p.logits.softmax(-1)[..., 1].reshape(1, 8, 8)),
        f"{SHEET}; how probable ink is at each pixel",
    ),
    "full-joint": Entry(made.correlations, "which answers of {data} go together (red), in data and in 5,000 samples"),
    "markov-chain": sheet(),
    "chow-liu": sheet(made.tree, f"{SHEET}; the tree that was learned"),
    "ar-chain": sheet(steps=500),
    "hmm": sheet(
        made.beside("p(next state | state)", lambda p: p.transition_logits.softmax(-1)[None]),
        f"{SHEET}; how probable each state is after each",
    ),
    "lda": Entry(made.words, "the words of twelve topics of {data}", {"topics": 12, "iterations": 20, "restarts": 1}),
    "prodlda": Entry(made.words, "the words of twelve topics of {data}", {"topics": 12, "epochs": 15}),
    "lgssm": sheet(made.lower_halves, HALVES, iterations=30),
    "dmm": Entry(made.rolls, "the starts of three test pieces of {data}, and of three samples", {"steps": 200}),
    "bernoulli-mixture": sheet(
        made.beside("causes", lambda p: p.logits.sigmoid().reshape(-1, 8, 8)),
        f"{SHEET}; the 40 components",
    ),
    "gaussian-mixture": plane(),
    "bayesian-gaussian-mixture": Entry(made.clusters, "test data of {data} (grey), and 500 predictions (red)"),
    "ppca": sheet(made.lower_halves, HALVES, steps=500),
    "vae": sheet(epochs=40),
    "hvae": sheet(epochs=8),
    "vq-vae": sheet(
        made.reconstructions, DECODED, data="digits-binary", epochs=10,
        network={"name": "residual", "hidden": 32, "blocks": 1, "halvings": 2},
    ),
    "aae": Recorded(MNIST, DIGITS, (0, 4), then=SAMPLE),
    "semi-supervised-vae": sheet(made.classes, EVERY, data="digits-binary-labelled", epochs=60, lr=0.01),
    "cvae": sheet(made.classes, EVERY, epochs=20),
    "restoring-vae": sheet(made.restored, RESTORED, data="digits-binary", epochs=20),
    "coin": truth(made.marginals(("p", None)), "the probability of heads"),
    "dirichlet-categorical": truth(made.marginals(("probs", 0), ("probs", 1)), "probabilities of two categories"),
    "normal": truth(made.marginals(("mean", 0), ("precision", 0)), "mean and precision of the first of four numbers"),
    "linear-regression": truth(
        made.marginals(("w", 0), ("w", 1), ("w", 2)), "three of eleven weights"
    ),
    "logistic-regression": Entry(
        made.intervals("w", "feature of a tumour"), "weights with 95% of the guide's draws", {"steps": 1000}
    ),
    "hierarchical-regression": Entry(
        made.intervals("eta", "army corps"), "effects of the groups with 95% of the guide's draws", {"steps": 300}
    ),
    "gp": Entry(made.predictions, ROWS, {"steps": 30}),
    "sparse-gp": Entry(made.predictions, ROWS, {"steps": 200}),
    "bnn": Entry(made.predictions, ROWS, {"steps": 400}),
    "eight-schools": truth(
        made.marginals(("mu", None), ("tau", None), ("eta", 0)), "three of ten numbers", steps=1000
    ),
    "banana": truth(made.planes, "the latents of the example furthest from the origin"),
    "two-modes": truth(made.planes, "the latents of the example furthest from the origin"),
    "rbm": sheet(epochs=15),
    "dbm": sheet(epochs=15),
    "deep-energy": plane(steps=100),
    "nice": plane(steps=500),
    "realnvp": plane(steps=500),
    "maf": plane(steps=500),
    "neural-spline": plane(steps=250),
    "dequantised-flow": sheet(steps=150),
    "fvsbn": sheet(epochs=15),
    "nade": sheet(made.lower_halves, HALVES, epochs=15),
    "rnade": plane(epochs=10),
    "pixelcnn": Recorded(
        "density-plots/samples-mnist10k-binary.png", SHEET, (0, 1), options={"epochs": 10}, data="mnist10k-binary",
        then='bench density --select "density/PixelCNN/*/mnist10k-binary" --seeds 1 --out runs/density',
    ),
    "gated-pixelcnn": sheet(epochs=16),
    "pixelcnn++": sheet(epochs=1),
    "pixelrnn": sheet(epochs=1),
    "gan": Recorded(MNIST, DIGITS, (0, 12), data="mnist10k", then=SAMPLE),
    "cgan": Recorded("adversarial-plots/classes-conditional_GAN-mnist10k.png", EVERY, then=SAMPLE),
    "infogan": Recorded("adversarial-plots/traversal-c-InfoGAN-mnist10k.png", CODES, then=SAMPLE),
    "dcgan": Recorded(MNIST, DIGITS, (0, 7), then=SAMPLE),
    "wgan": Recorded(MNIST, DIGITS, (0, 10), then=SAMPLE),
    "wgan-gp": Recorded(MNIST, DIGITS, (0, 6), then=SAMPLE),
    "sngan": Recorded(MNIST, DIGITS, (0, 5), then=SAMPLE),
    "puzzle-gan": Recorded(
        "translation-plots/completions-puzzle_GAN-freyfaces.png",
        "patches of {data} that are given, four answers, the truth",
        part=(1.0, 0.5), then="sample runs/{name} -n 9 --out {name}.png",
    ),
    "tag-gan": Recorded(
        "translation-plots/captions-tag_GAN-glyphs-tags.png", "test letters, and three lists of words drawn for each",
        part=(0.67, 0.5),
    ),
    "stargan": Recorded(
        "translation-plots/attributes-StarGAN-glyphs-attributes.png",
        "test letters, and the same in every face of {data}",
        then='translate runs/{name} glyphs --to "bold serif" --out {name}.png',
    ),
    "progan": Recorded(
        "growth-and-sound-plots/growth-Progressive_GAN-glyphs.png", "samples at each size, growing", then=SAMPLE
    ),
    "pix2pix": Recorded(
        LETTERS, TRANSLATED, part=(0.5, 0.574), then="translate runs/{name} {data} --out {name}.png"
    ),
    "cyclegan": Recorded(
        LETTERS, TRANSLATED, part=(0.5, 0.574),
        then="translate runs/{name} glyphs-sans-to-serif --out {name}.png",
    ),
    "ali": Recorded(MNIST, DIGITS, (0, 9), then=SAMPLE),
    "wavegan": Recorded(
        "growth-and-sound-plots/samples-spoken_digits-4khz.png", HEARD, then="sample runs/{name} -n 10 --out {name}.wav"
    ),
    "text2image": Recorded(
        "translation-plots/captions-text_to_image-glyphs-captions.png",
        "captions of test letters, and an image drawn for each", part=(0.67, 0.5),
        then='sample runs/{name} --context "latin small letter o with diaeresis" --out {name}.png',
    ),
    "made": sheet(epochs=15),
    "eonade": sheet(epochs=15),
    "wavenet": Recorded(
        "growth-and-sound-plots/samples-spoken_digits-4khz-levels.png", HEARD,
        options={"steps": 270, "batch_size": 2}, data="spoken_digits-4khz-levels-labelled",
        then="sample runs/{name} -n 10 --out {name}.wav",
    ),
    "ar-audio": Entry(
        made.spectrograms, PIECES, {"steps": 50},
        then="sample runs/{name} -n 10 --out {name}.wav",
    ),
}  # fmt: skip


# The page and the files

TOP = """\
# Gallery

<!-- Written by `python docs/gallery.py`; edit the entries there, not this page. -->

One picture of every program. Most are of short fits, a few seconds of one core; where minutes are needed, as for
games, they are taken from [the records](results/README.md). They show what a program does, not how well it can do it;
for that see [what was found](findings.md). Below each picture stand the paper, what is drawn, and the commands that
fit the program and look at the fit. `python docs/gallery.py NAME` draws one picture again. [The list of
programs](models.md) says more of each, and which methods can fit it.
"""


def page() -> str:
    """The page as text."""
    families = {name: catalogue.get(name).family for name in ENTRIES}
    parts = [TOP]
    for family in dict.fromkeys(families.values()):
        parts.append(f"\n## {family}\n")
        parts += [_section(name, ENTRIES[name]) for name in families if families[name] == family]
    return "\n".join(parts)


def _section(name: str, entry: Entry | Recorded) -> str:
    cls = catalogue.get(name)
    preset = cls.presets["small"]
    what = (cls.__doc__ or "").strip().split("\n")[0].rstrip(".")
    paper = f" ({cls.paper})" if cls.paper else ""
    how = _how_long(entry, preset.fit)
    if isinstance(entry, Recorded):
        how = f"From [the record](results/{entry.file.partition('-plots/')[0]}-cpu.md). {how}"
    words = {"name": name, "data": entry.data or preset.data or cls.dataset, "method": preset.method}
    shown = entry.shown.format(**words)
    lines = [f"zoo fit {name} --out runs/{name}{_asked(entry)}"]
    if entry.then:
        lines.append(f"zoo {entry.then.format(**words)}")
    return (
        f"\n### {name}\n\n![{name}: {shown}.](img/gallery/{name}.png)\n\n{what}{paper}.\n\n"
        f"*Drawn:* {shown}. {how}.\n\n```bash\n" + "\n".join(lines) + "\n```\n"
    )


def _asked(entry: Entry | Recorded) -> str:
    """What the fit's command says besides the program's name."""
    options = (shlex.quote(f"{option}={_told(value)}") for option, value in entry.options.items())
    return (f" --data {entry.data}" if entry.data else "") + "".join(f" -o {option}" for option in options)


def _how_long(entry: Entry | Recorded, whole: Mapping[str, Any]) -> str:
    for length in LENGTHS:
        if length in entry.options:
            count = entry.options[length]
            told = f"; preset `small` takes {whole[length]:,}" if length in whole else ""
            return f"Fitted for {count:,} {length if count > 1 else length[:-1]}{told}"
    return "Fitted by preset `small`"


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def fitted(name: str, entry: Entry) -> Fit:
    """The fit of an entry, from runs/gallery if it is there."""
    folder, preset = FITS / name, catalogue.get(name).presets["small"]
    if not (folder / "fit.json").exists():
        found = fit(name, entry.data or preset.data, preset.method, preset="small", device="cpu", **entry.options)
        found.save(folder)
    return Fit.load(folder)


def draw(name: str) -> None:
    """Writes a picture of few colours: of a fit, or of what a benchmark has drawn."""
    entry = ENTRIES[name]
    drawn = recorded(entry) if isinstance(entry, Recorded) else fresh(name, entry)
    FOLDER.mkdir(exist_ok=True)
    made.save_small(drawn, FOLDER / f"{name}.png", COLOURS)


def fresh(name: str, entry: Entry) -> Image.Image:
    """Fits and draws."""
    found = fitted(name, entry)
    with seeded(0):
        figure = entry.draw(found, datasets.load(found.data))
    figure.savefig(file := io.BytesIO(), dpi=DPI, format="png", bbox_inches="tight", pad_inches=0.05)
    return Image.open(file).convert("RGB")


def recorded(entry: Recorded) -> Image.Image:
    """The parts of a picture that are shown, side by side, no wider than a page."""
    whole = Image.open(DOCS / "results" / entry.file).convert("RGB")
    boxes = [(0, 0, round(entry.part[0] * whole.width), round(entry.part[1] * whole.height))]
    if entry.panels:
        wide, high = PANEL
        across = whole.width // wide
        corners = [(wide * (i % across), high * (i // across)) for i in entry.panels]
        boxes = [(left, top, left + wide, top + high) for left, top in corners]
    drawn = Image.new("RGB", (sum(box[2] - box[0] for box in boxes), boxes[0][3] - boxes[0][1]))
    for i, box in enumerate(boxes):
        drawn.paste(whole.crop(box), (i * (box[2] - box[0]), 0))
    drawn.thumbnail(LARGEST)
    return drawn


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or ENTRIES:
        if name != "--page":
            draw(name)
            print(name, flush=True)
    PAGE.write_text(page())
