"""One PRNG key per image, so that image i depends neither on the batch size nor on the number of devices.

Everywhere in this package, `keys` is an array of typed PRNG keys with one key per image of the batch.
"""

from enum import IntEnum
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

Purpose = Literal["init", "train", "sample", "evaluate"]
Generator = Literal["threefry2x32", "philox4x32"]
"""Generators of JAX whose numbers for a key do not depend on the other keys of a batch; those of rbg do."""


class Stream(IntEnum):
    """Numbers that are folded into an image's key to obtain independent random streams.

    `jax.random.split` folds in 0, 1, ..., so these numbers are larger than any number of parts.
    """

    DROPOUT = 2**31 - 1
    PROJECTIONS = 2**31 - 2
    DEQUANTIZE = 2**31 - 3
    FLIP = 2**31 - 4
    LABEL = 2**31 - 5


def root(seed: int, purpose: Purpose, rng: Generator = "threefry2x32") -> Key[Array, ""]:
    """Return the root key of one purpose; different purposes share no random numbers.

    Args:
        seed: seed of the run.
        purpose: use of the key.
        rng: generator.
    """
    return jax.random.fold_in(jax.random.key(seed, impl=rng), get_args(Purpose).index(purpose))


def per_image(key: Key[Array, ""], indices: Int[Array, " batch"]) -> Key[Array, " batch"]:
    """Return the key of each image, a function of the root key and the image's index alone.

    Args:
        key: root key.
        indices: index of each image.
    """
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def fold_in(keys: Key[Array, " batch"], number: Int[Array, ""] | int) -> Key[Array, " batch"]:
    """Fold a number, such as a step index, into every key.

    Args:
        keys: one key per image.
        number: 0 to 2^32 - 1.
    """
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def stream(keys: Key[Array, " batch"], name: Stream) -> Key[Array, " batch"]:
    """Return the keys of a named stream, which is independent of all other uses of the same keys.

    Args:
        keys: one key per image.
        name: stream.
    """
    return fold_in(keys, int(name))


def split(keys: Key[Array, " batch"], num: int) -> tuple[Key[Array, " batch"], ...]:
    """Split every key.

    Args:
        keys: one key per image.
        num: number of parts.

    Returns:
        `num` independent arrays of keys.
    """
    parts = jax.vmap(lambda key: jax.random.split(key, num))(keys)
    return tuple(parts[:, i] for i in range(num))


def normal(keys: Key[Array, " batch"], like: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """Sample standard normal noise; row i depends on keys[i] alone.

    Args:
        keys: one key per image.
        like: array of the shape and dtype of the result.
    """
    return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:], like.dtype))(keys)


def uniform(keys: Key[Array, " batch"], like: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """Sample uniform noise on [0, 1); row i depends on keys[i] alone.

    Args:
        keys: one key per image.
        like: array of the shape and dtype of the result.
    """
    return jax.vmap(lambda key: jax.random.uniform(key, like.shape[1:], like.dtype))(keys)


def signs(keys: Key[Array, " batch"], like: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """Sample Rademacher noise, -1 or 1 with probability 1/2 each; row i depends on keys[i] alone.

    Args:
        keys: one key per image.
        like: array of the shape and dtype of the result.
    """
    return jax.vmap(lambda key: jax.random.rademacher(key, like.shape[1:], like.dtype))(keys)


def bcast(values: Shaped[Array, " batch"], like: Shaped[Array, "batch *shape"]) -> Shaped[Array, "..."]:
    """Reshape one value per image to (batch, 1, ..., 1), so that it broadcasts over the images.

    Args:
        values: one value per image.
        like: array of the rank of the result.
    """
    return jnp.reshape(values, (-1,) + (1,) * (like.ndim - 1))
