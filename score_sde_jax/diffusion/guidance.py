"""What is known of an image enters through its noise prediction, so that every sampler draws what is unknown.

Two ways. A linear observation y = P x_0, with P an orthogonal projector, is obeyed exactly (`Known`); a class is made
likely by the gradient of a classifier of noisy images (`guided`). Equations: docs/theory.md.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from score_sde_jax.diffusion.parameterization import LogProbabilities, NoiseFn
from score_sde_jax.diffusion.sdes import SDE, Time

Images = Float[Array, "batch height width channels"]
Mask = Float[Array, "#batch height width 1"]
Keys = Key[Array, " batch"]
Projector = Callable[[Images], Images]


# ------------------------------------------------------------------------- orthogonal projectors on what is known


def masked(known: Mask) -> Projector:
    """The pixels where a mask is 1."""
    return lambda x: known * x


def grey(x: Images) -> Images:
    """The mean of the colours of each pixel: the direction (1, 1, 1) of RGB."""
    return jnp.broadcast_to(jnp.mean(x, axis=-1, keepdims=True), x.shape)


def block_means(factor: int) -> Projector:
    """The mean of each square of factor by factor pixels, which the image of a coarser camera would hold."""

    def project(x: Images) -> Images:
        batch, height, width, channels = x.shape
        blocks = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
        means = jnp.mean(blocks, axis=(2, 4), keepdims=True)
        return jnp.broadcast_to(means, blocks.shape).reshape(x.shape)

    return project


# ------------------------------------------------------------------------- the two ways


@dataclasses.dataclass(frozen=True)
class Known:
    """The part P x_0 = y of clean images: `project` is P, an orthogonal projector, and `y` lies in its range.

    With `noise_fn` in place of the network's every sampler of the SDE, random or not, draws images whose known part
    is y up to the last noise; `start` puts the known part where it belongs at the first time, and `finish` makes it
    exact (arXiv 2011.13456, Appendix I, which overwrites it after every step instead).
    """

    sde: SDE
    project: Projector
    y: Images

    def noise_fn(self, noise_fn: NoiseFn) -> NoiseFn:
        """The noise prediction whose known part is that of data with the known part y, eq. (32)."""

        def conditional(x: Images, t: Time) -> Images:
            eps = noise_fn(x, t)
            exact = (self.project(x) - self.sde.alpha(t) * self.y) / self.sde.sigma(t)
            return eps - self.project(eps) + exact

        return conditional

    def start(self, keys: Keys, x: Images, t: Time) -> Images:
        """`x` with its known part drawn from the distribution of noisy images at time t, eq. (2)."""
        noisy, _ = self.sde.perturb(keys, self.y, t)
        return x - self.project(x) + self.project(noisy)

    def finish(self, x: Images) -> Images:
        """`x` with its known part exact."""
        return x - self.project(x) + self.y


def guided(
    noise_fn: NoiseFn, sde: SDE, log_probabilities: LogProbabilities, labels: Int[Array, " batch"], scale: float = 1.0
) -> NoiseFn:
    """The noise prediction given the class, by the gradient of a classifier of noisy images, eq. (33).

    (arXiv 2011.13456, eq. 14; `scale` as in arXiv 2105.05233, Section 4: above 1 images are more typical of the class.)
    """

    def conditional(x: Float[Array, "batch *shape"], t: Time) -> Float[Array, "batch *shape"]:
        def chosen(x: Float[Array, "batch *shape"]) -> Float[Array, ""]:
            logs = log_probabilities(x, t)
            return jnp.sum(jax.nn.one_hot(labels, logs.shape[1], dtype=logs.dtype) * logs)  # images do not mix

        return noise_fn(x, t) - scale * sde.sigma(t) * jax.grad(chosen)(x)

    return conditional


def classifier_free(conditional: NoiseFn, unconditional: NoiseFn, scale: float) -> NoiseFn:
    """The noise prediction of classifier-free guidance, eq. (36) (arXiv 2207.12598).

    `scale` as in `guided`, of which this is the same with exact predictions: 1 for the distribution given the class.
    """

    def noise_fn(x: Float[Array, "batch *shape"], t: Time) -> Float[Array, "batch *shape"]:
        eps = unconditional(x, t)
        return eps + scale * (conditional(x, t) - eps)

    return noise_fn
