"""What the network's output means and what it is told: eps_hat = skip (x - c) + output F(input (x - c), condition).

Every parameterization is turned into a noise prediction eps_hat(x, t) = E[eps | x_t = x]; no other module knows which
one was used.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from score_sde_jax.condition import Condition
from score_sde_jax.diffusion.sdes import SDE, Time

NoiseFn = Callable[[Float[Array, "batch *shape"], Time], Float[Array, "batch *shape"]]
LogProbabilities = Callable[[Float[Array, "batch *shape"], Time], Float[Array, "batch classes"]]
NoiseCondition = Callable[[SDE, Time], "Time | Int[Array, '...'] | None"]
Network = Callable[..., Shaped[Array, "batch ..."]]


class Coefficients(NamedTuple):
    """Scalars (or one per image) of eps_hat = skip x + output F(input x)."""

    skip: Time | float
    output: Time | float
    input: Time | float


# ------------------------------------------------------------------------- what the network's output means


def score(sde: SDE, t: Time) -> Coefficients:
    """F is the score itself, as in NCSN (arXiv 1907.05600): eps_hat = -sigma F."""
    return Coefficients(0.0, -sde.sigma(t), 1.0)


def scaled_score(sde: SDE, t: Time) -> Coefficients:
    """F is sigma times the score, as in NCSNv2 (arXiv 2006.09011, technique 3): eps_hat = -F."""
    del sde, t
    return Coefficients(0.0, -1.0, 1.0)


def noise(sde: SDE, t: Time) -> Coefficients:
    """F is the noise, as in DDPM (arXiv 2006.11239)."""
    del sde, t
    return Coefficients(0.0, 1.0, 1.0)


def edm(sde: SDE, t: Time, *, sigma_data: float = 0.5) -> Coefficients:
    """Inputs and targets of F have unit variance (arXiv 2206.00364, Table 1), rewritten for eps with alpha restored,
    eq. (10).
    """
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    variance = sigma**2 + (alpha * sigma_data) ** 2
    return Coefficients(sigma / variance, -alpha * sigma_data / jnp.sqrt(variance), 1 / jnp.sqrt(variance))


# ------------------------------------------------------------------------- what the network is told about t


def none(sde: SDE, t: Time) -> None:
    """Nothing, as in NCSNv2."""
    del sde, t


def level_index(sde: SDE, t: Time, *, num_levels: int = 10) -> Int[Array, "..."]:
    """Number of the nearest ladder level, 0 being the largest noise, as in NCSN."""
    fraction = (sde.t_max - t) / (sde.t_max - sde.t_min)
    return jnp.round(fraction * (num_levels - 1)).astype(jnp.int32)


def log_sigma(sde: SDE, t: Time) -> Time:
    """Log sigma(t), as in NCSN++ (arXiv 2011.13456, Appendix C)."""
    return jnp.log(sde.sigma(t))


def quarter_log_sigma(sde: SDE, t: Time) -> Time:
    """log(sigma(t)) / 4, as in EDM (arXiv 2206.00364, Table 1)."""
    return 0.25 * jnp.log(sde.sigma(t))


def scaled_time(sde: SDE, t: Time, *, scale: float = 999.0) -> Time:
    """999 t, as in DDPM++; on the DDPM table this is the level number."""
    del sde
    return scale * t


# ------------------------------------------------------------------------- both together


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameterization:
    """How x, t enter the network and how its output becomes a noise prediction, or the probabilities of the classes.

    `center` is the image value that the network sees as 0 and `input_scale` multiplies what is left: data in [0, 1] and
    networks that compute 2 x - 1 have center 0.5 and input_scale 2.
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
        """(x, t) -> eps_hat, given the labels and augmentations of the images; `network` takes (x, `Condition`)."""

        def noise_fn(x: Float[Array, "batch *shape"], t: Time) -> Float[Array, "batch *shape"]:
            skip, output, _ = self.coefficients(sde, t)
            seen, noise = self.inputs(sde, x, t)
            return skip * self._centered(sde, x, t) + output * network(seen, Condition(noise, label, augment))

        return noise_fn

    def log_probabilities(self, network: Network, sde: SDE) -> LogProbabilities:
        """(x, t) -> log p(class | x_t = x) of every class; `network` is a classifier, and returns logits.

        It sees what a network that predicts the noise would see; `skip` and `output` are of no use to it.
        """

        def log_probabilities(x: Float[Array, "batch *shape"], t: Time) -> Float[Array, "batch classes"]:
            seen, noise = self.inputs(sde, x, t)
            return jax.nn.log_softmax(network(seen, Condition(noise)))

        return log_probabilities

    def inputs(
        self, sde: SDE, x: Float[Array, "batch *shape"], t: Time
    ) -> tuple[Float[Array, "batch *shape"], Shaped[Array, " batch"] | None]:
        """What the network sees of x_t = x, and its noise condition for each image."""
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
