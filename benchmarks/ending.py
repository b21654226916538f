"""How the command line ends: results, one line that says what went wrong, or silence; and with which exit code.

0: all is well. 2: a mistake in the input. 1: what the machine refuses (a full disk, no memory), or a fault of ours.
130: Ctrl-C.
"""

# No torch here: `zoo --help` must not wait for it.
from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["INTERRUPTED", "MISTAKE", "REFUSED", "ending"]

MISTAKE, REFUSED, INTERRUPTED = 2, 1, 130


@contextmanager
def ending() -> Iterator[None]:
    """Around a command: errors and warnings become lines on standard error, and the process ends with their exit code.

    With ZOO_DEBUG=1 an error is raised as it is.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a sign gets '?' for it
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    except SystemExit as end:  # typer always ends so
        if end.code == INTERRUPTED:
            print("zoo: interrupted.", file=sys.stderr)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _leave_the_pipe()
        raise
    except BrokenPipeError:  # whoever read has read enough
        _leave_the_pipe()
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("ZOO_DEBUG") == "1":
            raise
        code, message = _explain(error)
        print(f"zoo: {message}", file=sys.stderr)
        sys.exit(code)


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code, and what to say in one line."""
    from zoo.errors import ZooError

    text = " ".join(str(error).split("\n\n")[0].split()) if not isinstance(error, ZooError) else str(error)
    if isinstance(error, ZooError):
        return MISTAKE, " ".join(text.split())
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted."
    out_of_memory = any(sign in text for sign in ("can't allocate memory", "out of memory", "bad allocation"))
    if isinstance(error, MemoryError) or out_of_memory:
        return REFUSED, f"there is not enough memory for this ({text[:200] or 'MemoryError'})."
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename is not None else ""
        return REFUSED, f"{error.strerror or text or type(error).__name__}{where}."
    return REFUSED, (
        f"{type(error).__name__}: {text[:500]} (zoo did not expect this; ZOO_DEBUG=1 shows where it was raised)"
    )


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """A warning as a line of its own, without the code that gave it."""
    print(f"zoo: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _leave_the_pipe() -> None:
    """Ends quietly: what is still to be written, at the end of Python too, goes nowhere."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # a stream without a number
        sys.stdout = io.StringIO()
    sys.exit(0)
