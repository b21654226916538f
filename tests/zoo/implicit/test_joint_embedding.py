"""The joint embedding: padding is not seen, the loss is the formula, and it learns what words look like."""

from __future__ import annotations

import math

import pytest
import torch

from zoo.implicit.joint_embedding import SHARPNESS, CaptionEncoder, JointEmbedding


def test_padding_is_not_seen() -> None:
    encoder = CaptionEncoder(7, 4, 5)
    short, long = torch.tensor([[1, 6], [3, 0]]), torch.tensor([[1, 6, 0, 0], [3, 0, 0, 0]])
    assert torch.allclose(encoder(short), encoder(long))
    assert not torch.allclose(encoder(torch.tensor([[1, 6]])), encoder(torch.tensor([[6, 1]])))  # an order is
    assert torch.allclose(encoder(short).square().sum(1), torch.tensor(5.0))
    assert bool(encoder(torch.zeros(2, 3)).isfinite().all())  # nothing said


def test_a_code_is_the_mean_of_the_states() -> None:
    encoder, caption = CaptionEncoder(7, 4, 5), torch.tensor([[2, 5, 1, 0]])
    states = encoder.states(encoder.words(caption[:, :3]))[0][0]
    code = encoder.code(states.mean(0))
    assert torch.allclose(encoder(caption)[0], math.sqrt(5) * code / code.norm())


def test_loss_is_the_formula() -> None:
    torch.manual_seed(0)
    joint = JointEmbedding(CaptionEncoder(5, 4, 6), (8, 8), channels=(3,))
    x, captions = torch.rand(3, 8, 8), torch.tensor([[1, 2], [3, 0], [1, 2]])  # the first and the last say the same
    s = SHARPNESS * joint.similarity(x, captions)
    allowed = [[0, 1], [0, 1, 2], [1, 2]]
    of_images = [s[i, js].logsumexp(0) - s[i, i] for i, js in enumerate(allowed)]
    of_captions = [s[js, i].logsumexp(0) - s[i, i] for i, js in enumerate(allowed)]
    expected = (torch.stack(of_images).mean() + torch.stack(of_captions).mean()) / 2
    assert float(joint.loss(x, captions).detach()) == pytest.approx(float(expected.detach()))
    image, text = (torch.nn.functional.normalize(v, dim=1) for v in (joint.image(x[:, None]), joint.text(captions)))
    assert torch.allclose(s, SHARPNESS * image @ text.T)


@torch.no_grad()
def test_learns_words_that_go_together_anew() -> None:
    """Brightness and side are words; one combination of the two is never seen."""
    bright, side = torch.arange(240) % 2, torch.arange(240) // 2 % 3
    x = 0.1 * torch.rand(240, 8, 9)
    for k in range(3):
        x[side == k, :, 3 * k : 3 * k + 3] += 0.3 + 0.5 * bright[side == k, None, None]
    captions = torch.stack([1 + bright, 3 + side], 1)
    held_out = (bright == 1) & (side == 2)
    joint = JointEmbedding(CaptionEncoder(6, 8, 8), (8, 9), channels=(4, 8))
    before = torch.get_rng_state()
    joint.learn(x[~held_out], captions[~held_out], 150, batch_size=32)
    assert not torch.equal(before, torch.get_rng_state())
    every = torch.tensor([[1 + b, 3 + s] for b in range(2) for s in range(3)])
    found = every[joint.similarity(x, every).argmax(1)]
    right = (found == captions).all(1)
    assert float(right[~held_out].double().mean()) > 0.95
    # One in six by chance, among those where only the brightness was guessed one in two.
    assert float(right[held_out].double().mean()) > 0.6
