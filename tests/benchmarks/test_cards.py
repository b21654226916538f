"""Cards of programs and data sets, in words and in JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from benchmarks import cards, index
from zoo import catalogue, datasets


def test_list_names_every_program_and_data_set(zoo: Any) -> None:
    code, out, _ = zoo("list", "--json")
    assert code == 0
    assert {card["name"] for card in json.loads(out)} == set(catalogue.names())
    _, out, _ = zoo("list", "--datasets", "--json")
    assert {card["name"] for card in json.loads(out)} == set(datasets.names())
    _, out, _ = zoo("list")
    assert "markov-chain" in out
    _, out, _ = zoo("list", "--datasets")
    assert "digits-binary" in out


def test_show_prints_the_card(zoo: Any) -> None:
    code, out, _ = zoo("show", "hmm", "--json")
    card = json.loads(out)
    assert code == 0
    assert card["family"] == "chains"
    assert [site["name"] for site in card["sites"]] == ["z"]
    assert "exact posterior" in card["capabilities"]
    assert {"em", "svi"} <= set(card["methods"])
    assert "nuts" not in card["methods"]
    assert card["parameters"] == catalogue.create("hmm").parameter_count()
    # The story of the chains: the same 12 bits take 2^n - 1, n and 2n - 1 numbers.
    sizes = {"full-joint": 2**12 - 1, "independent": 12, "markov-chain": 23}
    for name, size in sizes.items():
        assert catalogue.create(name, event_shape=[12]).parameter_count() == size
    _, out, _ = zoo("show", "independent")
    assert re.search(r"parameters\s+64 \(built for digits-binary\)", out)
    assert re.search(r"latents\s+none", out)
    _, out, _ = zoo("show", "eight-schools")
    assert re.search(r"latents\s+mu one number, Normal, global", out)


@pytest.mark.parametrize("name", catalogue.names())
def test_every_program_has_a_card(name: str, zoo: Any) -> None:
    # What was made beforehand is what the program says now, in the dtype of a command.
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        card = cards.program_card(name)
    finally:
        torch.set_default_dtype(default)
    assert index.card(name) == json.loads(json.dumps(card)), "run: python docs/models.py"
    code, out, error = zoo("show", name)
    assert code == 0, error
    assert name in out
