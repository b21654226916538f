"""Data sets: the registry, the files behind it (found, downloaded, damaged), files of the user's own, binarisation."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import pickle
import shutil
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image

from zoo import datasets
from zoo.arrays import RoundingNotice
from zoo.datasets import Card, Data, Dataset, File, files, originals, reference, remote, sources
from zoo.datasets.given import ReadNotice
from zoo.datasets.registry import REGISTRY
from zoo.datasets.splits import SPLITS, split_rows
from zoo.errors import (
    DatasetError,
    EmptyDataError,
    NonFiniteError,
    OptionError,
    ShapeError,
    SupportError,
    UnknownNameError,
    ZooError,
)

EMBEDDED = [name for name in datasets.names() if not datasets.card(name).files and not name.startswith("glyphs")]
FIRST_DIGITS = [[2, 1, 2, 5, 1, 5, 9, 3], [0, 1, 0, 1, 5, 8, 7, 8], [6, 9, 1, 6, 9, 4, 9, 1]]
FROM_FILES = [name for name in datasets.names() if datasets.card(name).files]


@pytest.fixture(autouse=True)
def _no_network_no_cache(monkeypatch, tmp_path):
    """Every test has an empty cache, and no address but this machine's can be asked."""
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path / "cache")
    get = sources.requests.get

    def only_here(url: str, **options):
        if not url.startswith("http://127.0.0.1:"):
            raise OSError("no network in tests")
        return get(url, **options)

    monkeypatch.setattr(sources.requests, "get", only_here)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def check_card(dataset: Dataset, card: Card) -> None:
    """A loaded data set is what its card says."""
    assert dataset.card == card
    assert {split: dataset.split(split).size for split in SPLITS} == card.splits
    for split in SPLITS:
        x, context = dataset.split(split)
        assert tuple(x.shape[1:]) == card.shape
        assert x.dtype == torch.get_default_dtype()
        assert bool(torch.isfinite(x).all())
        if card.support == "binary":
            ones = x == 1
            assert bool((ones | (x == 0)).all())
            assert 0 < int(ones.sum()) < x.numel()
        elif card.support == "unit":
            assert x.min() >= 0
            assert x.max() <= 1
            assert bool(((x > 0) & (x < 1)).any())
        if context is not None:
            assert len(context) == len(x)
            assert context.dtype == x.dtype
    for split, labels in dataset.labels.items():
        assert labels.shape == (card.splits[split],)
        assert labels.dtype == torch.int64


# The registry


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_data_are_as_their_card_says(name, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    check_card(datasets.load(name), datasets.card(name))


@pytest.mark.parametrize("name", FROM_FILES)
def test_data_in_files_are_as_their_card_says(name, zoo_data):
    card = datasets.card(name)
    if not (zoo_data / card.files[0].path).exists():
        pytest.skip(f"{card.files[0].path} is not under ZOO_DATA")
    check_card(datasets.load(name), card)


def test_every_card_names_its_source_licence_and_public_files():
    for name, entry in REGISTRY.items():
        card = entry.card
        assert card.name == name
        assert card.source
        assert card.licence
        assert (card.url is not None) == bool(card.files), f"{name} has files, but no public address for them"
        assert all(len(file.sha256) == 64 for file in card.files)
        assert all(url.startswith("https://") for file in card.files for url in file.urls)


def test_a_loaded_name_loads_the_same_again():
    for name in ("digits", "digits-stochastic", "moons", "ring", "diabetes"):
        first = datasets.load(name)
        torch.manual_seed(1)
        np.random.seed(1)
        again = datasets.load(first.name)
        assert all(torch.equal(first.split(split).x, again.split(split).x) for split in SPLITS)


@pytest.mark.parametrize("name", ["digits", "iris", "diabetes", "breast-cancer"])
def test_splits_share_no_row(name):
    dataset = datasets.load(name)
    rows = [
        torch.cat(
            [
                data.x.flatten(1) if data.x.ndim > 1 else data.x[:, None],
                *([] if data.context is None else [data.context]),
            ],
            1,
        )
        for data in (dataset.train, dataset.valid, dataset.test)
    ]
    total = torch.cat(rows)
    # iris holds one flower twice; the others hold no row twice.
    assert len(total.unique(dim=0)) == len(total) - (name == "iris")


def test_splits_of_digits_are_stratified_and_fixed():
    dataset = datasets.load("digits")
    for split in SPLITS:
        share = torch.bincount(dataset.labels[split], minlength=10) / dataset.split(split).size
        # 10 classes of about a tenth each; rounding moves a class by at most two images.
        torch.testing.assert_close(share, torch.full((10,), 0.1), atol=0.011, rtol=0)
    # The first labels of each split, written down once: another order would change every published number.
    assert [dataset.labels[split][:8].tolist() for split in SPLITS] == FIRST_DIGITS


def test_standardised_by_the_training_rows_alone():
    for name in ("iris", "diabetes"):
        data = datasets.load(name).train
        values = data.x if data.context is None else data.context[:, 1:]
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-12, rtol=0)
        torch.testing.assert_close(values.std(0, correction=0), torch.ones(values.shape[1]))


def test_eight_schools_is_rubins_table():
    data = datasets.load("eight_schools").train
    assert data.x.tolist() == [28, 8, -3, 7, -1, 1, 18, 12]
    assert data.context.tolist() == [15, 10, 16, 11, 9, 11, 10, 18]


def test_frey_faces_leak_no_neighbour(zoo_data):
    dataset = datasets.load("freyfaces")
    images = np.load(zoo_data / "freyfaces.npz")["images"]
    together = torch.cat([dataset.train.x, dataset.valid.x, dataset.test.x])
    # The splits one after another are the video: so each is one block.
    np.testing.assert_array_equal((together * 255).round().numpy(), images)


@pytest.mark.parametrize(("name", "step"), [("olivetti", 1), ("olivetti-32", 2)])
def test_olivetti_faces_of_a_person_are_in_one_split(name, step, zoo_data):
    dataset = datasets.load(name)
    found = np.load(zoo_data / "olivetti.npz")
    corners = [found["images"][:, i::step, j::step] / (255 * step**2) for i in range(step) for j in range(step)]
    for split, people in zip(SPLITS, (range(30), range(30, 35), range(35, 40)), strict=True):
        rows = np.isin(found["people"], people)
        np.testing.assert_allclose(dataset.split(split).x.numpy(), sum(corners)[rows], rtol=1e-12)


