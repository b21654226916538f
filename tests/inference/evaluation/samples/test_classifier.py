"""The classifier that judges samples: good on digits it has not seen, the same each time, kept and found again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from inference.evaluation.samples import classifier as features
from inference.evaluation.samples.classifier import Classifier, train_classifier
from zoo import datasets
from zoo.errors import OptionError, ShapeError

STEPS = 300
"""Enough for tests of what the network does, not of how good it is."""


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(features, "cache_folder", lambda: tmp_path)


@pytest.fixture(scope="module")
def quick() -> Classifier:
    return train_classifier("digits", steps=STEPS, cache=False)


def test_training_is_the_same_each_time_and_leaves_the_callers_state_alone():
    first = train_classifier("digits", steps=40, cache=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(5)
    again = train_classifier("digits", steps=40, cache=False)
    drawn = torch.rand(3)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert again.sha256 == first.sha256
    assert first.hash == first.sha256[:12]
    assert train_classifier("digits", steps=40, seed=1, cache=False).hash != first.hash


def test_every_class_is_recognised_by_its_label(quick):
    dataset = datasets.load("digits")
    guessed, labels = quick.classify(dataset.test.x), dataset.labels["test"]
    accuracy = (guessed == labels).double().mean()
    assert quick.training_of.test_accuracy == pytest.approx(accuracy.item())
    for digit in range(10):
        assert guessed[labels == digit].mode().values == digit


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "mnist10k"])
def test_full_training_reaches_98_percent(name, request):
    if datasets.card(name).files:
        request.getfixturevalue("zoo_data")
    assert train_classifier(name, cache=False).training_of.test_accuracy >= 0.98


def test_only_the_training_split_is_seen():
    dataset = datasets.load("digits")
    other = datasets.Dataset(dataset.card, dataset.train, dataset.test, dataset.valid, dict(dataset.labels))
    other.labels["test"], other.labels["valid"] = dataset.labels["valid"], dataset.labels["test"]
    first, second = (train_classifier(each, steps=5, cache=False) for each in (dataset, other))
    assert first.hash == second.hash


def test_what_would_change_the_class_is_not_done_to_rigid_images():
    images = torch.zeros(200, 32, 32)
    images[:, 8:24, 16] = 1  # a stroke, upright
    moved, shifted = features._moved(images), features._shifted(images)

    def leans(x: torch.Tensor) -> torch.Tensor:
        """Pixels from the centre of the upper half to that of the lower one, (N,)."""
        columns = torch.arange(32.0)
        centre = [(half.sum(1) * columns).sum(1) / half.sum((1, 2)) for half in (x[:, :16], x[:, 16:])]
        return centre[1] - centre[0]

    assert float(leans(moved).abs().max()) > 0.5
    assert float(leans(shifted).abs().max()) < 1e-4
    assert float((shifted - images).abs().amax((1, 2)).min()) > 0  # but moved they are, by a pixel at most
    assert torch.equal(shifted[:, :7], torch.zeros(200, 7, 32))
    dataset = datasets.load("digits")
    rigid = replace(dataset, card=replace(dataset.card, rigid=True))
    assert train_classifier(dataset, steps=5).hash != train_classifier(rigid, steps=5).hash


def test_it_is_kept_and_found_again(monkeypatch):
    first = train_classifier("digits", steps=5)
    monkeypatch.setattr(features, "_train", lambda *arguments: pytest.fail("trained again"))
    second = train_classifier("digits", steps=5)
    assert (second.sha256, second.training_of) == (first.sha256, first.training_of)
    assert not second.training


def test_a_damaged_file_is_replaced(tmp_path):
    first = train_classifier("digits", steps=5)
    (kept,) = (tmp_path / "classifiers").glob("digits-*.safetensors")
    content = bytearray(kept.read_bytes())
    for damage in (content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1])):
        kept.write_bytes(damage)
        assert train_classifier("digits", steps=5).sha256 == first.sha256
        assert kept.read_bytes()[: len(content)] != damage


def test_other_data_or_settings_are_other_files(tmp_path):
    for options in ({"steps": 5}, {"steps": 6}, {"steps": 5, "seed": 1}):
        train_classifier("digits", **options)
    train_classifier("digits-binary", steps=5)
    assert len(list((tmp_path / "classifiers").iterdir())) == 4


@pytest.mark.parametrize("shape", [(8, 8), (1, 9, 7), (3, 28, 28)])
def test_shapes_and_dtypes(shape):
    network = Classifier(shape, classes=4, width=16)
    x = torch.rand(5, *shape, dtype=torch.float32)
    assert network(x).shape == (5, 4)
    found = network.describe(x, batch_size=2)
    assert found.shape == (5, 16)
    assert found.min() >= 0
    assert network.training  # as before
    assert not found.requires_grad
    torch.testing.assert_close(found, network.describe(x.double()))
    with pytest.raises(ShapeError, match="wants images"):
        network(x[..., :-1])


def test_images_are_moved_a_little_and_stay_images():
    x = datasets.load("digits").train.x[:100].float()
    moved = features._moved(x)
    assert moved.shape == x.shape
    assert moved.min() >= 0
    assert moved.max() <= 1
    # Nearer to themselves than to another digit, but not the same.
    own, other = (moved - x).flatten(1).norm(dim=1), (moved - x.roll(1, 0)).flatten(1).norm(dim=1)
    assert (own > 0).all()
    assert own.mean() < 0.6 * other.mean()


def test_what_cannot_be_classified_is_named():
    with pytest.raises(OptionError, match="'photo-patches' has no class labels"):
        train_classifier("photo-patches")
    with pytest.raises(ShapeError, match="images"):
        train_classifier("iris")
