"""A folder like a checkout of Pyro, with models of our own under the names of Pyro's files."""

from __future__ import annotations

import json
from pathlib import Path

MODULE = """
import logging
import sys

import torch
import wget
from number import NUMBER
from visdom import Visdom

import pyro
import pyro.distributions as dist
from pyro.contrib.examples.util import MNIST, get_data_directory

logging.basicConfig(level=logging.DEBUG)
torch.set_default_dtype(torch.float32)
pyro.set_rng_seed(0)
sys.modules.pop("nothing", None)


class Images(MNIST):
    pass


def model(data):
    pyro.sample("obs", dist.Normal(0.0, NUMBER), obs=data)
"""
CELLS = [
    "import os\nimport torch\nimport not_installed_anywhere\nfrom torch.distributions import constraints",
    "%matplotlib inline\nimport pyro\nimport pyro.distributions as dist\nassert pyro.__version__.startswith('1.9.1')",
    'raise RuntimeError("training is not to be run")',
    (
        "def model(data):\n    f = pyro.sample('latent_fairness', dist.Beta(10.0, 10.0))\n"
        "    for i in range(len(data)):\n        pyro.sample(f'obs_{i}', dist.Bernoulli(f), obs=data[i])\n"
    ),
    (
        "def guide(data):\n    a = pyro.param('a', torch.tensor(15.0), constraint=constraints.positive)\n"
        "    pyro.sample('latent_fairness', dist.Beta(a, 15.0))\n"
    ),
    "def twice(f):\n    return lambda x: 2 * f(x)\n\n\n@twice\ndef shifted(x):\n    return x + K\n",
    "def guide(data):\n    raise RuntimeError('the second of this name')\n",
]


def grow(root: Path) -> Path:
    """Makes the folder: one example that needs what is not installed, one notebook."""
    (root / "examples" / "tiny").mkdir(parents=True)
    (root / "examples" / "tiny" / "svi.py").write_text(MODULE)
    (root / "examples" / "tiny" / "number.py").write_text("NUMBER = 3.0\n")
    (root / "tutorial" / "source").mkdir(parents=True)
    cells = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in CELLS]
    text = json.dumps({"cells": [{"cell_type": "markdown", "source": ["# Title"]}, *cells]})
    (root / "tutorial" / "source" / "svi_part_i.ipynb").write_text(text)
    return root