def test_chorales_are_padded_after_their_length(zoo_data):
    dataset = datasets.load("jsb")
    rolls = np.load(zoo_data / "jsb_quarter.npz")
    for split in SPLITS:
        x, lengths = dataset.split(split)
        inside = torch.arange(x.shape[1]) < lengths[:, None]
        assert x[~inside].sum() == 0
        np.testing.assert_array_equal(x[inside].numpy(), rolls[f"{split}_roll"])


def test_kidiq_is_the_data_of_its_reference(zoo_data):
    data = datasets.load("kidiq").train
    posterior = datasets.reference_posterior("kidiq")
    # The posterior is close to flat-prior least squares: within 0.1 posterior standard deviations with 434 rows.
    beta = torch.linalg.lstsq(data.context, data.x[:, None]).solution[:, 0]
    for i, name in enumerate(("beta[1]", "beta[2]")):
        assert abs(beta[i].item() - posterior.mean[name]) < 0.1 * posterior.sd[name]


def test_mnist10k_split_is_the_one_of_the_conversion(zoo_data):
    found = np.load(zoo_data / "mnist10k.npz")
    rows = originals.stratified_rows(found["labels"], held=1000)
    for split in SPLITS:
        np.testing.assert_array_equal(rows[split], found[split])


@pytest.mark.parametrize("name", reference.POSTERIORS)
def test_reference_posteriors(name, zoo_data):
    posterior = datasets.reference_posterior(name)
    assert posterior.name == datasets.reference_posterior(posterior.name).name
    assert set(posterior.draws) == set(posterior.mean) == set(posterior.sd) == set(posterior.parameters)
    for parameter in posterior.parameters:
        draws = posterior.draws[parameter]
        assert draws.shape == (10, 1000)
        # Draws are rounded to 7 digits, so mean and deviation agree to a little less.
        assert draws.mean() == pytest.approx(posterior.mean[parameter], abs=1e-6 * np.abs(draws).max())
        assert draws.std(ddof=1) == pytest.approx(posterior.sd[parameter], rel=1e-5)
        # The chains have mixed: their means differ by no more than 5 standard errors (autocorrelation is below 0.05).
        assert np.ptp(draws.mean(1)) < 2 * 5 * draws.std() / np.sqrt(1000 * 0.9)


def test_eight_schools_reference_has_the_embedded_data(zoo_data):
    data = datasets.reference_posterior("eight_schools").data
    embedded = datasets.load("eight_schools").train
    assert data["y"].tolist() == embedded.x.tolist()
    assert data["sigma"].tolist() == embedded.context.tolist()


def test_float32_is_respected():
    torch.set_default_dtype(torch.float32)
    single = datasets.load("digits-stochastic").train.x
    torch.set_default_dtype(torch.float64)
    double = datasets.load("digits-stochastic").train.x
    assert single.dtype == torch.float32
    assert torch.equal(single.double(), double)


def test_to_moves_every_split():
    dataset = datasets.load("diabetes").to(dtype=torch.float32)
    assert {tensor.dtype for split in SPLITS for tensor in dataset.split(split)} == {torch.float32}


# Names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("digit", "digits"),
        ("mnist-binar", "mnist-binary"),
        ("eight-schools", "eight_schools"),
    ],
)
@pytest.mark.parametrize("ask", [datasets.load, datasets.card])
def test_unknown_name_gives_the_nearest(ask, name, near):
    with pytest.raises(UnknownNameError, match=f"Unknown data set '{name}'.*'{near}'"):
        ask(name)


@pytest.mark.parametrize(("name", "support"), [("moons-binary", "real"), ("nltcs-stochastic", "binary")])
@pytest.mark.parametrize("ask", [datasets.load, datasets.card])
def test_only_grey_values_have_binary_forms(ask, name, support):
    with pytest.raises(SupportError, match=f"no '{name}'.*is {support}"):
        ask(name)


def test_empty_name_is_unknown():
    with pytest.raises(UnknownNameError, match="Known: "):
        datasets.load("")


def test_unknown_reference_gives_the_nearest():
    with pytest.raises(UnknownNameError, match="'eight_schools'"):
        datasets.reference_posterior("eight_school")


