"""Options from a TOML file, `--config FILE`, and the file that repeats a command.

Its keys are the names that `--help` shows, in lower letters and without dashes before them; `[option]` is a table. The
command line wins over the file. Paths are as on the command line: from where the command is given.
"""

# No torch here: `zoo --help` must not wait for it.
from __future__ import annotations

import json
import os
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

__all__ = ["CONFIG", "read_config", "to_toml", "with_options", "write_config"]

CONFIG = "config.toml"
"""The file in a folder that repeats the command which made the folder."""
OPTIONS = "option"
HERE = ("config", "json", "restart", "status", "help")
"""Options that are of one call, and no part of what is asked for."""


def read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """The callback of `--config`: what the file says stands in the place of defaults.

    Raises: OptionError for a file that is not there, no TOML, or has a value that an option cannot have;
        UnknownNameError for a key that is no option of the command.
    """
    if path is None:
        return None
    from zoo.errors import OptionError, UnknownNameError

    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise OptionError(f"Cannot read the configuration {path}: {error.strerror}; name a TOML file.") from error
    except ValueError as error:  # of encoding too
        raise OptionError(f"{path} is no TOML ({error}).") from error
    known = _known(ctx)
    for key, value in found.items():
        if key not in known:
            raise UnknownNameError(f"key of {path}", key, known)
        found[key] = _words(key, value, known[key], path)
    ctx.meta[OPTIONS] = found.pop(OPTIONS, [])
    ctx.default_map = {known[key].name: value for key, value in found.items()}
    return path


def with_options(ctx: typer.Context, given: list[str] | None) -> list[str]:
    """The callback of `--option`: those of the file, and after them, so that they win, those of the command line.

    Raises: OptionError for a name that the command line has twice.
    """
    for name, times in Counter(text.partition("=")[0] for text in given or []).items():
        if times > 1:
            from zoo.errors import OptionError

            raise OptionError(f"--option {name} was given {times} times, and takes one value.")
    return [*ctx.meta.get(OPTIONS, []), *(given or [])]


def write_config(ctx: typer.Context, folder: Path, **resolved: Any) -> Path:
    """Writes the file that repeats a command, with all that the command took.

    Args:
        ctx: Of the command.
        folder: Where.
        resolved: Values by key, in the place of those that the command was given; None leaves one out.
    """
    found = {key: ctx.params[param.name] for key, param in _known(ctx).items()} | resolved
    path = folder / CONFIG
    path.write_text(
        to_toml({key: value for key, value in found.items() if value or (value == 0 and value is not False)})
    )
    return path


def to_toml(values: Mapping[str, Any]) -> str:
    """A mapping as TOML; options ('name=value', see `fitting.parse_options`) as a table, unless one of them is null."""
    from benchmarks.fitting import parse_options

    lines, table = [], ""
    for key, value in values.items():
        try:
            if key == OPTIONS:
                table = f"\n[{OPTIONS}]\n" + "".join(
                    f"{_key(k)} = {_toml(v)}\n" for k, v in parse_options(value).items()
                )
                continue
        except ValueError:  # TOML has no null
            pass
        lines.append(f"{_key(key)} = {_toml(value)}\n")
    return "".join(lines) + table


def _known(ctx: typer.Context) -> dict[str, Any]:
    """Parameters of the command by the name that `--help` shows."""
    named = {max(param.opts, key=len).lstrip("-"): param for param in ctx.command.params}
    return {key: param for key, param in named.items() if key not in HERE}


def _words(key: str, value: Any, param: Any, path: Path) -> Any:
    """A value of TOML as the words that the command line would have.

    Raises: OptionError.
    """
    from zoo.errors import OptionError

    if key == OPTIONS and isinstance(value, dict):
        return [f"{name}={json.dumps(each)}" for name, each in value.items()]
    is_flag, is_list = getattr(param, "is_flag", False), getattr(param, "multiple", False)
    wanted = "true or false" if is_flag else "a list of strings" if is_list else "a string or a number"
    if is_list:
        fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
    else:
        fits = (
            isinstance(value, bool) if is_flag else isinstance(value, str | int | float) and not isinstance(value, bool)
        )
    if not fits:
        wanted += ", or a table" if key == OPTIONS else ""
        raise OptionError(f"{key} in {path} must be {wanted}, got {value!r}.")
    return value if is_flag or is_list else str(value)


def _key(name: str) -> str:
    return name if name.replace("-", "_").isidentifier() and name.isascii() else json.dumps(name, ensure_ascii=False)


def _toml(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return _toml(os.path.abspath(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if value is None:
        raise ValueError("TOML has no null")
    # JSON's strings, numbers and booleans are TOML's too, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
