"""Uses an installed wheel from a folder that is not the checkout: `make wheel` and `make release` run this.

Nothing of the checkout is on the path, so whatever the wheel lacks is missed here: data, index, types, the command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("zoo", "inference", "benchmarks")
WHERE = "import importlib.util as u, sys; print(*(u.find_spec(name).origin for name in sys.argv[1:]), sep='\\n')"


def run(folder: str, *words: str) -> str:
    """Standard output of Python with these words, in a folder; it must succeed."""
    # Safe path: neither the folder nor that of a script comes before what is installed.
    done = subprocess.run([sys.executable, "-P", *words], cwd=folder, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def main() -> None:
    """Raises AssertionError where the wheel is not whole."""
    with tempfile.TemporaryDirectory() as folder:
        for origin in map(Path, run(folder, "-c", WHERE, *PACKAGES).split()):
            installed = origin.parent
            assert not (installed.parent / "pyproject.toml").exists(), f"{origin} is of the checkout"
            ours = CHECKOUT / installed.name
            expected = {path.relative_to(ours) for path in ours.rglob("*") if path.is_file() and path.suffix != ".pyc"}
            missing = {path for path in expected if not (installed / path).is_file()}
            assert not missing, f"the wheel lacks {sorted(map(str, missing))} of {installed.name}"
            assert (installed / "py.typed").is_file()
        command = ("-m", "benchmarks.cli")
        assert any(card["name"] == "vae" for card in json.loads(run(folder, *command, "list", "--json")))
        run(folder, *command, "bench", "main", "--seeds", "1", "--select", "*/coin/exact/*",
            "--select", "*/independent pixels/*", "--jobs", "1", "--out", "results")  # fmt: skip
        assert "independent pixels" in (Path(folder) / "results" / "report.md").read_text()
    print("the wheel is whole")


if __name__ == "__main__":
    main()
