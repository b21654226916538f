"""The docs do not lie: code runs, commands parse, what they name exists, the site builds without a warning."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.main import get_command

from benchmarks import targets
from benchmarks.cli import app
from benchmarks.metrics import METRICS
from benchmarks.speed import suite as speed
from benchmarks.suites import SUITES, get_suite
from inference import METHODS, make_method
from inference.guides.named import AUTOGUIDES
from inference.methods.bounds import OBJECTIVES
from tests import processes
from zoo import catalogue, datasets
from zoo.datasets.files import is_path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
HABITS = DOCS / "habits.md"
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))
FRONT = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
CELL = re.compile(r"^\|.*\| `([^`]+)` \|$")
"""A row of a table whose last cell is code and nothing else."""
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def identify(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(page.read_text()) if language in languages]


def code(page: Path) -> str:
    """The python blocks of a page, everything else blank, so that line numbers in errors are those of the page; of the
    page of habits the rows of its tables too; of a notebook its cells, one after the other."""
    if page.suffix == ".ipynb":
        return "\n\n".join(cells(page))
    text = page.read_text()
    lines = [""] * (text.count("\n") + 1)
    for found in FENCE.finditer(text):
        if found[1] == "python":
            first = text.count("\n", 0, found.start(2))
            for i, line in enumerate(found[2].splitlines()):
                lines[first + i] = line
    for i, cell in rows(page).items():
        if not cell.startswith("zoo "):
            lines[i] = cell
    return "\n".join(lines)


def rows(page: Path) -> dict[int, str]:
    """Line -> what the last cell of a table says to write; of the page of habits, whose tables are run."""
    lines = enumerate(page.read_text().splitlines()) if page == HABITS else ()
    return {i: found[1] for i, line in lines if (found := CELL.match(line))}


def cells(notebook: Path) -> list[str]:
    """The code of a notebook, by cell."""
    return ["".join(c["source"]) for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]


def commands(page: Path) -> list[list[str]]:
    """The lines of its shell blocks, and of the page of habits the commands in its tables, as words."""
    told = [cell for cell in rows(page).values() if cell.startswith("zoo ")]
    text = "\n".join([*blocks(page, "bash", "sh"), *told]).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line for line in lines if line]


def run(script: Path | str, folder: Path, *arguments: str) -> None:
    done = processes.run(script, arguments, folder, scratch=folder / "printed")
    assert done.returncode == 0, done.stderr


# tests/test_recipe.py runs the recipe, in the files that it names.
RUN = [*NOTEBOOKS, *(p for p in PAGES if blocks(p, "python") and p.name != "write-a-model.md")]

FEW = """
import runpy, sys
from inference.evaluation import two_samples
from inference.training.loop import Schedule
two_samples.ROUNDS = 10
asked = Schedule.total_steps
by_em = lambda schedule: schedule.report_every == 1
Schedule.total_steps = lambda schedule, n: asked(schedule, n) if by_em(schedule) else min(asked(schedule, n), 10)
runpy.run_path(sys.argv[1], run_name="__main__")
"""
"""Runs a script whose fits and classifiers are cut short: what a page says is what can be called, and fits are tested
elsewhere."""


@pytest.mark.parametrize("page", RUN, ids=identify)
def test_code_runs(page: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{page.stem}.py"
    script.write_text(code(page))
    whole = page.name == "write-a-model.ipynb"  # it checks what its fit has found
    run(script, tmp_path) if whole else run(FEW, tmp_path, str(script))


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=identify)
def test_code_runs_to_its_end(page: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{page.stem}.py"
    script.write_text(code(page))
    run(script, tmp_path)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=identify)
def test_notebooks_show_what_their_code_says(notebook: Path) -> None:
    """Run as they are, from the first cell to the last, by docs/notebooks.py."""
    found = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in found] == list(range(1, len(found) + 1))
    for cell in found:
        ends = ast.parse("".join(cell["source"])).body[-1]
        shows = isinstance(ends, ast.Expr) and not (isinstance(ends.value, ast.Call) and "check" in ast.unparse(ends))
        assert bool(cell["outputs"]) >= shows
        assert all(output["output_type"] != "error" for output in cell["outputs"])
    assert any("image/png" in output.get("data", {}) for cell in found for output in cell["outputs"])


def test_first_commands_run(tmp_path: Path) -> None:
    """The first five minutes on the command line, in one process: most of a command's time is its imports."""
    script = tmp_path / "commands.py"
    lines = [line[1:] for line in commands(DOCS / "index.md") if line[0] == "zoo" and line[1] != "bench"]
    assert lines
    script.write_text(
        "from benchmarks.cli import main\n"
        f"for line in {lines!r}:\n"
        "    try:\n"
        "        main(line)\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, (line, end.code)\n"
    )
    run(script, tmp_path)


