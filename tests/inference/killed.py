"""A fit that is killed right after one of its checkpoints, as by a signal: nothing of it runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Killed(BaseException):
    """What ends it."""


@contextmanager
def killed_after(owner: type, name: str, times: int) -> Iterator[None]:
    """The block's fit must end as the method that writes its checkpoints returns for the nth time."""
    write, written = getattr(owner, name), []

    def deadly(writer: Any, *what: Any) -> None:
        write(writer, *what)
        written.append(None)
        if len(written) == times:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, deadly)
        with pytest.raises(Killed):
            yield