def test_a_name_wins_over_a_folder_of_the_same_name(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert datasets.load("digits").train.size == 1297


# Binarisation


def test_every_unit_data_set_has_binary_forms():
    for name, entry in REGISTRY.items():
        forms = {f"{name}-binary", f"{name}-stochastic"} & set(datasets.names())
        assert len(forms) == (2 if entry.card.support == "unit" else 0)


def test_suffix_and_option_are_one_mechanism():
    grey, suffix = datasets.load("digits"), datasets.load("digits-binary")
    option = datasets.load("digits", binarise="threshold")
    assert suffix.card == option.card == datasets.card("digits-binary")
    assert "at least 0.5" in suffix.card.description
    for split in SPLITS:
        assert torch.equal(suffix.split(split).x, option.split(split).x)
        # 8/16 = 0.5 is in the data, and counts as 1.
        assert torch.equal(suffix.split(split).x, (grey.split(split).x >= 0.5).double())
    assert (grey.train.x == 0.5).any()
    assert torch.equal(suffix.labels["train"], grey.labels["train"])


def test_labels_as_context():
    plain, labelled = datasets.load("digits-binary"), datasets.load("digits-binary-labelled")
    assert labelled.card == datasets.card("digits-binary-labelled")
    assert labelled.card.name == "digits-binary-labelled"
    for split in SPLITS:
        x, context = labelled.split(split)
        assert torch.equal(x, plain.split(split).x)
        assert context.dtype == x.dtype
        assert torch.equal(context.argmax(1), plain.labels[split].long())
        assert torch.equal(context.sum(1), torch.ones(len(x)))
    with pytest.raises(SupportError, match="no class labels"):
        datasets.load("freyfaces-labelled")


def test_binary_data_stay_as_they_are():
    assert datasets.load("coin", binarise="threshold").card == datasets.card("coin")


def test_stochastic_binarisation_has_the_grey_value_as_mean():
    x = torch.linspace(0, 1, 5).expand(20_000, 5)
    mean = datasets.binarise(x, "stochastic", torch.Generator().manual_seed(0)).mean(0)
    standard_error = (x[0] * (1 - x[0]) / 20_000).sqrt()
    # Exact at 0 and 1; 4.5 standard errors (two-sided 7e-6 each) between.
    assert ((mean - x[0]).abs() <= 4.5 * standard_error).all()


def test_binarise_uses_the_given_generator():
    x = torch.full((1000,), 0.5)
    first, again = (datasets.binarise(x, "stochastic", torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, datasets.binarise(x, "stochastic", torch.Generator().manual_seed(4)))


def test_an_unknown_way_to_binarise_is_named_with_those_there_are():
    with pytest.raises(OptionError, match="binarise is 'otsu'; expected 'threshold' or 'stochastic', or None"):
        datasets.load("digits", binarise="otsu")


def test_binarise_refuses_what_it_cannot_do():
    with pytest.raises(SupportError, match=r"got 0 to 255.*divide by 255"):
        datasets.binarise(torch.tensor([0.0, 255.0]))
    with pytest.raises(NonFiniteError, match="1 values are NaN"):
        datasets.binarise(torch.tensor([0.0, torch.nan]))
    with pytest.raises(OptionError, match=r"'otsu'.*'threshold' or 'stochastic'"):
        datasets.binarise(torch.zeros(2), "otsu")
    with pytest.raises(OptionError, match="'otsu'"):
        datasets.load("digits", binarise="otsu")
    with pytest.raises(OptionError, match="'digits-binary' is binarised by threshold, but binarise is 'stochastic'"):
        datasets.load("digits-binary", binarise="stochastic")
    with pytest.raises(SupportError):
        datasets.load("moons", binarise="threshold")


# Files of the registry: missing, damaged, downloaded


def test_the_home_of_nobody_is_no_place(monkeypatch):
    with pytest.raises(DatasetError, match="no such user"):
        datasets.load("~nobody-of-this-name/x.npy")
    monkeypatch.setenv("ZOO_DATA", "~nobody-of-this-name/data")
    with pytest.raises(DatasetError, match="no such user"):
        datasets.load("nltcs")


def test_missing_file_says_where_it_belongs(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    with pytest.raises(DatasetError) as caught:
        datasets.load("nltcs")
    text = str(caught.value)
    assert str(tmp_path) in text
    assert "no network in tests" in text
    assert "https://raw.githubusercontent.com/arranger1044/DEBD/" in text
    assert "set ZOO_DATA to a folder that holds debd/nltcs.npz (sha256 a8420b36" in text


def test_missing_file_without_zoo_data(monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    with pytest.raises(DatasetError, match="not set") as caught:
        datasets.load("mnist")
    for file in remote.MNIST:
        assert file.path in str(caught.value)


def test_zoo_data_must_be_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match=r"ZOO_DATA is .*nowhere.*not a folder"):
        datasets.load("nltcs")


def test_damaged_file_names_both_hashes(monkeypatch, tmp_path, zoo_data):
    copy = tmp_path / "debd" / "nltcs.npz"
    copy.parent.mkdir()
    shutil.copy(zoo_data / "debd" / "nltcs.npz", copy)
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    assert datasets.load("nltcs").train.size == 16181
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.chmod(0o644)
    copy.write_bytes(content)
    got = hashlib.sha256(content).hexdigest()
    expected = remote.DEBD["nltcs"][0].sha256
    with pytest.raises(DatasetError, match=f"{copy} is damaged: expected sha256 {expected}, got {got}"):
        datasets.load("nltcs")


def test_a_file_of_ones_own_is_found_here_before_the_data_folder(monkeypatch, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, rows in ((here, 3), (there, 5)):
        folder.mkdir()
        np.save(folder / "mine.npy", np.zeros((rows, 2)))
    np.save(there / "other.npy", np.zeros((7, 2)))
    monkeypatch.chdir(here)
    monkeypatch.setenv("ZOO_DATA", str(there))
    sizes = [sum(datasets.load(name).split(s).size for s in SPLITS) for name in ("mine.npy", "other.npy")]
    assert sizes == [3, 7]


class Server(ThreadingHTTPServer):
    """Serves one content on this machine; `cut` breaks the connection after so many bytes, once."""

    def __init__(self, content: bytes, cut: int | None = None, ranges: bool = True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.ranges = content, cut, ranges
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        rest = self.server.content[start:]
        if start and not rest:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(rest[:cut])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def serve() -> Iterator:
    servers = []

    def start(*args, **options) -> Server:
        server = Server(*args, **options)
        servers.append(server)
        threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


CONTENT = bytes(range(256)) * 1000


def described(*urls: str, content: bytes = CONTENT) -> File:
    return File("some/file.bin", hashlib.sha256(content).hexdigest(), urls)


def test_download_is_checked_kept_and_not_repeated(serve, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    server = serve(CONTENT)
    (path,) = sources.fetch([described(server.url)])
    assert path == sources.cache_folder() / "some" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert sources.fetch([described(server.url)]) == [path]
    assert len(server.asked) == 1
    assert [each.name for each in path.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("ranges", [True, False], ids=["resumes", "server ignores ranges"])
def test_broken_download_goes_on_where_it_stopped(serve, monkeypatch, ranges):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    server = serve(CONTENT, cut=100_000, ranges=ranges)
    with pytest.raises(DatasetError, match="could not be downloaded"):
        sources.fetch([described(server.url)])
    kept = (sources.cache_folder() / "some" / "file.bin.part").stat().st_size
    assert 0 < kept <= 100_000
    (path,) = sources.fetch([described(server.url)])
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={kept}-"]


def test_download_that_stopped_at_the_last_byte(serve, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    server = serve(CONTENT)
    part = sources.cache_folder() / "some" / "file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    (path,) = sources.fetch([described(server.url)])
    assert path.read_bytes() == CONTENT


def test_wrong_download_names_both_hashes_and_is_not_kept(serve, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    other = CONTENT[:-1] + b"x"
    server = serve(other)
    file = described(server.url)
    with pytest.raises(DatasetError, match=f"expected {file.sha256} but got {hashlib.sha256(other).hexdigest()}"):
        sources.fetch([file])
    assert not list((sources.cache_folder() / "some").iterdir())


def test_damaged_part_does_not_spoil_the_next_try(serve, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    server = serve(CONTENT)
    part = sources.cache_folder() / "some" / "file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"something else")
    with pytest.raises(DatasetError, match="but got"):
        sources.fetch([described(server.url)])
    assert sources.fetch([described(server.url)])[0].read_bytes() == CONTENT


def test_second_mirror_serves_when_the_first_does_not(serve, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    good = serve(CONTENT)
    (path,) = sources.fetch([described("https://example.invalid/file", good.url)])
    assert path.read_bytes() == CONTENT


def test_damaged_file_in_the_cache_is_downloaded_again(serve, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    server = serve(CONTENT)
    (path,) = sources.fetch([described(server.url)])
    path.write_bytes(b"damaged")
    assert sources.fetch([described(server.url)])[0].read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_zoo_data_comes_before_cache_and_network(serve, monkeypatch, tmp_path):
    server = serve(CONTENT)
    path = tmp_path / "data" / "some" / "file.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "data"))
    assert sources.fetch([described(server.url)]) == [path]
    assert not server.asked


# Formats of the public originals


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes())


def test_mnist_from_its_four_files(monkeypatch, tmp_path):
    count = {"train": 60_000, "t10k": 10_000}
    images = {part: (np.arange(n * 6).reshape(n, 2, 3) % 256).astype(np.uint8) for part, n in count.items()}
    labels = {part: (np.arange(n) % 10).astype(np.uint8) for part, n in count.items()}
    found = []
    for part in count:
        for kind, array in (
            (f"{part}-images-idx3-ubyte.gz", images[part]),
            (f"{part}-labels-idx1-ubyte.gz", labels[part]),
        ):
            content = idx(array)
            (tmp_path / kind).write_bytes(content)
            found.append(File(kind, hashlib.sha256(content).hexdigest()))
    assert [f"mnist/{file.path}" for file in found] == [file.path for file in remote.MNIST]
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    monkeypatch.setattr(remote, "MNIST", tuple(found))
    dataset = datasets.load("mnist")
    assert {split: dataset.split(split).size for split in SPLITS} == datasets.card("mnist").splits
    expected = {"train": images["train"][:50_000], "valid": images["train"][50_000:], "test": images["t10k"]}
    for split in SPLITS:
        np.testing.assert_allclose(dataset.split(split).x.numpy(), expected[split] / 255, rtol=1e-15)
    assert dataset.labels["valid"].tolist() == labels["train"][50_000:].tolist()


def test_debd_text(tmp_path):
    paths = []
    for i, split in enumerate(SPLITS):
        paths.append(tmp_path / f"{split}.data")
        paths[-1].write_text("0,1,0\n1,1,0\n" + "1,0,1\n" * i)
    arrays = originals.debd(paths)
    assert list(arrays) == list(SPLITS)
    assert arrays["valid"].tolist() == [[0, 1, 0], [1, 1, 0], [1, 0, 1]]


def test_jsb_json(tmp_path):
    path = tmp_path / "jsb.json"
    path.write_text(json.dumps({"train": [[[21, 108], []], [[60]]], "valid": [[[22]]], "test": [[[23]]]}))
    arrays = originals.jsb_json(path)
    assert arrays["train_lengths"].tolist() == [2, 1]
    assert [row.nonzero()[0].tolist() for row in arrays["train_roll"]] == [[0, 87], [], [39]]


FREY_HEADER = (
    b"(lp0\ncnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n"
    b"(I1\n(I2\nI560\ntp7\ncnumpy\ndtype\np8\n(S'u1'\np9\nI0\nI1\ntp10\nRp11\n(I3\nS'|'\np12\nNNNI-1\nI-1\nI0\ntp13\nbI00\n"
)
"""A Python 2 pickle, protocol 0, of a list with one byte array (2, 560), up to the values."""


def test_frey_pickle(tmp_path):
    values = np.arange(2 * 560, dtype=np.uint16).astype(np.uint8)
    escaped = "".join(f"\\x{value:02x}" for value in values).encode()
    path = tmp_path / "frey.pkl"
    path.write_bytes(FREY_HEADER + b"S'" + escaped + b"'\np14\ntp15\nba.")
    images = originals.frey_pickle(path)["images"]
    np.testing.assert_array_equal(images, values.reshape(2, 28, 20))


def test_frey_pickle_holds_only_arrays(tmp_path):
    path = tmp_path / "frey.pkl"
    path.write_bytes(pickle.dumps([Path("harmless")]))
    with pytest.raises(pickle.UnpicklingError, match="is not part of an array"):
        originals.frey_pickle(path)


def test_olivetti_mat(tmp_path):
    path = tmp_path / "faces.mat"
    images = np.arange(20 * 64 * 64).reshape(20, 64, 64) % 251
    # MATLAB reads an image column by column: faces(:) of one is a column here.
    scipy.io.savemat(path, {"faces": np.stack([image.flatten(order="F") for image in images], axis=1).astype(float)})
    found = originals.olivetti_mat(path)
    np.testing.assert_array_equal(found["images"], images)
    assert found["images"].dtype == np.uint8
    assert found["people"].tolist() == [0] * 10 + [1] * 10


def test_digits_json(tmp_path):
    paths = []
    for digit in range(10):
        paths.append(tmp_path / f"{digit}.json")
        pixels = np.full((300, 784), digit / 10)
        paths[-1].write_text(json.dumps({"data": pixels.round(3).ravel().tolist()}))
    arrays = originals.digits_json(paths)
    assert arrays["images"].shape == (3000, 28, 28)
    assert arrays["images"][:, 0, 0].tolist() == np.rint(25.5 * arrays["labels"]).tolist()
    together = np.concatenate([arrays[split] for split in SPLITS])
    assert sorted(together.tolist()) == list(range(3000))


def test_posterior_from_posteriordbs_archives(monkeypatch, tmp_path, zoo_data):
    """The same posterior by the other way: archives made from the conversion's draws give its means and deviations."""
    source = reference.POSTERIORS["kidiq"]
    compact, data, draws = source.files
    found = json.loads((zoo_data / compact.path).read_text())
    by_chain = [
        {name: values[1000 * chain : 1000 * (chain + 1)] for name, values in found["reference_draws"].items()}
        for chain in range(10)
    ]
    made = [File("none", "0" * 64)]
    for file, content in ((data, found["data"]), (draws, by_chain)):
        path = tmp_path / Path(file.path).name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("content.json", json.dumps(content))
        made.append(File(path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    monkeypatch.setitem(reference.POSTERIORS, "kidiq", reference.Source(source.name, tuple(made)))
    expected = datasets.reference_posterior("arK")  # something else still comes from the conversion
    assert expected.name == "arK-arK"
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    posterior = datasets.reference_posterior("kidiq")
    assert posterior.parameters == tuple(found["parameters"])
    for name in posterior.parameters:
        assert posterior.draws[name][3].tolist() == by_chain[3][name]
        assert posterior.mean[name] == pytest.approx(found["reference_mean"][name], rel=1e-6)
        assert posterior.sd[name] == pytest.approx(found["reference_sd"][name], rel=1e-5)
    assert datasets.load("kidiq").train.size == 434


def test_posteriors_in_a_folder_of_posteriordbs_layout_or_ours(tmp_path):
    data = {"y": [1, 2], "sigma": 0.5}
    chains = [
        {"mu": [1.0, 2.0, 3.0], "theta[1]": [0.0, 1.0, 0.5]},
        {"mu": [4.0, 5.0, 6.0], "theta[1]": [2.0, 2.0, 1.0]},
    ]
    for root in (tmp_path / "plain", tmp_path / "checkout" / "posterior_database"):
        draws, observations = root / "reference_posteriors" / "draws" / "draws", root / "data" / "data"
        for folder in (root / "posteriors", draws, observations):
            folder.mkdir(parents=True)
        card = {"data_name": "few", "reference_posterior_name": "few-normal"}
        (root / "posteriors" / "few-normal.json").write_text(json.dumps(card))
        (root / "posteriors" / "few-other.json").write_text(json.dumps({**card, "reference_posterior_name": None}))
    (tmp_path / "plain" / "data" / "data" / "few.json").write_text(json.dumps(data))
    (tmp_path / "plain" / "reference_posteriors" / "draws" / "draws" / "few-normal.json").write_text(json.dumps(chains))
    for file, content in ((observations / "few.json.zip", data), (draws / "few-normal.json.zip", chains)):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("content.json", json.dumps(content))
    ours = {"data": data, "chains": 2, "reference_draws": {k: chains[0][k] + chains[1][k] for k in chains[0]}}
    (tmp_path / "few-normal.json").write_text(json.dumps(ours))
    for folder in (tmp_path / "plain", tmp_path / "checkout", tmp_path / "checkout" / "posterior_database", tmp_path):
        found = datasets.read_reference(folder, "few-normal")
        assert found.parameters == ("mu", "theta[1]")
        assert found.draws["mu"].tolist() == [[1, 2, 3], [4, 5, 6]]
        assert found.mean["mu"] == 3.5
        assert found.sd["mu"] == pytest.approx(math.sqrt(3.5))
        assert found.data["y"].tolist() == [1, 2]
        assert found.data["sigma"] == 0.5
    with pytest.raises(DatasetError, match="no reference draws of 'few-other'"):
        datasets.read_reference(tmp_path / "plain", "few-other")
    with pytest.raises(DatasetError, match="holds no whole posterior 'none'"):
        datasets.read_reference(tmp_path, "none")
    (tmp_path / "few-normal.json").write_text("{}")
    with pytest.raises(DatasetError, match="KeyError"):
        datasets.read_reference(tmp_path, "few-normal")


# Files of the user's own


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_npz_with_splits_and_contexts(tmp_path):
    sizes = dict(zip(SPLITS, (5, 3, 2), strict=True))
    x = {split: np.random.rand(n, 4) for split, n in sizes.items()}
    context = {f"{split}_context": np.arange(n) for split, n in sizes.items()}
    dataset = datasets.load(save(tmp_path / "mine.npz", **x, **context))
    for split in SPLITS:
        np.testing.assert_array_equal(dataset.split(split).x.numpy(), x[split])
        np.testing.assert_array_equal(dataset.split(split).context.numpy(), context[f"{split}_context"])
    assert dataset.card.support == "unit"
    assert dataset.card.splits == sizes
    assert dataset.name == str(tmp_path / "mine.npz")


@settings(max_examples=50, deadline=None)
@given(n=st.integers(3, 400), seed=st.integers(0, 5))
def test_split_has_every_row_exactly_once(n, seed):
    rows = split_rows(n, seed)
    assert sorted(np.concatenate([rows[split] for split in SPLITS]).tolist()) == list(range(n))
    assert all(len(rows[split]) >= 1 for split in SPLITS)
    assert len(rows["valid"]) == len(rows["test"]) == max(1, round(n / 10))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 60), other=st.integers(3, 60))
def test_split_of_a_file_does_not_depend_on_what_was_loaded_before(tmp_path_factory, n, other):
    folder = tmp_path_factory.mktemp("npz")
    mine, others = save(folder / "mine.npz", a=np.arange(n)), save(folder / "others.npz", a=np.arange(other))
    first = datasets.load(mine)
    torch.rand(n), np.random.rand(n), datasets.load(others)
    again = datasets.load(mine)
    assert all(torch.equal(first.split(split).x, again.split(split).x) for split in SPLITS)
    assert sorted(torch.cat([first.split(split).x for split in SPLITS]).tolist()) == list(range(n))


@pytest.mark.parametrize("ending", [".npz", ".npy", ".csv"])
def test_one_table_in_each_form(tmp_path, ending):
    table = np.random.randn(20, 3)
    path = tmp_path / f"mine{ending}"
    if ending == ".npz":
        np.savez(path, anything=table)
    elif ending == ".npy":
        np.save(path, table)
    else:
        np.savetxt(path, table, delimiter=",")
    for given_as in (path, str(path)):
        dataset = datasets.load(given_as)
        assert dataset.card.shape == (3,)
        assert dataset.card.support == "real"
        assert "80/10/10" in dataset.card.description
        rows = torch.cat([dataset.split(split).x for split in SPLITS]).numpy()
        np.testing.assert_allclose(rows[rows[:, 0].argsort()], table[table[:, 0].argsort()], rtol=1e-15)


def test_csv_with_header_byte_order_mark_and_empty_lines(tmp_path):
    path = tmp_path / "mine.CSV"
    path.write_text("height, weight\n\n1,2\n3,4\n5,6\n\n", encoding="utf-8-sig")
    dataset = datasets.load(path)
    assert sorted(torch.cat([dataset.split(split).x for split in SPLITS]).tolist()) == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("a,b\n1,2\n3,x\n", DatasetError, r"line 3, column 'b': 'x' is not a number.*frame\['b'\]\.factorize\(\)"),
        ("a,b\n1,the cat sat\n", DatasetError, r"'the cat sat' is not a number.*CountVectorizer.*frame\['b'\]"),
        ("1,2\n3\n4,5\n", DatasetError, "line 2: 1 cells, but 2 in the first row"),
        ("a,1\n2,3\n4,5\n", DatasetError, "line 1: 'a' is not a number"),
        ("a,b\nc,d\n", DatasetError, "line 2, column 'a': 'c' is not a number"),
        ("1;2\n3;4\n", DatasetError, r"line 2, column '1;2': '3;4' is not a number.*missing\.$"),
        ("", EmptyDataError, "no rows"),
        ("a,b\n", EmptyDataError, "no rows"),
        ("1,2\n3,4\n", EmptyDataError, "2 rows cannot be split"),
    ],
)
def test_csv_that_is_no_table_of_numbers(tmp_path, text, error, message):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        datasets.load(path)


def test_nan_is_left_for_the_program_to_find(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("1,nan\n3,inf\n5,6\n")
    dataset = datasets.load(path)
    assert torch.cat([dataset.split(split).x for split in SPLITS]).isnan().sum() == 1
    assert dataset.card.support == "real"
    with pytest.raises(NonFiniteError):
        datasets.load(path, binarise="threshold")


@pytest.mark.parametrize(
    ("values", "support"),
    [([0, 1, 1, 0], "binary"), ([0, 0.25, 1, 0], "unit"), ([0, 255, 3, 7], "integer"), ([-0.5, 0, 1, 2], "real")],
)
def test_support_is_read_off_the_values_and_bytes_stay_bytes(tmp_path, values, support):
    path = tmp_path / "mine.npy"
    array = np.array(values)
    np.save(path, array.astype(np.uint8) if support in ("binary", "integer") else array)
    dataset = datasets.load(path)
    assert dataset.card.support == support
    assert sorted(torch.cat([dataset.split(split).x for split in SPLITS]).tolist()) == sorted(values)


def test_booleans_are_binary(tmp_path):
    np.save(tmp_path / "mine.npy", np.array([True, False, True]))
    assert datasets.load(tmp_path / "mine.npy").card.support == "binary"


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"train": np.zeros((3, 2)), "test": np.zeros((3, 2))}, DatasetError, "holds the arrays test, train; expected"),
        (
            {"train": np.zeros((3, 2)), "valid": np.zeros((3, 2)), "test": np.zeros((3, 3))},
            ShapeError,
            "differ in the shape",
        ),
        ({"train": np.zeros((3, 2)), "valid": np.zeros((0, 2)), "test": np.zeros((3, 2))}, EmptyDataError, "'valid'"),
        ({"a": np.zeros((0, 4))}, EmptyDataError, r"shape \(0, 4\)"),
        ({"a": np.float64(3)}, EmptyDataError, r"shape \(\)"),
        ({"a": np.array(["x", "y", "z"])}, DatasetError, "has the type <U1; expected numbers"),
        ({"a": np.array([1j, 2, 3])}, DatasetError, "complex128; expected numbers"),
        ({"a": np.array([{}, {}, {}], object)}, DatasetError, "cannot be read as .npz"),
        (
            {s + e: np.zeros(3 - len(e) // 8 * (s == "test")) for s in SPLITS for e in ("", "_context")},
            ShapeError,
            "test has 3 examples but 2 rows of context",
        ),
        ({**dict.fromkeys(SPLITS, np.zeros(3)), "train_context": np.zeros(3)}, DatasetError, "all three"),
    ],
)
def test_npz_that_is_no_data_set(tmp_path, arrays, error, message):
    with pytest.raises(error, match=message):
        datasets.load(save(tmp_path / "mine.npz", **arrays))


def test_npz_without_arrays(tmp_path):
    with pytest.raises(DatasetError, match=r"\(none\)"):
        datasets.load(save(tmp_path / "mine.npz"))


@pytest.mark.parametrize("ending", [".npz", ".npy"])
@pytest.mark.parametrize("keep", [0, 10, 300, -1])
def test_truncated_file(tmp_path, ending, keep):
    path = tmp_path / f"mine{ending}"
    table = np.random.rand(50, 4)
    np.savez_compressed(path, a=table) if ending == ".npz" else np.save(path, table)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=f"cannot be read as {ending}.*cut off"):
        datasets.load(path)


@settings(max_examples=100, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_damaged_npz_loads_whole_or_not_at_all(tmp_path_factory, position, mask):
    path = save(tmp_path_factory.mktemp("npz") / "mine.npz", a=np.arange(60.0).reshape(20, 3))
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= mask
    path.write_bytes(content)
    try:
        dataset = datasets.load(path)
    except ZooError:
        return
    # The damage lies in what does not matter, a time stamp say.
    assert sorted(torch.cat([dataset.split(split).x for split in SPLITS]).flatten().tolist()) == list(range(60))


def test_one_form_under_the_ending_of_another(tmp_path):
    np.save(tmp_path / "mine.npy", np.zeros(5))
    (tmp_path / "mine.npy").rename(tmp_path / "mine.npz")
    with pytest.raises(DatasetError, match=r"cannot be read as .npz"):
        datasets.load(tmp_path / "mine.npz")
    save(tmp_path / "table.npz", a=np.zeros(5)).rename(tmp_path / "table.npy")
    with pytest.raises(DatasetError, match=r"cannot be read as .npy"):
        datasets.load(tmp_path / "table.npy")


@pytest.mark.parametrize("name", ["nothing.npz", "no/such/folder", "nothing.csv"])
def test_missing_user_file(name):
    with pytest.raises(DatasetError, match=f"No file or folder '{name}'.*looked at /"):
        datasets.load(name)


def test_missing_path_object_is_never_taken_for_a_name():
    with pytest.raises(DatasetError, match="No file or folder 'digits'"):
        datasets.load(Path("digits"))


def test_unknown_ending(tmp_path):
    (tmp_path / "mine.txt").write_text("1,2")
    with pytest.raises(DatasetError, match=r"mine.txt; expected .npz, .npy, .csv"):
        datasets.load(tmp_path / "mine.txt")


# Folders of images


def draw(folder: Path, name: str, mode: str = "L", size: tuple[int, int] = (5, 4), value: int = 0) -> None:
    random = np.random.RandomState(value)
    Image.fromarray(random.randint(256, size=(size[1], size[0], 3), dtype=np.uint8)).convert(mode).save(folder / name)


@pytest.mark.parametrize(("mode", "shape"), [("L", (4, 5)), ("RGB", (3, 4, 5))])
def test_image_folder(tmp_path, mode, shape):
    for i in range(12):
        draw(tmp_path, f"{i:02}.png", mode, value=i)
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = datasets.load(tmp_path)
    assert dataset.card.shape == shape
    assert dataset.card.support == "unit"
    assert "divided by 255" in dataset.card.description
    with Image.open(tmp_path / f"{split_rows(12)['train'][0]:02}.png") as image:
        expected = np.array(image)
    expected = expected.transpose(2, 0, 1) if mode == "RGB" else expected
    np.testing.assert_allclose(dataset.train.x[0].numpy(), expected / 255, rtol=1e-15)


def test_black_and_white_images_are_binary(tmp_path):
    for i in range(4):
        draw(tmp_path, f"{i}.png", "1", value=i)
    dataset = datasets.load(tmp_path)
    assert dataset.card.support == "binary"
    assert set(dataset.train.x.unique().tolist()) == {0, 1}


def test_image_folder_binarised(tmp_path):
    for i in range(4):
        draw(tmp_path, f"{i}.jpg", value=i)
    dataset = datasets.load(tmp_path, binarise="threshold")
    assert dataset.card.support == "binary"
    assert torch.equal(dataset.train.x, (datasets.load(tmp_path).train.x >= 0.5).double())


def test_image_folder_names_the_first_odd_file(tmp_path):
    for i in range(4):
        draw(tmp_path, f"{i}.png", size=(5, 5) if i in (2, 3) else (5, 4))
    with pytest.raises(ShapeError, match=r"2\.png is 5 pixels wide and 5 high, but 0\.png 5 and 4"):
        datasets.load(tmp_path)


def test_damaged_image(tmp_path):
    for i in range(4):
        draw(tmp_path, f"{i}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with pytest.raises(DatasetError, match=r"1\.png cannot be read as an image"):
        datasets.load(tmp_path)


def test_folder_without_images(tmp_path):
    with pytest.raises(EmptyDataError, match=r"holds no \.png"):
        datasets.load(tmp_path)


# Data


def test_data_rows_and_batches_keep_context_along():
    data = Data(torch.arange(10.0), torch.arange(10.0) * 2)
    batches = list(data.batches(4))
    assert [batch.size for batch in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([batch.context for batch in batches]), data.context)
    chosen = data.rows(torch.tensor([7, 1]))
    assert chosen.x.tolist() == [7, 1]
    assert chosen.context.tolist() == [14, 2]


def test_unknown_split():
    with pytest.raises(OptionError, match=r"'training'.*'train', 'valid' or 'test'"):
        datasets.load("coin").split("training")


def test_every_reader_of_user_files_has_its_ending_in_the_help():
    assert all(ending in files.FORMS for ending in files.ENDINGS)


def test_the_page_on_data_names_every_data_set():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert [name for name in (*REGISTRY, *reference.POSTERIORS) if f"`{name}`" not in page] == []


def test_a_binarised_file_carries_a_name_that_loads_it_again(tmp_path):
    np.save(tmp_path / "grey.npy", np.random.default_rng(0).random((40, 5)))
    for how in ("threshold", "stochastic"):
        first = datasets.load(tmp_path / "grey.npy", binarise=how)
        again = datasets.load(first.name)
        assert again.name == first.name
        assert torch.equal(first.train.x, again.train.x)


def test_frames_are_the_steps_of_the_chorales(zoo_data):
    chorales, frames = datasets.load("jsb"), datasets.load("jsb-frames")
    for split in SPLITS:
        x, lengths = chorales.split(split)
        inside = torch.arange(x.shape[1]) < lengths[:, None]
        assert torch.equal(frames.split(split).x, x[inside])
    # The published 'note 1-gram': a step's bits independent, at their frequencies.
    probs = (frames.train.x.sum(0) + 0.5) / (frames.train.size + 1)
    score = torch.distributions.Bernoulli(probs).log_prob(frames.test.x).sum(-1).mean()
    assert -score.item() == pytest.approx(11.06, abs=0.005)


def test_patches_are_the_photographs_cut_up():
    dataset = datasets.load("photo-patches")
    widths = {"train": (60, 0), "valid": (9, 61), "test": (9, 71)}  # patches in a row of each split, and the first
    for split, (width, first) in widths.items():
        x = (dataset.split(split).x * 255).round().reshape(2, 53, width, 3, 8, 8)
        for part, name in zip(x, ("china.jpg", "flower.jpg"), strict=True):
            again = part.permute(0, 3, 1, 4, 2).reshape(53 * 8, width * 8, 3).numpy()
            image = load_sample_image(name)
            np.testing.assert_array_equal(again, image[: 53 * 8, 8 * first : 8 * (first + width)])
    assert len((dataset.train.x * 255).unique()) == 256


def test_a_file_under_zoo_data_is_found_by_its_path_there(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    (folder / "debd").mkdir(parents=True)
    bits = np.eye(6, dtype=np.uint8)
    np.savez(folder / "debd" / "mine.npz", train=bits, valid=bits[:2], test=bits[:3])
    monkeypatch.setenv("ZOO_DATA", str(folder))
    for name in ("debd/mine", "debd/mine.npz"):
        found = datasets.load(name)
        assert found.card.splits == {"train": 6, "valid": 2, "test": 3}
        assert (found.card.shape, found.card.support) == ((6,), "binary")
        assert torch.equal(datasets.load(found.name).train.x, found.train.x)
    # A file where the command is run comes first, and a name of the registry before both.
    (tmp_path / "here" / "debd").mkdir(parents=True)
    np.savez(tmp_path / "here" / "debd" / "mine.npz", train=bits[:1], valid=bits[:1], test=bits[:1])
    monkeypatch.chdir(tmp_path / "here")
    assert datasets.load("debd/mine.npz").train.size == 1
    np.savez(folder / "coin.npz", train=bits, valid=bits, test=bits)
    assert datasets.load("coin").train.size == 12
    with pytest.raises(DatasetError, match="debd/yours"):
        datasets.load("debd/yours")


def test_names_of_data_have_a_base() -> None:
    for name in ("mnist10k", "mnist10k-binary", "mnist10k-labelled", "mnist10k-binary-labelled"):
        assert datasets.base_name(name) == "mnist10k"
    assert datasets.base_name("stacked-digits") == "stacked-digits"


# What was read, left out and rounded


@pytest.mark.parametrize("text", ["0,1,2\n5,6,7\n8,9,10\n1,1,1\n", "0\n1\n1\n0\n", "3,4,5\n1,2,3\n1,2,3\n1,2,3\n"])
def test_a_first_row_that_counts_up_needs_a_word(tmp_path, text):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"first row counts up.*header=True.*mine\.csv-with-header"):
        datasets.load(path)
    rows = {True: 3, False: 4}
    for header, ending in ((True, "-with-header"), (False, "-without-header")):
        by_option, by_name = datasets.load(path, header=header), datasets.load(f"{path}{ending}")
        assert sum(by_option.card.splits.values()) == sum(by_name.card.splits.values()) == rows[header]
        assert torch.equal(datasets.load(by_option.name).train.x, by_option.train.x)
    with pytest.raises(OptionError, match="give one of them"):
        datasets.load(f"{path}-with-header", header=False)
    np.save(tmp_path / "mine.npy", np.zeros((4, 2)))
    with pytest.raises(DatasetError, match=r"header is of \.csv"):
        datasets.load(tmp_path / "mine.npy", header=True)


def test_a_header_in_a_name_and_binarising_go_together(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("0,1\n0.2,0.7\n0.6,0.1\n0.9,0.3\n")
    first = datasets.load(f"{path}-with-header", binarise="threshold")
    again = datasets.load(first.name)
    assert first.name == f"{path}-with-header-binary" == again.name
    assert torch.equal(first.train.x, again.train.x)


def test_what_of_a_folder_is_not_read_is_said(tmp_path):
    for i in range(5):
        draw(tmp_path, f"{i}.png")
    for i in range(3):
        draw(tmp_path, f"{i}.bmp")
    (tmp_path / "more").mkdir()
    draw(tmp_path / "more", "0.png")
    with pytest.warns(ReadNotice, match=r"5 images were read; not read: 3 \.bmp, 1 folder \(more\)"):
        dataset = datasets.load(tmp_path)
    assert "not read: 3 .bmp" in dataset.card.description


def test_images_are_turned_upright(tmp_path):
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    tag, quarter_turn = 0x0112, 6
    exif = Image.Exif()
    exif[tag] = quarter_turn
    for i in range(3):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png", exif=exif)
    np.testing.assert_allclose(datasets.load(tmp_path).train.x[0].numpy() * 255, np.rot90(pixels, -1))


def test_an_image_that_is_too_large_is_refused(tmp_path, monkeypatch):
    for i in range(3):
        draw(tmp_path, f"{i}.png")
    for most in (15, 5):  # more than it, more than twice as many: Pillow warns, or raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(DatasetError, match=r"0\.png is too large"):
            datasets.load(tmp_path)


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((1000, 1000), np.uint8))
    assert datasets.load(tmp_path / "bomb.npz").card.shape == (1000,)
    monkeypatch.setattr(files, "BOMB_BYTES", 10_000)
    with pytest.raises(DatasetError, match=r"bytes unpack to 1,000,128"):
        datasets.load(tmp_path / "bomb.npz")


def test_objects_are_refused(tmp_path):
    np.save(tmp_path / "mine.npy", np.array([{"a": 1}] * 3), allow_pickle=True)
    with pytest.raises(DatasetError, match="objects"):
        datasets.load(tmp_path / "mine.npy")


def test_rounded_whole_numbers_are_said(tmp_path):
    np.save(tmp_path / "ids.npy", np.full((4, 1), 2**24 + 1))
    torch.set_default_dtype(torch.float32)
    with pytest.warns(RoundingNotice) as said:
        datasets.load(tmp_path / "ids.npy")
    assert "2 whole numbers of the train examples" in str(said[0].message)
    assert len(said) == len(SPLITS)
    torch.set_default_dtype(torch.float64)
    datasets.load(tmp_path / "ids.npy")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(DatasetError, match="a pipe or a device"):
        datasets.load(tmp_path / "x.npy")


def test_deaths_by_horse_kick_add_up_as_von_bortkiewicz_has_them():
    data = datasets.load("horse_kicks")
    x, context = (
        torch.cat([getattr(split, part) for split in (data.train, data.valid, data.test)]) for part in ("x", "context")
    )
    by_corps = [16, 16, 12, 12, 8, 11, 17, 12, 7, 13, 15, 25, 24, 8]  # G, I to VIII, IX, X, XI, XIV, XV
    by_year = [3, 5, 7, 9, 10, 18, 6, 14, 11, 9, 5, 11, 15, 6, 11, 17, 12, 15, 8, 4]  # 1875 to 1894
    assert [int(x[context[:, 0] == corps].sum()) for corps in range(14)] == by_corps
    assert [int(x[context[:, 1] == year].sum()) for year in context[:, 1].unique()] == by_year
    assert x.long().bincount().tolist() == [144, 91, 32, 11, 2]


def test_data_are_equal_by_their_numbers():
    x, context = torch.randn(4, 2), torch.randn(4, 1)
    assert Data(x, context).equals(Data(x.clone(), context.clone()))
    assert not Data(x, context).equals(Data(x))
    assert not Data(x).equals(Data(x[:3]))
    assert not Data(x).equals(Data(x + 1e-6))
