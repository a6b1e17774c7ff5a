"""One PRNG key per image, so that image i is the same in any batch, on any number of devices.

Everywhere in this package `keys` is an array of typed PRNG keys with one key for every image of the batch.
"""

from enum import IntEnum
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

Purpose = Literal["init", "train", "sample", "evaluate"]


class Stream(IntEnum):
    """Numbers folded into an image's key for random streams of their own.

    They are above all that a split of a key counts to: its parts are what folding 0, 1, ... gives.
    """

    DROPOUT = 2**31 - 1
    PROJECTIONS = 2**31 - 2
    DEQUANTIZE = 2**31 - 3
    FLIP = 2**31 - 4
    LABEL = 2**31 - 5


def root(seed: int, purpose: Purpose) -> Key[Array, ""]:
    """Key of one use of a seed; no two uses share noise."""
    return jax.random.fold_in(jax.random.key(seed), get_args(Purpose).index(purpose))


def per_image(key: Key[Array, ""], indices: Int[Array, " batch"]) -> Key[Array, " batch"]:
    """Key of each image, a function of the root key and the image's own number alone."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def fold_in(keys: Key[Array, " batch"], number: Int[Array, ""] | int) -> Key[Array, " batch"]:
    """Keys for step `number`, without carrying keys from one step to the next."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def stream(keys: Key[Array, " batch"], name: Stream) -> Key[Array, " batch"]:
    """Keys of a named stream, independent of what else the same keys are used for."""
    return fold_in(keys, int(name))


def split(keys: Key[Array, " batch"], num: int) -> tuple[Key[Array, " batch"], ...]:
    """`num` independent arrays of keys."""
    parts = jax.vmap(lambda key: jax.random.split(key, num))(keys)
    return tuple(parts[:, i] for i in range(num))


def normal(keys: Key[Array, " batch"], like: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """Unit Gaussian noise of the shape and type of `like`; row i depends on keys[i] alone."""
    return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:], like.dtype))(keys)


def uniform(keys: Key[Array, " batch"], like: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """Uniform noise on [0, 1) of the shape and type of `like`; row i depends on keys[i] alone."""
    return jax.vmap(lambda key: jax.random.uniform(key, like.shape[1:], like.dtype))(keys)


def signs(keys: Key[Array, " batch"], like: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """-1 or 1, each in half of all draws, of the shape and type of `like`; row i depends on keys[i] alone."""
    return jax.vmap(lambda key: jax.random.rademacher(key, like.shape[1:], like.dtype))(keys)


def bcast(values: Shaped[Array, " batch"], like: Shaped[Array, "batch *shape"]) -> Shaped[Array, "..."]:
    """One value per image, shaped (batch, 1, ..., 1) so that it multiplies images without broadcasting ranks."""
    return jnp.reshape(values, (-1,) + (1,) * (like.ndim - 1))
