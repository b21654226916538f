"""Options that several commands of `zoo` share, with what their help says."""

# No torch here: `zoo --help` must not wait for it.
from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from benchmarks import index
from benchmarks.config import read_config, with_options

__all__ = [
    "Binarise", "Commands", "Config", "Context", "DataOption", "Device", "Json", "Name", "Options",
    "Seed", "Target", "TrustCode", "print_version",
]  # fmt: skip


class Commands(TyperGroup):
    """Commands that refuse an option given twice where they take one: the parser would keep the last without a word.

    One that there is not may be an option of a program or method (`--steps 100`): how these are given is said.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the parser's own.

        Raises: OptionError.
        """
        name, command, rest = super().resolve_command(ctx, args)
        assert command is not None
        try:
            below = command.context_class(command, parent=ctx, info_name=name, **command.context_settings)
            _, _, order = command.make_parser(below).parse_args(list(rest))
        except Exception as error:
            if type(error).__name__ == "NoSuchOption" and not ctx.resilient_parsing:  # which completes a line
                self._say_how(command, rest, error)
            return name, command, rest  # what cannot be read is said by the command itself
        for option, times in Counter(order).items():
            if times > 1 and not (getattr(option, "multiple", True) or getattr(option, "is_flag", True)):
                from zoo.errors import OptionError

                raise OptionError(
                    f"{max(option.opts, key=len)} was given {times} times, and takes one value (a list: by commas)."
                )
        return name, command, rest

    @staticmethod
    def _say_how(command: Any, words: list[str], error: Any) -> None:
        """Raises OptionError for an unknown --option of a command that takes options of programs."""
        unknown, near = error.option_name, error.possibilities
        if unknown.startswith("--") and any("-o" in parameter.opts for parameter in command.params):
            from zoo.errors import OptionError

            at = next(i for i, word in enumerate(words) if word.partition("=")[0] == unknown)
            value = words[at].partition("=")[2] or next(iter(words[at + 1 :]), "") or "VALUE"
            name = unknown[2:].replace("-", "_")
            hint = f" (did you mean {' or '.join(sorted(near))}?)" if near else ""
            raise OptionError(
                f"zoo {command.name} has no option {unknown}{hint}. If it is one of the program or of the method: "
                f"-o {name}={value}. See zoo show NAME, or zoo {command.name} --help."
            )


def print_version(asked: bool) -> None:
    """The callback of `--version`."""
    if asked:
        print(f"pyro-model-zoo {version('pyro-model-zoo')}")
        raise typer.Exit


def _programs() -> list[str]:
    return [card["name"] for card in index.program_list()]


def _data() -> list[str]:
    return [card["name"] for card in index.dataset_list()]


Name = Annotated[str, typer.Argument(help="A name of `zoo list`, or 'file.py:Class'.", autocompletion=_programs)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        autocompletion=_data,
        help="A name (`zoo list --datasets`) or a file: .npz, .npy, .csv, .parquet, image folder.",
    ),
]
Target = Annotated[
    str | None, typer.Option(help="Columns of a .csv that are modelled: 'y' or 'y1,y2'; default: all but --context.")
]
Context = Annotated[
    str | None,
    typer.Option(
        help="Columns of a .csv that are conditioned on: 'x1,x2', or '*', all the rest; the side of image pairs that "
        "is given, 'A' or 'B'; or a file of its own."
    ),
]
Binarise = Annotated[
    str | None, typer.Option(help="Make data in [0, 1] binary: 'threshold' (at 0.5) or 'stochastic' (drawn once).")
]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-code", help="Execute the file or module that the folder's program is from; only your own."),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", "-o", callback=with_options,
        help="name=value, an option of the program or the method; may be repeated.",
    ),
]  # fmt: skip
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", is_eager=True, callback=read_config,
        help="A TOML file with the names above and [option]; what stands on the command line wins.",
    ),
]  # fmt: skip
Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
Device = Annotated[str, typer.Option(help="'auto', 'cpu', 'cuda' or 'mps'.")]
