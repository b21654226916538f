"""Methods side by side on the same program and the same data."""

from typing import Any

__all__ = ["Comparison", "compare"]


def __getattr__(name: str) -> Any:
    """`compare` and its answer, imported when they are asked for: the command line must not wait for them."""
    if name not in __all__:
        raise AttributeError(f"module 'benchmarks' has no attribute {name!r}")
    from benchmarks import comparing

    return getattr(comparing, name)