@pytest.mark.parametrize("page", [*PAGES, *FRONT], ids=identify)
def test_commands_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]
    make = (ROOT / "Makefile").read_text()
    monkeypatch.chdir(tmp_path)
    for program, *words in commands(page):
        if "--config" in words:  # the file that the page shows
            file = Path(words[words.index("--config") + 1])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(blocks(page, "toml")[0])
        if program == "zoo":
            assert words[0] in known, f"zoo has no command {words[0]!r}"
            # Parses, converts and checks what is required, but runs nothing; unknown options raise.
            given = known[words[0]].make_context(f"zoo {words[0]}", words[1:]).params
            if words[0] in ("show", "fit") and ":" not in given["name"]:
                assert given["name"] in catalogue.BUILTIN
            if words[0] == "bench" and given["status"]:
                assert given["suite"] is None
            elif words[0] == "bench" and given["suite"] == "speed":
                speed.chosen(given["only"])
            elif words[0] == "bench" and ":" not in given["suite"]:
                for pattern in given["select"] or [""]:
                    get_suite(given["suite"]).cells((pattern,))  # raises where nothing matches
            if given.get("data") is not None and not is_path(given["data"]):
                datasets.card(given["data"])
        elif program == "make":
            assert re.search(rf"^{words[0]}:", make, re.MULTILINE), f"no target {words[0]}"
        elif program == "python" and words[0] == "-m":
            assert find_spec(words[1]), f"no module {words[1]}"
        elif program == "python":
            assert (ROOT / words[0]).is_file(), f"no file {words[0]}"


@pytest.mark.parametrize("page", FRONT, ids=identify)
def test_links_of_the_front_pages_resolve(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_site_builds_without_warnings_and_documents_every_method(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "reference" / "inference" / "index.html").read_text()
    missing = [cls for cls in map(make_method, METHODS) if f'.{type(cls).__name__}"' not in page]
    assert not missing
    assert 'id="inference.fit.fit"' in page  # members are there, not only the docstring of the module


def test_named_tests_exist() -> None:
    """Pages name tests as tests/folder/test_file.py::test_name."""
    found = 0
    for page in PAGES:
        for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
            assert (ROOT / file).exists(), f"{page.name} names {file}"
            defined = {n.name for n in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(n, ast.FunctionDef)}
            assert not name or name in defined, f"{page.name} names {file}::{name}"
            found += 1
    assert found


def test_named_paths_exist() -> None:
    """Files are named as `folder/file.py` or `folder/file.py:Name`, folders as `folder/`."""
    named = re.compile(r"`((?:zoo|inference|benchmarks|tests|docs)/[\w/.]*)(?::(\w+))?`")
    found: dict[str, int] = {}
    for page in [*FRONT, DOCS / "architecture.md"]:
        for path, name in named.findall(page.read_text()):
            assert (ROOT / path).exists(), f"{page.name} names {path}"
            assert path.endswith("/") == (ROOT / path).is_dir(), f"{page.name}: a folder's name ends in /, not {path}"
            assert not name or name in defined(ROOT / path), f"{page.name}: no {name} in {path}"
            found[page.name] = found.get(page.name, 0) + 1
    assert found["CONTRIBUTING.md"] >= 10
    assert found["architecture.md"] >= 10


def defined(file: Path) -> set[str]:
    """The names that a module defines, those in its classes too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


INTERNALS = {
    "inference.training.optimizers": "the options of the methods say all of it",
    "inference.training.runners": "the body of a compiled loop, for each kind of device",
    "inference.training.together": "how `fit_many` goes about it",
}
"""Modules of `inference` with public names that the reference leaves out, and why."""


def test_reference_has_every_module_of_inference() -> None:
    pages = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    shown = re.findall(r"^::: (\S+)", pages, re.MULTILINE)
    missing = set()
    for path in sorted((ROOT / "inference").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.stem == "__init__" or not re.search(r"^__all__ = \[\s*\"", path.read_text(), re.MULTILINE):
            continue
        if not any(name == module or name.startswith(f"{module}.") for name in shown):
            missing.add(module)
    assert missing == set(INTERNALS)
    assert "inference.evaluation" in shown  # the door


def test_picture_of_rooms_is_what_the_code_says() -> None:
    drawn = runpy.run_path(str(DOCS / "rooms.py"))["picture"]()
    assert (DOCS / "img" / "rooms.svg").read_text() == drawn, "run: python docs/rooms.py"


def test_page_of_programs_is_what_the_programs_say() -> None:
    made = runpy.run_path(str(DOCS / "models.py"))["page"]()
    assert (DOCS / "models.md").read_text() == made, "run: python docs/models.py"


def test_gallery_is_what_its_script_says_and_every_program_has_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))  # the pictures lie in a file beside the script
    gallery = runpy.run_path(str(DOCS / "gallery.py"))
    assert list(gallery["ENTRIES"]) == list(catalogue.BUILTIN)
    assert (DOCS / "gallery.md").read_text() == gallery["page"](), "run: python docs/gallery.py --page"
    shown = re.findall(r"\]\((img/gallery/\S+\.png)\)", (DOCS / "gallery.md").read_text())
    assert sorted(shown) == sorted(f"img/gallery/{name}.png" for name in catalogue.BUILTIN)
    files = {path.name: path.stat().st_size for path in (DOCS / "img" / "gallery").iterdir()}
    assert sorted(files) == sorted(f"{name}.png" for name in catalogue.BUILTIN)
    assert sum(files.values()) < 3e6, "smaller pictures, or fewer colours"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("models.md", catalogue.BUILTIN),
        ("choose.md", [*METHODS, *OBJECTIVES, *AUTOGUIDES]),
        ("exact-answers.md", targets.names()),
        ("run-a-benchmark.md", [*METRICS, *SUITES]),
    ],
)
def test_nothing_is_left_out(page: str, names: list[str]) -> None:
    text = (DOCS / page).read_text()
    missing = [name for name in names if f"`{name}`" not in text]
    assert not missing
