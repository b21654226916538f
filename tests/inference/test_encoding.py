"""Codes: the exact means of latents where these are known, the same for every batch and run, for all that encode."""

from __future__ import annotations

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import Fit, encoding, fit
from inference.encoding import encode, why_no_codes
from tests.doors import given
from zoo import Program, catalogue, datasets
from zoo.distributions import Sampler
from zoo.errors import CapabilityError, NonFiniteError, OptionError, ShapeError

NAMES = sorted(catalogue.BUILTIN)
ENCODE = {
    "aae", "ali", "bayesian-gaussian-mixture", "bernoulli-mixture", "cvae", "dbm", "dequantised-flow", "dmm",
    "gaussian-mixture", "hmm", "hvae", "infogan", "lgssm", "maf", "nade", "neural-spline", "nice", "ppca", "rbm",
    "realnvp", "restoring-vae", "rnade", "semi-supervised-vae", "vae", "vq-vae",
}  # fmt: skip
DO_NOT = {"coin", "eight-schools", "markov-chain", "made", "pixelcnn", "deep-energy", "gan", "cgan", "sparse-gp"}


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_numbers_the_same_at_every_call_or_there_are_none_and_others_are_named(name: str) -> None:
    case = given(name)
    if why_no_codes(case.program) is not None:
        assert name not in ENCODE
        with pytest.raises(CapabilityError, match=r"has no codes: it.*Programs that encode: .*vae.*nade"):
            encode(case.program, case.x, case.context)
        return
    assert name not in DO_NOT
    codes = encode(case.program, case.x, case.context)
    assert codes.shape == (len(case.x), codes.shape[1])
    assert codes.shape[1] > 0
    assert bool(codes.isfinite().all())
    assert torch.equal(codes, encode(case.program, case.x, case.context))
    assert codes.dtype == case.x.dtype


@pytest.mark.parametrize("name", ["vae", "ppca", "rbm", "ali", "gaussian-mixture", "lgssm", "hmm", "nice"])
def test_a_code_is_of_each_example_alone(name: str) -> None:
    case = given(name)
    alone = encode(case.program, case.x[2:3], None if case.context is None else case.context[2:3])
    torch.testing.assert_close(alone, encode(case.program, case.x, case.context)[2:3])


def test_the_error_names_programs_that_do() -> None:
    named = set(re.findall(r"[a-z-]+", encoding.ABLE.split("(", 1)[1])) & set(NAMES)
    assert named <= ENCODE
    assert len(named) > 10


def test_exact_posteriors_are_read_exactly() -> None:
    ppca = given("ppca")
    m = ppca.program.weight.T @ ppca.program.weight + ppca.program.scale**2 * torch.eye(2)
    rows = ppca.x.flatten(1) - ppca.program.mean
    by_hand = torch.linalg.solve(m, ppca.program.weight.T @ rows.T).T
    torch.testing.assert_close(encode(ppca.program, ppca.x), by_hand.detach())
    mixture = given("gaussian-mixture")
    joint = mixture.program.joint_log_prob(mixture.x).detach()
    torch.testing.assert_close(encode(mixture.program, mixture.x), joint.softmax(-1))
    path = given("lgssm")
    torch.testing.assert_close(encode(path.program, path.x), path.program.smoothed(path.x)[0].flatten(1))


def test_a_variable_of_the_guide_alone_is_averaged_over() -> None:
    """q(z | x) is N(x, 1 + 3^2) by a variable of sd 3 besides: 64 draws leave a mean that is off by 3.2 / 8 at most
    4.5 times, and a single draw by 3."""

    class Auxiliary(Program):
        event_shape = torch.Size([2])

        def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
            with self.plate(x, context, size):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

        def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
            assert x is not None
            with self.plate(x, context, size):
                u = pyro.sample("u", dist.Normal(torch.zeros(2), 3.0).to_event(1), infer={"is_auxiliary": True})
                pyro.sample("z", dist.Normal(x + u, 1.0).to_event(1))

    x = torch.randn(500, 2)
    apart = encode(Auxiliary(), x) - x
    assert float(apart.abs().max()) < 4.5 * 3 / 8
    assert 0.9 < float(apart.std()) / (3 / 8) < 1.1


def test_guides_are_read_by_their_means() -> None:
    vae, rbm, info = given("vae"), given("rbm"), given("infogan")
    torch.testing.assert_close(encode(vae.program, vae.x), vae.program.encode(vae.x).mean.detach())
    torch.testing.assert_close(encode(rbm.program, rbm.x), rbm.program.encode(rbm.x).mean.detach())
    codes = encode(info.program, info.x)
    torch.testing.assert_close(codes[:, :10].sum(1), torch.ones(len(codes)))
    assert codes.shape == (6, 10 + info.program.codes)


