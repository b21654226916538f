r"""Lossless compression by an autoregressive program: a real code, of -log2 p(x) bits and a few more.

Shannon 1948 says how long, Duda 2013 how (asymmetric numeral systems, in their range form): one large number, the
state, carries the message. To write a symbol of probability f / M with the cumulative count c,

    state' = (state // f) M + c + state mod f        log2(M / f) bits longer; reading undoes it, last in first out

The decoder knows the probabilities of a site from the sites before it, as sampling does. Both ends must compute the
same numbers to the last bit, so the encoder runs the decoder's passes one by one, and a code should be read by the
same version on the same kind of machine that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from inference.environment import evaluating
from inference.evaluation.estimates import checked
from zoo.autoregressive.base import Autoregressive
from zoo.distributions import Grid
from zoo.errors import CapabilityError, DatasetError, OptionError, ShapeError
from zoo.guards import same_support

__all__ = ["OVERHEAD", "decode", "encode"]

PRECISION = 24
"""Bits of M: probabilities are multiples of 2^-24, none of them zero."""
LOW, WORD = 48, 32
"""The state is kept in [2^LOW, 2^(LOW + WORD)); what is above leaves in words of WORD bits."""
OVERHEAD = LOW + WORD
"""Most bits by which a code is longer than what it holds, apart from the rounding of probabilities."""


@torch.no_grad()
def encode(program: Autoregressive, x: Tensor, context: Tensor | None = None) -> bytes:
    """Compresses examples into one string of bytes.

    Args:
        program: Of bits or levels; in evaluation mode or not, its density is that of evaluation.
        x: (N, *event_shape).
        context: (N, ...), which the decoder must have as well; or None.

    Raises: CapabilityError for real values, for a mixture over orders (encode by one of them: `program.member(k)`) and
        for what is not autoregressive; what `program.check` raises.
    """
    levels = _levels(program)
    x, context = checked(program, x, context, complete=True)
    symbols = torch.searchsorted(levels.double(), x.reshape(len(x), -1).double() - 0.25 / (len(levels) - 1))
    starts, counts = [], []
    blank, rows = x.new_zeros(x.shape), np.arange(len(x))
    for site, table in _passes(program, blank, context, levels):
        chosen = symbols[:, site]
        starts.append((table.cumsum(-1) - table)[rows, chosen.cpu().numpy()])
        counts.append(table[rows, chosen.cpu().numpy()])
        blank.view(len(x), -1)[:, site] = levels[chosen]
    return _write(np.concatenate(starts).tolist(), np.concatenate(counts).tolist())


@torch.no_grad()
def decode(program: Autoregressive, code: bytes, n: int, context: Tensor | None = None) -> Tensor:
    """The n examples of a code, (n, *event_shape), as they were.

    Args:
        program: The one that wrote it.
        code: From `encode`.
        n: How many examples.
        context: That of the encoder, or None.

    Raises: DatasetError when the code is damaged or of another program or number of examples.
    """
    if n < 1:
        raise OptionError(f"n must be at least 1, got {n}.")
    levels, reader, context = _levels(program), _Reader(code), program.accept_context(context)
    if context is not None and len(context) != n:
        raise ShapeError(f"{n} examples but {len(context)} rows of context; they must match.")
    x = levels.new_zeros(n, *program.event_shape)
    for site, table in _passes(program, x, context, levels):
        symbols = [reader.read(row) for row in table]
        x.view(n, -1)[:, site] = levels[torch.tensor(symbols, device=x.device)]
    reader.finish()
    return x


def _levels(program: Autoregressive) -> Tensor:
    """The values that a site takes, (m,)."""
    if not isinstance(program, Autoregressive):
        raise CapabilityError(
            f"{type(program).__name__} is not autoregressive: it has no conditionals to code site by site. "
            "inference.evaluation.queries.anomalies.code_length says how long an ideal code would be."
        )
    like = next(program.parameters())
    if same_support(program.support, constraints.boolean):
        return torch.arange(2).to(like)
    if isinstance(program.support, Grid):
        return torch.arange(program.support.values).to(like) / (program.support.values - 1)
    raise CapabilityError(f"{type(program).__name__} has values in {program.support}; only bits and levels have codes.")


def _passes(
    program: Autoregressive, x: Tensor, context: Tensor | None, levels: Tensor
) -> Iterator[tuple[int, np.ndarray]]:
    """Site after site, what it follows as counts (N, m) that sum to M; the caller then puts its values into x."""
    with evaluating(program, None, 0, x.device):
        for site in program.order.tolist():
            outputs = program.outputs(x, context).reshape(len(x), program.event_shape.numel(), -1)[:, site]
            log_probs = program.likelihood.distribution(outputs).log_prob(levels.unsqueeze(-1)).T
            yield site, _counts(log_probs.double().softmax(-1).cpu().numpy())


def _counts(probs: np.ndarray) -> np.ndarray:
    """(N, m) probabilities to whole numbers of at least 1 that sum to M; the most probable gets what rounding left."""
    values = probs.shape[-1]
    counts = np.floor(probs * (2**PRECISION - values)).astype(np.int64) + 1
    counts[np.arange(len(counts)), counts.argmax(-1)] += 2**PRECISION - counts.sum(-1)
    return counts


def _write(starts: list[int], counts: list[int]) -> bytes:
    """The code of symbols with these cumulative counts and counts; the last symbol is written first."""
    state, words = 1 << LOW, []
    for start, count in zip(reversed(starts), reversed(counts), strict=True):
        if state >= count << (LOW + WORD - PRECISION):
            words.append(state & (2**WORD - 1))
            state >>= WORD
        state = (state // count << PRECISION) + start + state % count
    return state.to_bytes(OVERHEAD // 8, "big") + b"".join(word.to_bytes(WORD // 8, "big") for word in reversed(words))


@dataclass
class _Reader:
    """Reads symbols off a code."""

    code: bytes
    state: int = 0
    at: int = 0

    def __post_init__(self) -> None:
        self.state = self._take(OVERHEAD // 8)

    def read(self, counts: np.ndarray) -> int:
        """The next symbol, its distribution given."""
        slot, above = self.state & (2**PRECISION - 1), counts.cumsum()
        symbol = int(np.searchsorted(above, slot, side="right"))
        count = int(counts[symbol])
        self.state = count * (self.state >> PRECISION) + slot - (int(above[symbol]) - count)
        if self.state < 1 << LOW:
            self.state = self.state << WORD | self._take(WORD // 8)
        return symbol

    def finish(self) -> None:
        """Nothing may be left, and the state must be the first again."""
        if self.at != len(self.code) or self.state != 1 << LOW:
            raise _damaged("it does not end where the examples do")

    def _take(self, n: int) -> int:
        part = self.code[self.at : self.at + n]
        if len(part) < n:
            raise _damaged("it is too short")
        self.at += n
        return int.from_bytes(part, "big")


def _damaged(why: str) -> DatasetError:
    return DatasetError(
        f"The code cannot be read: {why}. It is damaged, or was written by another program, for another number of "
        "examples or another context."
    )
