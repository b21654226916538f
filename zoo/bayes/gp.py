r"""Gaussian process regression: a prior over functions, whose evidence, posterior and predictions are exact.

Rasmussen & Williams, "Gaussian processes for machine learning", 2006, chapter 2 and section 5.4; whitened values at
chosen inputs, given which the function is known, or nearly so, everywhere else: Snelson & Ghahramani, "Sparse Gaussian
processes using pseudo-inputs", NIPS 2006.

    v ~ N(0, I_M),   f(c) | v ~ N(a(c) . v, r(c)),   a(c) = L^-1 k(Z, c),   L L' = k(Z, Z),   r(c) = k(c, c) - |a(c)|^2
    x_i | v, c_i ~ N(mean + a(c_i) . v, r(c_i) + noise^2)

    v --> x_i <-- c_i      sites: v (M,) global; x (); context c (D,)

With the inputs of the data as Z, r is zero at each of them, and this is the Gaussian process itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.bayes.conjugate import GaussianWeights, precise
from zoo.bayes.covariates import Covariates, columns, linear
from zoo.bayes.kernels import make_kernel, take_lengths
from zoo.errors import DivergenceError, ShapeError
from zoo.options import Count, Positive
from zoo.program import Preset
from zoo.specs import Spec
from zoo.units import Standard

__all__ = ["FunctionProgram", "GaussianProcess"]


class FunctionProgram(Covariates):
    """Base of programs with a Gaussian process prior, by its whitened values v at M inputs Z.

    Args:
        features: Number D of columns of the context.
        points: Number M of inputs Z.
        kernel: See `zoo.bayes.kernels`.
    """

    inputs: Tensor
    """Z, (M, D); of a subclass."""

    def __init__(self, features: int, points: int, kernel: Spec):
        super().__init__(features)
        self.points = points
        self.kernel = make_kernel(kernel, features)
        self.mean = nn.Parameter(torch.tensor(0.0))
        self.v_loc = nn.Parameter(torch.zeros(points))
        self.v_tril = PyroParam(torch.eye(points), constraint=constraints.lower_cholesky)

    def prior(self) -> Any:
        """p(v)."""
        return dist.MultivariateNormal(torch.zeros_like(self.v_loc), scale_tril=torch.eye(self.points).to(self.v_loc))

    def weights(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """a(c_i), (B, M), and r(c_i), (B,): what v says of the function at rows (B, D), in double precision."""
        rows, inputs = precise(context), precise(self.inputs)
        gram = self.kernel(inputs)
        # Rounding makes the least eigenvalues negative; what is added is far below any noise.
        jitter = torch.finfo(gram.dtype).eps ** 0.5 * gram.diagonal().mean()
        try:
            factor = torch.linalg.cholesky(gram + jitter * torch.eye(self.points).to(gram))
        except torch.linalg.LinAlgError as error:
            raise DivergenceError(
                f"{type(self).__name__}: the kernel's covariance of its {self.points} inputs is not positive definite "
                f"({error}): lower the rate of learning, or look for inputs and parameters that are not finite."
            ) from error
        a = torch.linalg.solve_triangular(factor, self.kernel(inputs, rows), upper=False).T
        return a, (self.kernel(rows, diag=True) - a.square().sum(-1)).clamp(min=jitter)

    def take_inputs(self, rows: Tensor) -> None:
        """Sets the first inputs to rows (n, D), n <= M; more than the data have do no harm."""
        self.inputs[: len(rows)] = rows

    def take_scales(self, rows: Tensor) -> None:
        """Starts the kernel's length scales at the spread of columns (N, D) where no option says them."""
        take_lengths(self.kernel, Standard(rows.shape[1:]).take(rows).size)

    def draw_v(self) -> Tensor:
        """The guide's v ~ N(m, S S')."""
        return pyro.sample("v", dist.MultivariateNormal(self.v_loc, scale_tril=self.v_tril))


