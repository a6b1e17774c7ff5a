"""Log-likelihood under the probability flow ODE. Equation numbers refer to docs/theory.md."""

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
"""Number of Hutchinson probes per batched JVP; more probes run in sequence, so memory stays bounded."""


class Likelihood(NamedTuple):
    """Log-likelihood of each image and its diagnostics.

    Attributes:
        log_likelihood: log density in nats; NaN for an image that did not converge.
        standard_error: standard error of the divergence estimate in nats, from the spread over probes: 0 for an exact
            divergence, NaN for a single probe. It excludes the error of the solver and the spread over images.
        latent: solution of the ODE at t_max.
        nfe: number of function evaluations; each includes one JVP per probe.
        converged: whether the solver reached t_max.
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
    """Return the log-likelihood of images under the probability flow ODE.

    The result is the density at x0 of the noisy data at time `t_start`, under the prior N(0, sigma(t_max)^2 I). Each
    Hutchinson probe is constant in time and integrated as its own component of the ODE state. The solver controls the
    error of the whole state, as scipy does for the concatenated vector.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.
        keys: one PRNG key per image; the result of image i depends on keys[i] alone.
        x0: images.
        divergence: "rademacher" or "gaussian" for Hutchinson's estimate with such probes, "exact" for one JVP per
            dimension.
        num_probes: number of probes per image, at least 1; not used if the divergence is exact.
        rtol: relative tolerance of the solver; positive.
        atol: absolute tolerance of the solver; positive.
        t_start: initial time, t_min <= t_start < t_max; None for t_min of the SDE.
        max_evaluations: upper bound on the NFE of each image, at least 8.

    Raises:
        ValueError: an option is out of range.

    Reference: arXiv 2011.13456, eq. 39; arXiv 1810.01367; theory.md eq. (27).
    """
    start = sde.t_min if t_start is None else t_start
    _check_options(sde, divergence, num_probes, start)
    dim = math.prod(x0.shape[1:])
    exact = divergence == "exact"
    trace = _exact_trace(x0) if exact else _estimated_trace(keys, x0, divergence, num_probes)

    def velocity(state: tuple[Images, Array], t: Numbers) -> tuple[Images, Array]:
        x = state[0]
        t = prng.bcast(t, x)
        eps, traces = trace(lambda x: noise_fn(x, t), x)
        # Divergence of eq. (14): the term f x contributes D f exactly; the other term is linear in eps.
        linear, per_eps = dim * sde.drift(t), sde.velocity(jnp.zeros_like(t), jnp.ones_like(t), t)
        return sde.velocity(x, eps, t), jnp.reshape(linear, (-1, 1)) + jnp.reshape(per_eps, (-1, 1)) * traces

    state = x0, jnp.zeros((len(x0), 1 if exact else num_probes), x0.dtype)
    (latent, changes), nfe, converged = ode.dormand_prince(
        velocity, state, start, sde.t_max, rtol=rtol, atol=atol, max_evaluations=max_evaluations
    )
    log_density = jnp.mean(changes, axis=1) + prior_log_density(sde, latent)  # eq. (27)
    error = jnp.zeros_like(log_density) if exact else _standard_error(changes)
    return Likelihood(jnp.where(converged, log_density, jnp.nan), error, latent, nfe, converged)


def _check_options(sde: SDE, divergence: str, num_probes: int, start: float) -> None:
    """Raise ValueError for an option of `log_likelihood` that is out of range."""
    if divergence not in ("rademacher", "gaussian", "exact"):
        raise ValueError(f"divergence must be one of 'rademacher', 'gaussian', 'exact', got {divergence!r}")
    if num_probes < 1:
        raise ValueError(f"num_probes must be >= 1, got {num_probes}")
    if not sde.t_min <= start < sde.t_max:
        raise ValueError(f"t_start must be >= t_min={sde.t_min} and < t_max={sde.t_max}, got {start}")


def _standard_error(changes: Float[Array, "batch probes"]) -> Numbers:
    """Return the standard error of the mean over probes; NaN for a single probe."""
    num_probes = changes.shape[1]
    if num_probes == 1:
        return jnp.full_like(changes[:, 0], jnp.nan)
    return jnp.std(changes, axis=1, ddof=1) / jnp.sqrt(num_probes)


def prior_log_density(sde: SDE, x: Images) -> Numbers:
    """Return the log density, in nats, of the prior N(0, sigma(t_max)^2 I).

    Args:
        sde: diffusion.
        x: latents.
    """
    sigma = sde.sigma(jnp.asarray(sde.t_max, x.dtype))
    flat = jnp.reshape(x, (len(x), -1)) / sigma
    return -0.5 * jnp.sum(flat**2, axis=1) - flat.shape[1] * (jnp.log(sigma) + 0.5 * math.log(2 * math.pi))


def bits_per_dim(
    log_likelihood: Numbers, dim: int, levels: int | None = None, value_range: tuple[float, float] = (0.0, 1.0)
) -> Numbers:
    """Return bits per dimension of uniformly dequantized images.

    Args:
        log_likelihood: log density of the dequantized images in nats.
        dim: number of dimensions of an image.
        levels: number of quantization levels of the stored values; None for continuous data, whose bits are those of
            the density.
        value_range: range of the dequantized values v + u, with stored v and u uniform on [0, 1), after scaling.

    Reference: arXiv 1511.01844, Section 3.1; theory.md eq. (28).
    """
    low, high = value_range
    bins = 0.0 if levels is None else math.log2(levels / (high - low))
    return -log_likelihood / (dim * math.log(2)) + bins


# ------------------------------------------------------------------------- traces of the Jacobian of eps

# (function x -> eps, x) -> (eps, estimates of the trace of its Jacobian).
Trace = Callable[[Callable[[Images], Images], Images], tuple[Images, Float[Array, "batch estimates"]]]


def _quadratic_forms(
    function: Callable[[Images], Images], x: Images, probes: Float[Array, "some batch *shape"]
) -> tuple[Images, Float[Array, "some batch"]]:
    """Return f(x) and u' J u for several probes u, by forward-mode JVPs, which store no activations."""

    def form(u: Images) -> tuple[Images, Numbers]:
        value, slope = jax.jvp(function, (x,), (u,))
        return value, jnp.sum(jnp.reshape(u * slope, (len(x), -1)), axis=1)

    return jax.vmap(form, out_axes=(None, 0))(probes)


