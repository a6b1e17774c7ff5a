"""Preconditioning and noise-level conditioning of a network F.

A `Parameterization` turns F into a noise prediction

    eps_hat(x, t) = c_skip (x - c) + c_out F(c_in (x - c), condition),    c = alpha(t) center,

which approximates E[eps | x_t = x]. All other modules see the noise prediction alone. Equation numbers refer to
docs/theory.md.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from score_sde_jax.condition import Condition
from score_sde_jax.diffusion.sdes import SDE, Time
from score_sde_jax.ranges import Levels, Positive

NoiseFn = Callable[[Float[Array, "batch *shape"], Time], Float[Array, "batch *shape"]]
LogProbabilities = Callable[[Float[Array, "batch *shape"], Time], Float[Array, "batch classes"]]
NoiseCondition = Callable[[SDE, Time], "Time | Int[Array, '...'] | None"]
Network = Callable[..., Shaped[Array, "batch ..."]]


class Coefficients(NamedTuple):
    """Coefficients of eps_hat = c_skip x + c_out F(c_in x), scalars or one per image.

    Attributes:
        skip: c_skip.
        output: c_out.
        input: c_in.
    """

    skip: Time | float
    output: Time | float
    input: Time | float


# ------------------------------------------------------------------------- preconditioning


def score(sde: SDE, t: Time) -> Coefficients:
    """Return the coefficients for a prediction of the score, as in NCSN: eps_hat = -sigma F.

    Args:
        sde: diffusion.
        t: time.

    Reference: arXiv 1907.05600; theory.md eq. (4).
    """
    return Coefficients(0.0, -sde.sigma(t), 1.0)


def scaled_score(sde: SDE, t: Time) -> Coefficients:
    """Return the coefficients for a prediction of sigma times the score, as in NCSNv2: eps_hat = -F.

    Args:
        sde: diffusion.
        t: time.

    Reference: arXiv 2006.09011, technique 3.
    """
    del sde, t
    return Coefficients(0.0, -1.0, 1.0)


def noise(sde: SDE, t: Time) -> Coefficients:
    """Return the coefficients for a prediction of the noise, as in DDPM: eps_hat = F.

    Args:
        sde: diffusion.
        t: time.

    Reference: arXiv 2006.11239.
    """
    del sde, t
    return Coefficients(0.0, 1.0, 1.0)


def edm(sde: SDE, t: Time, *, sigma_data: Positive = 0.5) -> Coefficients:
    """Return the coefficients of EDM, for which inputs and targets of F have unit variance.

    The published coefficients give the denoised image for alpha = 1; these give the noise for any alpha.

    Args:
        sde: diffusion.
        t: time.
        sigma_data: standard deviation of the centered data, in units of x_0; positive.

    Reference: arXiv 2206.00364, Table 1; theory.md eq. (10).
    """
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    variance = sigma**2 + (alpha * sigma_data) ** 2
    return Coefficients(sigma / variance, -alpha * sigma_data / jnp.sqrt(variance), 1 / jnp.sqrt(variance))


# ------------------------------------------------------------------------- noise-level conditions


def none(sde: SDE, t: Time) -> None:
    """Return None: the network is not conditioned on the noise level, as in NCSNv2.

    Args:
        sde: diffusion.
        t: time.
    """
    del sde, t


def level_index(sde: SDE, t: Time, *, num_levels: Levels = 10) -> Int[Array, "..."]:
    """Return the index of the nearest of evenly spaced times, 0 at the largest noise, as in NCSN.

    Args:
        sde: diffusion.
        t: time.
        num_levels: number of noise levels, at least 2.
    """
    fraction = (sde.t_max - t) / (sde.t_max - sde.t_min)
    return jnp.round(fraction * (num_levels - 1)).astype(jnp.int32)


def log_sigma(sde: SDE, t: Time) -> Time:
    """Return log sigma(t), as in NCSN++.

    Args:
        sde: diffusion.
        t: time.

    Reference: arXiv 2011.13456, Appendix C.
    """
    return jnp.log(sde.sigma(t))


def quarter_log_sigma(sde: SDE, t: Time) -> Time:
    """Return log(sigma(t)) / 4, as in EDM.

    Args:
        sde: diffusion.
        t: time.

    Reference: arXiv 2206.00364, Table 1.
    """
    return 0.25 * jnp.log(sde.sigma(t))


def scaled_time(sde: SDE, t: Time, *, scale: Positive = 999.0) -> Time:
    """Return scale t, as in DDPM++.

    For `DDPM` with 1000 levels, 999 t is the index of the level.

    Args:
        sde: diffusion.
        t: time.
        scale: factor of t.
    """
    del sde
    return scale * t


# ------------------------------------------------------------------------- noise prediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameterization:
    """Map from a network to a noise prediction, or from a classifier to log probabilities.

    For data in [0, 1] and a published network that computes 2 x - 1, center is 0.5 and input_scale is 2.

    Attributes:
        coefficients: preconditioning (sde, t) -> `Coefficients`.
        condition: noise-level condition (sde, t) -> number, or None.
        center: pixel value that is 0 in the input of the network.
        input_scale: factor of the centered input, in addition to c_in.
    """

    coefficients: Callable[[SDE, Time], Coefficients]
    condition: NoiseCondition
    center: float = 0.0
    input_scale: float = 1.0

    def noise_fn(
        self,
        network: Network,
        sde: SDE,
        label: Int[Array, " batch"] | None = None,
        augment: Float[Array, "batch parameters"] | None = None,
    ) -> NoiseFn:
        """Return the noise prediction (x, t) -> eps_hat of a network.

        Args:
            network: function (x, `Condition`) -> F.
            sde: diffusion.
            label: class of each image; None for an unconditional prediction.
            augment: augmentation parameters of each image, if any.
        """

        def noise_fn(x: Float[Array, "batch *shape"], t: Time) -> Float[Array, "batch *shape"]:
            skip, output, _ = self.coefficients(sde, t)
            inputs, noise = self.inputs(sde, x, t)
            return skip * self._centered(sde, x, t) + output * network(inputs, Condition(noise, label, augment))

        return noise_fn

    def log_probabilities(self, network: Network, sde: SDE) -> LogProbabilities:
        """Return the log probabilities (x, t) -> log p(class | x_t = x) of a classifier of noisy images.

        The classifier has the inputs of a noise prediction; c_skip and c_out are not used.

        Args:
            network: function (x, `Condition`) -> logits.
            sde: diffusion.
        """

        def log_probabilities(x: Float[Array, "batch *shape"], t: Time) -> Float[Array, "batch classes"]:
            inputs, noise = self.inputs(sde, x, t)
            return jax.nn.log_softmax(network(inputs, Condition(noise)))

        return log_probabilities

    def inputs(
        self, sde: SDE, x: Float[Array, "batch *shape"], t: Time
    ) -> tuple[Float[Array, "batch *shape"], Shaped[Array, " batch"] | None]:
        """Return the input of the network and its noise-level condition.

        Args:
            sde: diffusion.
            x: noisy images.
            t: time.

        Returns:
            The preconditioned images, and one number per image or None.
        """
        noise = self.condition(sde, t)
        if noise is not None:
            noise = jnp.broadcast_to(jnp.reshape(noise, -1), (len(x),))
        return self.input_scale * self.coefficients(sde, t).input * self._centered(sde, x, t), noise

    def _centered(self, sde: SDE, x: Float[Array, "batch *shape"], t: Time) -> Float[Array, "batch *shape"]:
        return x - sde.alpha(t) * self.center


PARAMETERIZATIONS = {"score": score, "scaled_score": scaled_score, "noise": noise, "edm": edm}
CONDITIONS = {
    "none": none,
    "level_index": level_index,
    "log_sigma": log_sigma,
    "quarter_log_sigma": quarter_log_sigma,
    "scaled_time": scaled_time,
}
