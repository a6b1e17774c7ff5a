"""How likely images are under the probability flow of a network. Equations: docs/theory.md."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import ode
from score_sde_jax.diffusion.parameterization import NoiseFn
from score_sde_jax.diffusion.sdes import SDE

Keys = Key[Array, " batch"]
Images = Float[Array, "batch *shape"]
Numbers = Float[Array, " batch"]
Divergence = Literal["rademacher", "gaussian", "exact"]

PROBES_PER_PASS = 16
"""Directions whose derivatives are computed at once; more take turns, so that memory does not grow with them."""


class Likelihood(NamedTuple):
    """Log-likelihood of every image in nats, and how it was found.

    standard_error: that of the estimate of the divergence, from the spread of its probes; 0 where it is exact and not a
        number for a single probe. It holds neither the error of the solver nor the spread over images.
    latent: the image carried to t_max. evaluations: of the network, each with a derivative in every direction.
    converged: whether the solver got to t_max; where it did not, the log-likelihood is not a number.
    """

    log_likelihood: Numbers
    standard_error: Numbers
    latent: Images
    nfe: Int[Array, " batch"]
    converged: Bool[Array, " batch"]


def log_likelihood(
    sde: SDE,
    noise_fn: NoiseFn,
    keys: Keys,
    x0: Images,
    *,
    divergence: Divergence = "rademacher",
    num_probes: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    t_start: float | None = None,
    max_evaluations: int = 10000,
) -> Likelihood:
    """Log-likelihood of images by the change of variables along the probability flow, eq. (27) (arXiv 2011.13456, eq.
    39).

    It is the density, at x0, of the noisy data of time `t_start` (t_min of the SDE where not given). The divergence is
    Hutchinson's estimate with `num_probes` independent random directions for each image, the same at all times (arXiv
    1810.01367), of signs ("rademacher") or unit Gaussians, or "exact": a derivative in every one of the D directions.
    Every probe is a log-likelihood of its own, integrated beside the others and the image in one state, on all of which
    the solver controls the error, as scipy does on the vector of both. Image i depends on keys[i] alone.
    The prior is the SDE's, N(0, sigma(t_max)^2), as if nothing of x0 were left at t_max.
    Raises ValueError for options without sense.
    """
    if divergence not in ("rademacher", "gaussian", "exact"):
        raise ValueError(f"divergence={divergence!r}: allowed are 'rademacher', 'gaussian' and 'exact'")
    if num_probes < 1:
        raise ValueError(f"num_probes={num_probes} must be at least 1")
    start = sde.t_min if t_start is None else t_start
    if not sde.t_min <= start < sde.t_max:
        raise ValueError(f"t_start={start} must be from t_min={sde.t_min} to below t_max={sde.t_max}")
    dim = math.prod(x0.shape[1:])
    exact = divergence == "exact"
    trace = _exact(x0) if exact else _estimated(keys, x0, divergence, num_probes)

    def velocity(state: tuple[Images, Array], t: Numbers) -> tuple[Images, Array]:
        x = state[0]
        t = prng.bcast(t, x)
        eps, traces = trace(lambda x: noise_fn(x, t), x)
        # Divergence of eq. (14): the part of f x is D f, known without an estimate; the rest is linear in eps.
        linear, per_eps = dim * sde.drift(t), sde.velocity(jnp.zeros_like(t), jnp.ones_like(t), t)
        return sde.velocity(x, eps, t), jnp.reshape(linear, (-1, 1)) + jnp.reshape(per_eps, (-1, 1)) * traces

    state = x0, jnp.zeros((len(x0), 1 if exact else num_probes), x0.dtype)
    (latent, changes), evaluations, converged = ode.dormand_prince(
        velocity, state, start, sde.t_max, rtol=rtol, atol=atol, max_evaluations=max_evaluations
    )
    found = jnp.mean(changes, axis=1) + prior_log_density(sde, latent)  # eq. (27)
    if exact:
        error = jnp.zeros_like(found)
    elif num_probes == 1:
        error = jnp.full_like(found, jnp.nan)
    else:
        error = jnp.std(changes, axis=1, ddof=1) / jnp.sqrt(num_probes)
    return Likelihood(jnp.where(converged, found, jnp.nan), error, latent, evaluations, converged)


def prior_log_density(sde: SDE, x: Images) -> Numbers:
    """Log density of the SDE's prior N(0, sigma(t_max)^2) in nats."""
    sigma = sde.sigma(jnp.asarray(sde.t_max, x.dtype))
    flat = jnp.reshape(x, (len(x), -1)) / sigma
    return -0.5 * jnp.sum(flat**2, axis=1) - flat.shape[1] * (jnp.log(sigma) + 0.5 * math.log(2 * math.pi))


