"""Masks of images: 1 for known pixels, 0 for hidden pixels."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.guidance import Images, Keys, Mask


def right(keys: Keys, like: Images, fraction: float) -> Mask:
    """Hide a fraction of the columns, at the right."""
    del keys
    columns = like.shape[2]
    known = np.arange(columns) < columns - round(fraction * columns)
    return jnp.asarray(np.broadcast_to(known[None, None, :, None], (1, *like.shape[1:3], 1)), like.dtype)


def left(keys: Keys, like: Images, fraction: float) -> Mask:
    """Hide a fraction of the columns, at the left."""
    return right(keys, like, fraction)[:, :, ::-1]


def bottom(keys: Keys, like: Images, fraction: float) -> Mask:
    """Hide a fraction of the rows, at the bottom."""
    return jnp.swapaxes(right(keys, jnp.swapaxes(like, 1, 2), fraction), 1, 2)


def top(keys: Keys, like: Images, fraction: float) -> Mask:
    """Hide a fraction of the rows, at the top."""
    return bottom(keys, like, fraction)[:, ::-1]


def box(keys: Keys, like: Images, fraction: float) -> Mask:
    """Hide a central box with about a fraction of the pixels."""
    del keys
    known = np.ones((1, *like.shape[1:3], 1))
    height, width = (max(1, round(fraction**0.5 * size)) for size in like.shape[1:3])
    first_row, first_column = (like.shape[1] - height) // 2, (like.shape[2] - width) // 2
    known[:, first_row : first_row + height, first_column : first_column + width] = 0.0
    return jnp.asarray(known, like.dtype)


def random(keys: Keys, like: Images, fraction: float) -> Mask:
    """Hide each pixel with probability `fraction`; the mask of an image depends on its key alone."""
    return (prng.uniform(keys, like[..., :1]) >= fraction).astype(like.dtype)


MASKS: dict[str, Callable[[Keys, Images, float], Mask]] = {
    "left": left,
    "right": right,
    "top": top,
    "bottom": bottom,
    "box": box,
    "random": random,
}
