"""The table of gears: rows that were measured, one that was not made, rows that are kept."""

from __future__ import annotations

import json

import torch

from benchmarks.scripts import gears

ROWS = {
    "vae small": {
        "never": {"ms": 5.157, "ready": 0.01, "refused": ""}, "traced": {"ms": 0.354, "ready": 0.93, "refused": ""},
    },
    "gan small": {"traced": {"ms": 12.3, "ready": 3.0, "refused": "gan GAN goes on eagerly: why."}},
    "nade small": {"refused": "no data."},
}  # fmt: skip


def test_a_page_has_a_row_for_each_preset_and_says_why_a_gear_was_refused():
    text = gears.page(ROWS, "a machine")
    assert "| vae | small | 5.16 | 0.354 (0.9) |  |" in text
    assert "| gan | small |  | refused |  |" in text
    assert "| nade | small | refused | refused | refused |" in text
    assert text.endswith("- gan, small: gan GAN goes on eagerly: why.\n- nade, small: no data.\n")


def test_steps_are_timed_in_the_gears_that_were_asked_for():
    found = gears.measure("vae", "small", "digits-binary", ["never", "traced"], torch.device("cpu"), 0.01)
    assert list(found) == ["never", "traced"]
    assert all(row["ms"] > 0 and row["refused"] == "" for row in found.values())


def test_the_chosen_gears_of_small_presets_are_measured_and_data_that_are_not_there_are_named(
    tmp_path, capsys, monkeypatch
):
    presets = (("vae", "small", "digits-binary"), ("vae", "paper", "digits-binary"), ("gan", "small", "no-such-data"))
    monkeypatch.setattr(gears, "PRESETS", presets)
    monkeypatch.setattr(gears, "in_words", lambda hardware: "this machine")
    path = tmp_path / "rows.json"
    known = {"vae small": dict.fromkeys(gears.GEARS, ROWS["vae small"]["never"])}
    path.write_text(json.dumps({"machine": f"this machine, torch {torch.__version__}", "rows": known}))
    gears.main(["--rows", str(path), "--gears", "never,traced,always"])
    said = capsys.readouterr().out
    assert "on this machine, torch" in said
    assert "| vae | small | 5.16 | 5.16 (0.0) | 5.16 (0.0) |" in said
    assert "no-such-data" in said
    assert "paper" not in said  # on a processor
    assert len(json.loads(path.read_text())["rows"]) == 2
    gears.main(["--rows", str(path), "--only", "vae"])
    assert "no-such-data" not in capsys.readouterr().out
