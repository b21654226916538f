r"""CycleGAN: two looks of images and no pairs; a translator each way, and each undoes what the other did.

Zhu, Park, Isola & Efros, "Unpaired image-to-image translation using cycle-consistent adversarial networks", ICCV 2017;
networks from its appendix 7.2.

    s ~ the source images,   x = g(s);       guide: s = f(x)

    s --> x      sites: source (*event_shape) and x (*event_shape), both implicit; the context is s, an image

Of the two translators of the paper the one that makes x is the program, and the other, which says which source an x
came from, is its guide: translating back is inferring. The method `cycle` plays both games, for x and for the source,
and its cycle terms ask that the guide's answer reproduces x, and that the guide finds the source again. Nothing is
drawn: given a source image, x is one image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor, nn

from zoo.errors import ShapeError
from zoo.implicit.networks import network_options
from zoo.implicit.translators import ImageTranslation, PatchCritic, ResidualTranslator
from zoo.options import Counts, Natural, Shape
from zoo.process import one_at_a_time
from zoo.program import Implicit, Preset

__all__ = ["CycleGAN"]


class CycleGAN(ImageTranslation):
    """Two residual translators: one from source images to x, the program; one back, its guide.

    Args:
        event_shape: Of x and of the source images: (height, width) or (channels, height, width), in [0, 1].
        context_shape: Of the source images, the same.
        channels: Of both translators, at full size and after each halving; see `ResidualTranslator`.
        blocks: Their residual blocks.
        ink: Whether ink (1) and ground (0) count alike in the distance.
        critic: Options of the critics, those of `PatchCritic`: `channels` ([16, 32]), `kernel` (4) and `norm`
            ('instance').

    Raises: OptionError, ShapeError; UnknownNameError for another option of the critics.
    """

    paper = "Zhu et al., Unpaired image-to-image translation using cycle-consistent adversarial networks, 2017"
    dataset = "glyphs-sans-to-serif-unpaired"

    def __init__(
        self,
        event_shape: Shape = (32, 32),
        context_shape: Shape = (32, 32),
        channels: Counts = (16, 32, 64),
        blocks: Natural = 3,
        ink: bool = False,
        critic: Mapping[str, Any] | None = None,
    ):
        if list(event_shape) != list(context_shape):
            raise ShapeError(
                f"CycleGAN translates both ways, so that x and context have one shape, got {tuple(event_shape)} and "
                f"{tuple(context_shape)}; make both grey or both in colour."
            )
        super().__init__(event_shape, context_shape, ink)
        self.critic_options = network_options(
            "the critics of cyclegan", critic, channels=(16, 32), kernel=4, norm="instance"
        )
        self.to_x = ResidualTranslator(self.shape, self.shape[0], channels, blocks=blocks)
        self.to_source = ResidualTranslator(self.shape, self.shape[0], channels, blocks=blocks)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The source image, translated; differentiable in the parameters."""
        assert context is not None
        with self.plate(x, context, size):
            source = pyro.sample("source", Implicit(context, len(self.event_shape)))
            return pyro.sample("x", Implicit(self._through(self.to_x, source), len(self.event_shape)), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """x, translated back."""
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("source", Implicit(self._through(self.to_source, x), len(self.event_shape)))

    def critic(self) -> nn.Module:
        """Of the patches of one image; the method `cycle` takes one for x and one for the source images."""
        return PatchCritic(self.event_shape, None, **self.critic_options)

    @one_at_a_time
    @torch.no_grad()
    def back(self, x: Any) -> Tensor:
        """Source images (N, *event_shape) of x (N, *event_shape): what the guide says.

        Raises: what `check` raises.
        """
        return self._through(self.to_source, self.accept(x, x)[0])

    def _through(self, translator: nn.Module, image: Tensor) -> Tensor:
        batch = image.shape[: image.ndim - len(self.event_shape)]
        return translator(image.reshape(*batch, *self.shape)).reshape(image.shape)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"channels": [8, 16, 32], "ink": True}, "cycle",
            {"steps": 1500, "batch_size": 8, "lr": 1e-3, "critic_lr": 5e-4},
        ),
        "paper": Preset(
            {"channels": [64, 128, 256], "blocks": 9, "critic": {"channels": [64, 128, 256, 512]}}, "cycle",
            {"epochs": 200, "batch_size": 1, "lr": 2e-4},
        ),
    }  # fmt: skip
