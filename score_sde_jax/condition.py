"""Conditions of a network."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int, Num


class Condition(NamedTuple):
    """Conditions of a batch of images; None marks a condition that the network does not have.

    Attributes:
        noise: one number per image that encodes the noise level, see `diffusion.parameterization.CONDITIONS`.
        label: class of each image, 0 to num_classes - 1; num_classes is the token for "no class".
        augment: augmentation parameters of each image.
    """

    noise: Num[Array, " batch"] | None = None
    label: Int[Array, " batch"] | None = None
    augment: Float[Array, "batch parameters"] | None = None
