"""Images and captions in one space, near where they belong together: an encoder that knows what words look like.

Reed, Akata, Schiele & Lee, "Learning deep representations of fine-grained visual descriptions", CVPR 2016: recurrent
layers over the words, averaged, beside a convolutional network, their inner product large for an image and its caption
and small for others. Its ranking loss is here the cross-entropy of the right partner among those of a minibatch, both
ways (Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from zoo.nets import conv_encoder, image_shape

__all__ = ["CaptionEncoder", "JointEmbedding"]

SHARPNESS = 10.0
"""What the cosines are multiplied by in the cross-entropy."""


class CaptionEncoder(nn.Module):
    """A recurrent network over the words, its states averaged: (B, L) word numbers -> (B, out), of length sqrt(out).

    Args:
        words: Numbers of words from 0, which is no word, to `words` - 1.
        width: Of the words' embeddings and of the states.
        out: Width of the code.
    """

    def __init__(self, words: int, width: int, out: int):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.states = nn.GRU(width, width, batch_first=True)
        self.code = nn.Linear(width, out)

    def forward(self, captions: Tensor) -> Tensor:
        """Codes."""
        there = (captions != 0).to(self.code.weight)[..., None]
        states = self.states(self.words(captions.long()))[0]  # of what is before a word, so that no padding is seen
        mean = (there * states).sum(1) / there.sum(1).clamp(min=1)
        code = self.code(mean)
        return math.sqrt(code.shape[1]) * normalize(code, dim=1)


class JointEmbedding(nn.Module):
    """A caption encoder and an image encoder.

    Args:
        text: The caption encoder.
        event_shape: Of one image, (height, width) or (channels, height, width).
        channels: Of the image encoder's strided convolutions.
    """

    def __init__(self, text: CaptionEncoder, event_shape: Sequence[int], channels: Sequence[int] = (16, 32, 64)):
        super().__init__()
        self.text, self.shape = text, image_shape(event_shape)
        self.image = conv_encoder(self.shape, channels, text.code.out_features)

    def similarity(self, x: Tensor, captions: Tensor) -> Tensor:
        """Cosines of all images (B, *event_shape) and captions (C, L), (B, C)."""
        return normalize(self.image(x.reshape(len(x), *self.shape)), dim=1) @ normalize(self.text(captions), dim=1).T

    def loss(self, x: Tensor, captions: Tensor) -> Tensor:
        """Mean cross-entropy, (), of each image's caption among those of the batch, and of each caption's image.

        A caption that several images share is no wrong answer for any of them.
        """
        logits = SHARPNESS * self.similarity(x, captions)
        same = (captions[:, None] == captions).all(2) & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        logits, right = logits.masked_fill(same, -math.inf), torch.arange(len(x), device=x.device)
        return (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2

    @torch.enable_grad()
    def learn(self, x: Tensor, captions: Tensor, steps: int, batch_size: int = 128) -> None:
        """Adam on minibatches of pairs, the rate falling to zero by a cosine; draws from torch's global generator.

        Args:
            x: Images (N, *event_shape).
            captions: (N, L).
            steps: Of Adam.
            batch_size: Pairs in each.
        """
        optimizer = torch.optim.Adam(self.parameters(), 3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
        for _ in range(steps):
            rows = torch.randint(len(x), (min(batch_size, len(x)),), device=x.device)
            optimizer.zero_grad(set_to_none=True)
            self.loss(x[rows], captions[rows]).backward()
            optimizer.step()
            schedule.step()