def bits_per_dim(
    log_likelihood: Numbers, dim: int, levels: int | None = None, value_range: tuple[float, float] = (0.0, 1.0)
) -> Numbers:
    """Bits that a number of an image takes, from the log-likelihood in nats of the image dequantised, eq. (28).

    `dim` is the number of numbers in an image, which lie in `value_range`, cut into `levels` equal bins: v + u, with u
    uniform on [0, 1), is at low + (v + u) (high - low) / levels. With `levels` None the numbers are continuous, and the
    bits are those of their density.
    """
    low, high = value_range
    bins = 0.0 if levels is None else math.log2(levels / (high - low))
    return -log_likelihood / (dim * math.log(2)) + bins


# ------------------------------------------------------------------------- traces of the Jacobian of eps

# (eps as a function of x, x) -> (eps, estimates of the trace of its Jacobian as (batch, estimates))
Trace = Callable[[Callable[[Images], Images], Images], tuple[Images, Float[Array, "batch estimates"]]]


def _quadratic_forms(
    function: Callable[[Images], Images], x: Images, directions: Float[Array, "some batch *shape"]
) -> tuple[Images, Float[Array, "some batch"]]:
    """The function at x and v' J v for several directions v, by derivatives forwards: one pass and no memory of it."""

    def form(v: Images) -> tuple[Images, Numbers]:
        value, slope = jax.jvp(function, (x,), (v,))
        return value, jnp.sum(jnp.reshape(v * slope, (len(x), -1)), axis=1)

    return jax.vmap(form, out_axes=(None, 0))(directions)


def _in_turns(num: int, directions: Callable[[Array], Array]) -> Callable[..., tuple[Array, Array]]:
    """Function (eps of x, x) -> eps and v' J v of all `num` directions, some of them at a time."""
    turns = -(-num // PROBES_PER_PASS)
    some = -(-num // turns)

    def forms(function: Callable[[Images], Images], x: Images) -> tuple[Images, Float[Array, "num batch"]]:
        def body(_: Images, first: Array) -> tuple[Images, Array]:
            return _quadratic_forms(function, x, directions(first + jnp.arange(some)))

        if turns == 1:
            return body(x, jnp.asarray(0))
        eps, found = jax.lax.scan(body, x, jnp.arange(0, num, some))
        return eps, jnp.reshape(found, (-1, len(x)))[:num]

    return forms


def _exact(x0: Images) -> Trace:
    """One direction for every number of an image."""
    dim = math.prod(x0.shape[1:])

    def directions(numbers: Array) -> Array:
        units = jnp.reshape(jax.nn.one_hot(numbers, dim, dtype=x0.dtype), (-1, 1, *x0.shape[1:]))
        return jnp.broadcast_to(units, (len(numbers), *x0.shape))

    forms = _in_turns(dim, directions)

    def trace(function: Callable[[Images], Images], x: Images) -> tuple[Images, Array]:
        eps, found = forms(function, x)
        return eps, jnp.sum(found, axis=0)[:, None]

    return trace


def _estimated(keys: Keys, x0: Images, divergence: Divergence, num_probes: int) -> Trace:
    """Random directions v with E v v' = 1 (Hutchinson, Skilling): E v' J v is the trace of J."""

    def probe(number: Array) -> Images:
        own = prng.fold_in(keys, number)
        return prng.normal(own, x0) if divergence == "gaussian" else prng.signs(own, x0)

    # Drawn again at every evaluation, rather than kept: cheaper than a network, and no memory.
    forms = _in_turns(num_probes, jax.vmap(probe))

    def trace(function: Callable[[Images], Images], x: Images) -> tuple[Images, Array]:
        eps, found = forms(function, x)
        return eps, found.T

    return trace
