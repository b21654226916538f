"""What methods of energies share: a fit says at its end how its chains mix."""

from __future__ import annotations

import torch

from inference import fit
from inference.methods.energy import why_no_energy, why_not_of_examples
from inference.mixing import RHAT_LIMIT
from zoo.energy.dbm import DBM
from zoo.energy.deep import DeepEnergy
from zoo.energy.rbm import RBM
from zoo.latent.ppca import PPCA


def test_whom_they_take():
    assert why_no_energy(RBM()) is None
    assert why_no_energy(DBM()) is None
    assert "no energy-based model" in why_no_energy(PPCA([3], 1))
    assert "no energy-based model" in why_not_of_examples(PPCA([3], 1))
    assert why_not_of_examples(RBM()) is None
    assert "hidden states" in why_not_of_examples(DBM())


def test_a_fit_tells_whether_its_chains_mix():
    torch.manual_seed(0)
    x = torch.randn(200, 2)
    good = fit(DeepEnergy([2], step=0.8, particles=32), x, "nce", steps=5)
    assert good.info["mixing"]["rhat"] < RHAT_LIMIT
    assert 0.5 < good.info["mixing"]["moved"] < 1
    assert "warning" not in good.info
    assert "log_partition" in good.info
    bad = fit(DeepEnergy([2], step=1e-4, particles=32), x, "cd", steps=5)
    assert bad.info["mixing"]["rhat"] > RHAT_LIMIT
    assert "chains that start apart are not alike" in bad.info["warning"]
    assert bad.history.last("moved") > 0.9
    assert fit(RBM([3], 2), (x[:, :1] > 0).double().expand(-1, 3), "cd", steps=5).history.last("moved") > 0
