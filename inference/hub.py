"""A fit goes to the Hugging Face hub: its save, the source of a program of the user's own, and a card that says what
it is. `zoo.load` and `Fit.load` take it from there (`zoo.hub`)."""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub

from zoo import catalogue, datasets, folders
from zoo.errors import CheckpointError, OptionError
from zoo.hub import FILES, NAME, SOURCE

__all__ = ["card", "publishable", "push"]

CARD = "README.md"
RECORD = "fit.json"


def push(
    found: Any,
    repository: str,
    *,
    licence: str | None = None,
    scores: Mapping[str, Any] | None = None,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Uploads a fit, in one commit; see `Fit.push_to_hub`, which this is."""
    if not NAME.fullmatch(repository) or "@" in repository:
        raise OptionError(f"A repository of the hub is called 'user/name', got {repository!r}.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = publishable(found, Path(scratch) / "fit")
        (folder / CARD).write_text(card(found, repository, licence=licence, scores=scores))
        hub = huggingface_hub.HfApi(token=token)
        try:
            hub.create_repo(repository, private=private, exist_ok=True)
            done = hub.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message=f"{type(found.program).__name__} fitted by {found.method}",
                allow_patterns=[*FILES, CARD],
                delete_patterns=list(FILES),  # of an older fit
            )
        except Exception as error:  # of the network, of rights, of names
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"The hub did not take the fit as {repository} ({type(error).__name__}: {reason}): check the name, the "
                "network, and that you are logged in with a token that may write."
            ) from error
    return str(done)


def publishable(found: Any, folder: Path) -> Path:
    """Saves a fit as others can read it: with the source of a program from a file, without paths of this machine.

    Raises: what `Fit.save` raises.
    """
    found.save(folder)
    saved = folders.read(folder)
    name = catalogue.name_of(found.program)
    where, _, cls = name.rpartition(":")
    if where.endswith(".py"):
        shutil.copyfile(where, folder / SOURCE)
        name = f"{SOURCE}:{cls}"
    record = json.loads(saved.files[RECORD])
    if isinstance(record["data"], dict):
        record["data"]["file"] = Path(record["data"]["file"]).name
    return folders.write(folder, saved.options, name, {**saved.files, RECORD: folders.to_json(record)})


def card(found: Any, repository: str, *, licence: str | None = None, scores: Mapping[str, Any] | None = None) -> str:
    """The page of a fit, in Markdown, with the header that the hub reads.

    Args:
        found: The fit.
        repository: 'user/name'.
        licence: Of the fit, by the hub's name for it ('apache-2.0').
        scores: Further figures by name: numbers, or estimates such as `log_likelihood` gives.
    """
    program, cls = found.program, type(found.program)
    named = catalogue.name_of(program)
    title = named.rpartition(":")[2]
    header = {"library_name": "pyro-model-zoo", "tags": ["pyro", "generative-model", cls.family, found.method]}
    if licence is not None:
        header["license"] = licence
    figures = {f"{name}, at the end of the fit": _number(found.history.last(name)) for name in found.history.metrics}
    figures |= {name: _figure(value) for name, value in (scores or {}).items()}
    about = {
        "program": f"`{title}`. {(inspect.getdoc(cls) or '').partition(chr(10))[0]}",
        "paper": cls.paper,
        "parameters": f"{found.parameter_count():,}",
        "data": _data(found.data),
        "method": f"`{found.method}`",
        "options": ", ".join(f"{k}={v}" for k, v in found.options.items() if v is not None),
        "seed": str(found.seed),
        "cost": f"{found.gradient_evaluations:,} gradient evaluations, {found.seconds:.0f} s on {found.device}",
        "versions": ", ".join(f"{k} {v}" for k, v in found.versions.items()),
        "licence": licence or "not said",
        "convergence": found.info.get("convergence", {}).get("verdict", ""),
        "warning": found.info.get("warning") or "",
    }
    parts = [
        "---", *_yaml(header), "---", "", f"# {title}, fitted to {Path(datasets.base_name(found.data)).name}", "",
        _table("", "", {name: text for name, text in about.items() if text}), "", "## Figures", "",
        _table("figure", f"seed {found.seed}", figures) if figures else "None were measured.", "", "## Load it", "",
        _how_to_load(repository, named), "",
    ]  # fmt: skip
    return "\n".join(parts)


def _how_to_load(repository: str, named: str) -> str:
    lines = ["```python", "from inference import Fit", ""]
    where, colon, cls = named.rpartition(":")
    if not colon:
        return "\n".join([*lines, f'found = Fit.load("{repository}")', "```"])
    code = f"Its class `{cls}` is not of the zoo, and loading runs no code: give it, from a copy that you have read."
    if where.endswith(".py"):
        code += f" Or `trust_code=True`, which *executes* `{SOURCE}` of this repository."
    given = f"zoo.adopt({cls.replace('+', ', ')})" if not cls[:1].isupper() else cls
    return "\n".join([code, "", *lines, f'found = Fit.load("{repository}", program={given})', "```"])


def _data(name: str) -> str:
    base = datasets.base_name(name)
    if base not in datasets.names():
        return f"`{Path(base).name}{name[len(base) :]}`"
    about = datasets.card(base)
    return f"`{name}`: {about.description} Licence: {about.licence}."


def _number(value: float) -> str:
    return f"{value:.4g}"


def _figure(value: Any) -> str:
    """A number, or an estimate with its standard error and how it was made."""
    if isinstance(value, int | float):
        return _number(value)
    error = "" if value.standard_error is None else f" ± {value.standard_error:.2g}"
    return f"{_number(value.mean)}{error} ({value.how})"


def _table(left: str, right: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {' '.join(str(text).replace('|', chr(92) + '|').split())} |" for name, text in rows.items()]
    return "\n".join([f"| {left} | {right} |", "|---|---|", *lines])


def _yaml(header: Mapping[str, Any]) -> list[str]:
    """Strings and lists of them; these are in YAML what they are in JSON."""
    return [f"{name}: {json.dumps(value)}" for name, value in header.items()]
