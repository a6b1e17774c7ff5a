"""What a network is conditioned on beside the image."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int, Num


class Condition(NamedTuple):
    """Conditions of a batch of images; None for those that the network is not given.

    noise: one number per image for its noise level. label: class of each image; the number of classes stands for "no
    class". augment: parameters of each image's augmentation.
    """

    noise: Num[Array, " batch"] | None = None
    label: Int[Array, " batch"] | None = None
    augment: Float[Array, "batch parameters"] | None = None
