"""The trained VAE as a target: trained once, its decoder in every program."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.cells.guides import rebuilt
from benchmarks.suites.posterior import svi
from benchmarks.targets import trained
from tests.benchmarks.cells.one import QUICK, run
from zoo import datasets
from zoo.latent.heads import HEADS


def test_the_trained_vae_is_trained_once_and_every_guide_gets_its_decoder(tmp_path: Path) -> None:
    options = {"epochs": 2}
    target, train = trained.load("vae-digits", 0, tmp_path, **options)
    folder = next((tmp_path / "programs").glob("vae-digits-0-*[!k]"))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert train.size == datasets.card("digits-binary").splits["train"]
    for family in ("diagonal", "full", "iaf"):
        program = rebuilt(target.program(), {"guide": family}, train)
        assert isinstance(program.head, HEADS[family])
        z = torch.randn(5, 2)
        torch.testing.assert_close(program.decode(z).base_dist.logits, target.program().decode(z).base_dist.logits)
    method = svi("flow", program={"guide": "iaf"}, steps=3)
    found = run("posterior", "vae-digits", method, tmp_path, options=options, **QUICK)
    assert found["kl_reverse"].value > 0
    # Trained in the same dtype and by the same options: the second load read the folder.
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
