"""Conditional generation: noise predictions that are conditioned on an observation or on a class.

`LinearObservation` solves linear inverse problems y = P x_0 with an orthogonal projector P. `classifier_guidance` and
`classifier_free_guidance` condition on a class. Each of them maps a noise prediction to a noise prediction, so every
sampler runs with them. Equation numbers refer to docs/theory.md.
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

# ------------------------------------------------------------------------- orthogonal projectors


def pixel_mask(known: Mask) -> Projector:
    """Return the projector on the observed pixels, for inpainting.

    Args:
        known: 1 where a pixel is observed, 0 elsewhere.
    """
    return lambda x: known * x


def channel_mean(x: Images) -> Images:
    """Project every pixel on the mean of its channels (RGB direction (1, 1, 1)), for colorization."""
    return jnp.broadcast_to(jnp.mean(x, axis=-1, keepdims=True), x.shape)


def block_mean(factor: int) -> Projector:
    """Return the projector on the means of square blocks of pixels, for super-resolution.

    Args:
        factor: side of a block in pixels; it divides the height and the width of the images.
    """

    def project(x: Images) -> Images:
        batch, height, width, channels = x.shape
        blocks = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
        means = jnp.mean(blocks, axis=(2, 4), keepdims=True)
        return jnp.broadcast_to(means, blocks.shape).reshape(x.shape)

    return project


# ------------------------------------------------------------------------- inverse problems


@dataclasses.dataclass(frozen=True)
class LinearObservation:
    """Noise-free linear observation y = P x_0 of clean images.

    A sampler that uses `noise_fn` in place of the network's noise prediction ends at images whose observed part is y
    up to the noise at the last time. The paper instead overwrites the observed part of x_t after every step.

    Attributes:
        sde: diffusion.
        project: orthogonal projector P.
        y: observed part of the images, in the range of P.

    Reference: arXiv 2011.13456, Appendix I; theory.md eq. (32).
    """

    sde: SDE
    project: Projector
    y: Images

    def noise_fn(self, noise_fn: NoiseFn) -> NoiseFn:
        """Return the noise prediction of `noise_fn` with the exact prediction in the range of P.

        Args:
            noise_fn: unconditional noise prediction (x, t) -> eps_hat.

        Reference: theory.md eq. (32).
        """

        def conditional(x: Images, t: Time) -> Images:
            eps = noise_fn(x, t)
            exact = (self.project(x) - self.sde.alpha(t) * self.y) / self.sde.sigma(t)
            return eps - self.project(eps) + exact

        return conditional

    def initialize(self, keys: Keys, x: Images, t: Time) -> Images:
        """Return x with its observed part replaced by that of noisy images y at time t.

        Args:
            keys: one PRNG key per image.
            x: images at time t, such as a sample of the prior.
            t: first time of the sampler.

        Reference: theory.md eq. (2).
        """
        noisy, _ = self.sde.perturb(keys, self.y, t)
        return x - self.project(x) + self.project(noisy)

    def enforce(self, x: Images) -> Images:
        """Return the clean images x with the observed part set to y."""
        return x - self.project(x) + self.y


# ------------------------------------------------------------------------- classes


def classifier_guidance(
    noise_fn: NoiseFn, sde: SDE, log_probabilities: LogProbabilities, labels: Int[Array, " batch"], scale: float = 1.0
) -> NoiseFn:
    """Return the noise prediction guided by the gradient of a classifier of noisy images.

    Args:
        noise_fn: unconditional noise prediction (x, t) -> eps_hat.
        sde: diffusion.
        log_probabilities: classifier (x, t) -> log p(class | x_t = x) of every class.
        labels: class of each image.
        scale: guidance scale; 0 is unconditional, 1 conditional, above 1 trades diversity for typicality.

    Reference: arXiv 2011.13456, eq. 14; arXiv 2105.05233, Section 4; theory.md eq. (33).
    """

    def conditional(x: Float[Array, "batch *shape"], t: Time) -> Float[Array, "batch *shape"]:
        def log_probability(x: Float[Array, "batch *shape"]) -> Float[Array, ""]:
            log_probs = log_probabilities(x, t)
            # Each term depends on one image, so the gradient of the sum has the gradients of all images.
            return jnp.sum(jax.nn.one_hot(labels, log_probs.shape[1], dtype=log_probs.dtype) * log_probs)

        return noise_fn(x, t) - scale * sde.sigma(t) * jax.grad(log_probability)(x)

    return conditional


def classifier_free_guidance(conditional: NoiseFn, unconditional: NoiseFn, scale: float) -> NoiseFn:
    """Return the noise prediction of classifier-free guidance, which calls the network twice.

    For exact predictions it equals `classifier_guidance`.

    Args:
        conditional: noise prediction given the class, (x, t) -> eps_hat.
        unconditional: noise prediction without a class.
        scale: guidance scale, as in `classifier_guidance`. The paper's w is scale - 1.

    Reference: arXiv 2207.12598, eq. 6; theory.md eq. (36).
    """

    def noise_fn(x: Float[Array, "batch *shape"], t: Time) -> Float[Array, "batch *shape"]:
        eps = unconditional(x, t)
        return eps + scale * (conditional(x, t) - eps)

    return noise_fn
