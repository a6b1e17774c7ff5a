"""Norms of every network, with the activation that follows: group norm and InstanceNorm++.

On accelerators the time of a norm is that of its passes over memory. These norms read the features once for their
moments and once for the result, and in the backward pass once more for each. The moments are at least float32.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from score_sde_jax.devices.machine import on_cpu
from score_sde_jax.networks.fusion import compute_once

Image = Float[Array, "batch height width channels"]


def num_groups(channels: int, most: int = 32, smallest: int = 4) -> int:
    """Return the number of groups of a group norm: the largest admissible divisor of `channels`.

    With one channel per group, the norm would remove the embedding that was added to the channel.

    Args:
        channels: number of channels.
        most: largest number of groups.
        smallest: smallest number of channels of a group.
    """
    largest = max(1, min(channels // smallest, most))
    return next(groups for groups in range(largest, 0, -1) if channels % groups == 0)


class Moments(NamedTuple):
    """Shifted features, and the moments of each channel of each image.

    Attributes:
        shifted: features minus `shift`.
        shift: a value of each channel of each image.
        mean: mean of `shifted` over the pixels.
        variance: biased variance over the pixels.
    """

    shifted: Image
    shift: Float[Array, "batch channels"]
    mean: Float[Array, "batch channels"]
    variance: Float[Array, "batch channels"]


def moments(x: Image) -> Moments:
    """Return the mean and the biased variance of each channel of each image, on accelerators in one pass over memory.

    There the variance is E[(x - K)^2] - E[x - K]^2 with K a value of the channel. Its relative rounding error is at
    most that of a sum times the number of pixels, since no value is further from the mean than the root of that number
    of standard deviations (Samuelson's inequality).

    Args:
        x: features.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    if on_cpu():  # where two passes are faster
        mean = x.mean((1, 2), dtype=dtype)
        centered = x - mean[:, None, None, :]
        return Moments(centered, mean, jnp.zeros_like(mean), jnp.square(centered).mean((1, 2)))
    # The moments do not depend on K, so neither do their derivatives.
    shift = jax.lax.stop_gradient(x[:, 0, 0, :]).astype(dtype)
    shifted = x - shift[:, None, None, :]
    mean = shifted.mean((1, 2))
    variance = jnp.maximum(jnp.square(shifted).mean((1, 2)) - jnp.square(mean), 0)
    return Moments(shifted, shift, mean, variance)


Activation = Callable[[Image], Image]


def normalized(
    of: Moments,
    factor: Float[Array, "batch channels"],
    mean: Float[Array, "batch channels"],
    activation: Activation,
    dtype: DTypeLike,
) -> Image:
    """Return the activation of the features after a map that gives each channel of each image another mean.

    Args:
        of: features and their moments.
        factor: factor of each channel of each image.
        mean: mean that they get.
        activation: activation.
        dtype: dtype of the result.
    """
    factor, offset = compute_once(factor), compute_once(mean - of.mean * factor)  # not again for every pixel
    function = activated.fun if on_cpu() else activated
    return function(activation, dtype, of.shifted, factor, offset)


def identity(x: Image) -> Image:
    """Return `x`, for norms without an activation."""
    return x


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def activated(
    activation: Activation,
    dtype: DTypeLike,
    x: Image,
    factor: Float[Array, "batch channels"],
    offset: Float[Array, "batch channels"],
) -> Image:
    """Return activation(factor x + offset).

    Args:
        activation: function of each value.
        dtype: dtype of the result.
        x: features.
        factor: factor of each channel of each image.
        offset: constant of each channel of each image.
    """
    return activation(x * factor[:, None, None, :] + offset[:, None, None, :]).astype(dtype)


@activated.defjvp
def _activated_jvp(
    activation: Activation, dtype: DTypeLike, primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    """Return the value, and the derivative as the sum of those with respect to x and to the others.

    In the backward pass, the first is an image and the others are sums over pixels. If both read one derivative of the
    activation, XLA on an accelerator writes that to memory. Behind a barrier it is another one, and XLA fuses each with
    what reads it.
    """
    function = functools.partial(activated.fun, activation, dtype)
    x, others = primals[0], primals[1:]
    value, of_x = jax.jvp(lambda x: function(x, *others), (x,), tangents[:1])
    others = jax.lax.optimization_barrier(others)
    _, of_others = jax.jvp(lambda *others: function(x, *others), others, tangents[1:])
    return value, of_x + of_others


class GroupNorm(nn.Module):
    """Group norm with scale and shift per channel, and an activation.

    Attributes:
        dtype: dtype of the result.
        activation: activation of the normalized features.
        most: largest number of groups.
        smallest: smallest number of channels of a group.

    Reference: arXiv 1803.08494.
    """

    dtype: DTypeLike
    activation: Activation = identity
    most: int = 32
    smallest: int = 4

    @nn.compact
    def __call__(self, x: Image, added: Float[Array, "batch channels"] | None = None) -> Image:
        """Return the normalized and activated `x`.

        Args:
            x: features.
            added: constant to add to each channel of each image before the norm; None for 0.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        groups = num_groups(channels, self.most, self.smallest)
        return group_norm(x, scale, bias, groups, added, self.activation, self.dtype)


def group_norm(
    x: Image,
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    groups: int,
    added: Float[Array, "batch channels"] | None = None,
    activation: Activation = identity,
    dtype: DTypeLike | None = None,
    epsilon: float = 1e-6,
) -> Image:
    """Return the activation of scale (x + a - mu) / s + bias.

    mu and s are the mean and the biased standard deviation of x + a in each group of channels of each image.

    Args:
        x: features.
        scale: scale of each channel.
        bias: shift of each channel.
        groups: number of groups, a divisor of the channels.
        added: a, a constant for each channel of each image; None for 0.
        activation: activation of the normalized features.
        dtype: dtype of the result; that of x if None.
        epsilon: constant added to the variance s^2.
    """
    of = moments(x)
    mean = of.mean + of.shift + (0 if added is None else added)

    def group_mean(values: Float[Array, "batch channels"]) -> Float[Array, "batch channels"]:
        per_group = values.reshape(len(x), groups, -1)
        return jnp.broadcast_to(per_group.mean(-1, keepdims=True), per_group.shape).reshape(values.shape)

    between = mean - group_mean(mean)
    variance = group_mean(of.variance + jnp.square(between))
    factor = jax.lax.rsqrt(variance + epsilon) * scale[None]
    return normalized(of, factor, between * factor + bias[None], activation, dtype or x.dtype)


small_group_norm = functools.partial(GroupNorm, most=8, smallest=2)
"""Group norm of the small networks: at most 8 groups of at least 2 channels."""


def normal_around_one(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Draw from N(1, 0.02^2), the initialization of the scales of InstanceNorm++."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def instance_norm_plus(
    x: Image,
    gamma: Float[Array, "#batch channels"],
    alpha: Float[Array, "#batch channels"],
    beta: Float[Array, "#batch channels"],
    activation: Activation = identity,
    epsilon: float = 1e-5,
) -> Image:
    """Normalize each channel of each image and add its relative mean (InstanceNorm++).

    The result is the activation of gamma ((x - mu) / s + alpha (mu - m) / v) + beta. mu and s are the mean and the
    biased standard deviation over the pixels of a channel; m and v are the mean and the unbiased standard deviation of
    mu over the channels, as in the released code.

    Reference: arXiv 1907.05600, Appendix A.1.
    """
    of = moments(x)
    # If XLA may compute the moments again, it takes minutes to decide what to fuse with the operations on them.
    of = of._replace(mean=compute_once(of.mean), variance=compute_once(of.variance))
    mu = of.mean + of.shift
    m = mu.mean(-1, keepdims=True)
    v = mu.var(-1, keepdims=True, ddof=1)
    relative = (mu - m) * jax.lax.rsqrt(v + epsilon)
    factor = gamma * jax.lax.rsqrt(of.variance + epsilon)
    return normalized(of, factor, gamma * alpha * relative + beta, activation, x.dtype)


class InstanceNormPlus(nn.Module):
    """InstanceNorm++ with one scale and shift per channel; it ignores the condition.

    Attributes:
        activation: activation of the normalized features.
    """

    activation: Activation = identity

    @nn.compact
    def __call__(self, x: Image, condition: Int[Array, " batch"] | None = None) -> Image:
        """Return the normalized `x`."""
        shape = (x.shape[-1],)
        gamma = self.param("gamma", normal_around_one, shape)
        alpha = self.param("alpha", normal_around_one, shape)
        beta = self.param("beta", nn.initializers.zeros, shape)
        return instance_norm_plus(x, gamma[None], alpha[None], beta[None], self.activation)


class ConditionalInstanceNormPlus(nn.Module):
    """InstanceNorm++ whose scales and shift depend on the index of the noise level.

    Attributes:
        num_levels: number of noise levels.
        activation: activation of the normalized features.
    """

    num_levels: int
    activation: Activation = identity

    @nn.compact
    def __call__(self, x: Image, condition: Int[Array, " batch"]) -> Image:
        """Return the normalized `x`, with scales and shift of the level index `condition`."""
        channels = x.shape[-1]

        def init(key: Array, shape: tuple[int, int]) -> Array:
            return normal_around_one(key, shape).at[:, 2 * channels :].set(0)

        embed = self.param("embed", init, (self.num_levels, 3 * channels))
        # The lookup is a matrix product with a one-hot vector, since the gradient of a gather is a slow scatter.
        one_hot = jax.nn.one_hot(condition, self.num_levels)
        rows = jnp.dot(one_hot, embed, precision=jax.lax.Precision.HIGHEST)
        gamma, alpha, beta = jnp.split(rows, 3, axis=-1)
        return instance_norm_plus(x, gamma, alpha, beta, self.activation)