class GaussianProcess(FunctionProgram):
    """A Gaussian process seen through noise, at the inputs of its training data; the guide is a full Gaussian.

    Its parameters, those of the kernel, the mean and the noise, are learned by the exact evidence: `fit(program, data,
    "svi", elbo="exact", guide="posterior")`. That costs O(N^3) a step and O(N^2) memory: beyond a few thousand rows
    take `zoo.bayes.sparse_gp`.

    Args:
        features: Number D of columns of the context.
        points: Number M of rows that it is trained on; `for_data` counts them.
        kernel: 'rbf', 'matern32', 'matern52', 'periodic', a sum or a product, with options: {"name": "sum", "of":
            ["rbf", {"name": "periodic", "period": 2.0}]}; see `zoo.bayes.kernels`. Variances are in units of that of x.
        noise: Standard deviation of the noise at the start, likewise.

    Raises: UnknownNameError, OptionError.
    """

    paper = "Rasmussen & Williams, Gaussian processes for machine learning, 2006"
    dataset = "diabetes"
    inputs: Tensor
    scale: Tensor

    def __init__(self, features: Count = 2, points: Count = 16, kernel: Spec = "rbf", noise: Positive = 0.5):
        super().__init__(features, points, kernel)
        self.register_buffer("inputs", torch.randn(points, features))
        self.register_buffer("scale", torch.tensor(1.0))
        self.noise = PyroParam(torch.tensor(float(noise)), constraint=constraints.positive)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Takes the inputs of the data, and their mean and scale.

        Raises: ShapeError for more than M rows.
        """
        assert context is not None
        if len(context) > self.points:
            raise ShapeError(
                f"GaussianProcess was built for points={self.points} rows and got {len(context)}; build it for these "
                "data (GaussianProcess.for_data(x, context)), or take 'sparse-gp', which takes any number."
            )
        self.take_inputs(context)
        self.mean.copy_(x.mean())
        if len(x) > 1 and float(x.std()) > 0:
            self.scale.copy_(x.std())
        self.take_scales(context)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Whitened values, and what they say of each row."""
        assert context is not None
        design, noise = self._seen(context)
        v = pyro.sample("v", self.prior())
        with self.plate(x, context, size):
            loc = self.mean + linear(v, design.to(self.mean))
            return pyro.sample("x", dist.Normal(loc, noise.to(self.mean)), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(v) = N(m, S S')."""
        self.draw_v()

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """p(v | x), Gaussian."""
        assert x is not None
        assert context is not None
        pyro.sample("v", self._updated(x, context).posterior(x))

    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log N(x; mean, k(C, C) + noise^2 I) of the rows it is trained on, up to rounding (eq. 2.30).

        Of other rows it is that of the program as it stands: independent given v.
        """
        assert context is not None
        return self._updated(x, context).log_evidence().to(x.dtype)

    def predictive(self, x: Tensor, context: Tensor, at: Tensor) -> Any:
        """p(x_* | x) of each of other rows, Gaussian (eqs. 2.25 and 2.26, and the noise).

        Args:
            x: The data (N,).
            context: Their rows (N, D).
            at: Rows (B, D).

        Returns: A distribution of batch shape (B,).
        """
        found, (design, noise) = self._updated(x, context), self._seen(at)
        shift = torch.linalg.solve_triangular(torch.linalg.cholesky(found.precision), design.T, upper=False)
        sd = (shift.square().sum(0) + noise.square()).sqrt()
        return dist.Normal((self.mean + design @ found.loc).to(x), sd.to(x))

    def _seen(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """What x is made of: weights of v (B, M), and standard deviations of the rest (B,)."""
        a, rest = self.weights(context)
        return self.scale * a, self.scale * (rest + self.noise**2).sqrt()

    def _updated(self, x: Tensor, context: Tensor) -> GaussianWeights:
        design, noise = self._seen(context)
        return GaussianWeights(design, precise(x) - self.mean, prior=torch.ones_like(self.v_loc), noise=noise)

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Self:
        """As many features as the context has columns, and as many points as rows.

        Raises: ShapeError.
        """
        options.setdefault("features", columns(cls, context))
        options.setdefault("points", len(x))
        return cls(**options)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {}, "svi", {"elbo": "exact", "guide": "posterior", "steps": 200, "lr": 0.05, "batch_size": 100_000}
        ),
        "paper": Preset(
            {}, "svi", {"elbo": "exact", "guide": "posterior", "steps": 2000, "lr": 0.02, "batch_size": 100_000}
        ),
    }