def test_a_class_that_is_not_known_is_averaged_over_and_a_known_one_not_looked_at() -> None:
    case = given("semi-supervised-vae")
    codes = encode(case.program, case.x, case.context)
    torch.testing.assert_close(codes, encode(case.program, case.x, torch.zeros_like(case.context)))
    classes = case.program.log_classes(case.x).exp()
    by_hand = sum(
        classes[:, k, None] * case.program.head(case.program.encoder(torch.cat([case.x.flatten(1), row], 1))).mean
        for k, row in ((k, torch.eye(10)[k].expand(6, -1)) for k in range(10))
    )
    torch.testing.assert_close(codes, torch.cat([classes, by_hand], 1).detach())


def test_flows_give_their_noise_and_nade_what_has_seen_everything() -> None:
    flow, nade = given("maf"), given("nade")
    z = encode(flow.program, flow.x)
    torch.testing.assert_close(flow.program.decode(z) * flow.program.scale + flow.program.loc, flow.x)
    net = nade.program.first
    by_hand = torch.sigmoid(nade.x.flatten(1) @ net.weight.T + net.bias)
    torch.testing.assert_close(encode(nade.program, nade.x), by_hand.detach())


def test_numbered_codes_are_read_by_what_they_stand_for() -> None:
    case = given("vq-vae")
    codes = encode(case.program, case.x).unflatten(1, (case.program.codebook.shape[1], -1)).mT
    chosen = case.program.codes(case.x).long().flatten(1)
    torch.testing.assert_close(codes, case.program.codebook[chosen])


class Rolled(Program):
    """A latent whose guide has draws alone, and a second one that depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.event_shape = torch.Size([3])
        self.net = nn.Linear(3, 2)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(a.sum(-1), 1.0))
            return pyro.sample("x", dist.Normal(b.unsqueeze(-1).expand(*b.shape, 3), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        assert x is not None
        loc = self.net(x)
        with self.plate(x, context, size):
            law = Sampler(lambda shape: loc + torch.randn(*shape, 2), loc.shape[:1], torch.Size([2]))
            a = pyro.sample("a", law)
            pyro.sample("b", dist.Normal(2 * a[..., 0], 1.0))


def test_a_users_guide_is_read_by_draws_where_it_has_no_means() -> None:
    torch.manual_seed(0)
    program, x = Rolled(), torch.randn(300, 3)
    codes, loc = encode(program, x), program.net(x).detach()
    error = 4 / encoding.DRAWS**0.5  # of one in thousands
    assert float((codes[:, :2] - loc).abs().max()) < error
    assert float((codes[:, 2] - 2 * loc[:, 0]).abs().max()) < 2 * error
    torch.testing.assert_close(codes[:, 2], 2 * codes[:, 0])  # the mean of b given a, over the same draws
    assert not torch.equal(codes, encode(program, x, seed=1))
    assert program.training


def test_a_fit_encodes_by_its_own_guide_and_not_by_one_it_never_fitted() -> None:
    x = datasets.load("digits-binary").test.x[:20]
    options = {"method.steps": 2, "compile": "never"}
    found = fit("vae", x, "svi", latent_dim=2, **options)
    torch.testing.assert_close(found.encode(), found.program.encode(x).mean.detach())
    assert torch.equal(found.encode(x[:3]), encode(found.program, x[:3]))
    tied = fit("vae", x, "svi", latent_dim=2, **{"method.guide": "normal"}, **options)
    with pytest.raises(CapabilityError, match="holds the factors of the examples"):
        tied.encode(x)
    bare = Fit(program=found.program, method="nuts", data="", seed=0)
    with pytest.raises(CapabilityError, match="fitted without a guide"):
        bare.encode(x)
    ppca = fit("ppca", x, "em", latent_dim=2, iterations=2)
    torch.testing.assert_close(ppca.encode(), encode(ppca.program, x))


def test_bad_questions_are_refused() -> None:
    case = given("vae")
    with pytest.raises(ShapeError):
        encode(case.program, case.x[:, :4])
    with pytest.raises(OptionError, match="seed must be"):
        encode(case.program, case.x, seed=-1)
    broken = catalogue.create("vae")
    with torch.no_grad():
        broken.encoder[0].bias.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match="not finite"):
        encode(broken, case.x)