def _in_passes(num: int, probes: Callable[[Array], Array]) -> Callable[..., tuple[Array, Array]]:
    """Return a function (f, x) -> (f(x), u' J u of `num` probes) that bounds the probes per pass."""
    num_passes = -(-num // PROBES_PER_PASS)
    per_pass = -(-num // num_passes)

    def forms(function: Callable[[Images], Images], x: Images) -> tuple[Images, Float[Array, "num batch"]]:
        def body(_: Images, first: Array) -> tuple[Images, Array]:
            return _quadratic_forms(function, x, probes(first + jnp.arange(per_pass)))

        if num_passes == 1:
            return body(x, jnp.asarray(0))
        eps, values = jax.lax.scan(body, x, jnp.arange(0, num, per_pass))
        return eps, jnp.reshape(values, (-1, len(x)))[:num]

    return forms


def _exact_trace(x0: Images) -> Trace:
    """Return the trace by one JVP per dimension."""
    dim = math.prod(x0.shape[1:])

    def unit_vectors(numbers: Array) -> Array:
        units = jnp.reshape(jax.nn.one_hot(numbers, dim, dtype=x0.dtype), (-1, 1, *x0.shape[1:]))
        return jnp.broadcast_to(units, (len(numbers), *x0.shape))

    forms = _in_passes(dim, unit_vectors)

    def trace(function: Callable[[Images], Images], x: Images) -> tuple[Images, Array]:
        eps, values = forms(function, x)
        return eps, jnp.sum(values, axis=0)[:, None]

    return trace


def _estimated_trace(keys: Keys, x0: Images, divergence: Divergence, num_probes: int) -> Trace:
    """Return Hutchinson's estimate of the trace: E u' J u for random probes u with E u u' = I."""

    def probe(number: Array) -> Images:
        probe_keys = prng.fold_in(keys, number)
        return prng.normal(probe_keys, x0) if divergence == "gaussian" else prng.signs(probe_keys, x0)

    # The probes are sampled again at every evaluation, which costs less than the network and needs no memory.
    forms = _in_passes(num_probes, jax.vmap(probe))

    def trace(function: Callable[[Images], Images], x: Images) -> tuple[Images, Array]:
        eps, values = forms(function, x)
        return eps, values.T

    return trace
