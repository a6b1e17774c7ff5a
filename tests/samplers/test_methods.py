"""The published methods, one row each: with the exact score of a target, each samples the target."""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SKEWED, assert_moments
from probing import Affine, affine, propagate

from configs.families.methods import METHODS, table
from score_sde_jax import keys as prng
from score_sde_jax.diffusion.sdes import EDM, SDE, SDES, VP
from score_sde_jax.samplers import CORRECTORS, GRIDS, PREDICTORS, PRIORS, Sampler, chain, denoise


class Row(NamedTuple):
    """A method: its diffusion, grid, corrector (applied corrector_steps times), predictor, start and end."""

    sde: SDE
    grid: Callable
    predictor: str = "none"
    corrector: Callable = CORRECTORS["none"]
    corrector_steps: int = 0
    prior: str = "gaussian"
    ends_denoised: bool = True
    bias: float = 0.02  # of the discretization, in units of the data's std to the power of the moment


def grid(name, **options):
    return functools.partial(GRIDS[name], **options)


def annealed(step_size):
    return functools.partial(CORRECTORS["annealed_langevin"], step_size=step_size)


def published(name, **more):
    """The row of a published method, as the configs have it."""
    sections = METHODS[name].sections().to_dict()
    sampler, sde = sections["sampler"], sections["sde"]
    steps = sampler["corrector"].pop("num_steps", 0)
    return Row(
        SDES[sde.pop("name")](**sde),
        grid(**sampler["times"]),
        corrector=functools.partial(CORRECTORS[sampler["corrector"].pop("name")], **sampler["corrector"]),
        corrector_steps=steps,
        predictor=sampler["predictor"]["name"],
        prior=sampler["prior"],
        ends_denoised=sampler["denoise"],
        **more,
    )


UNIFORM = grid("uniform", num_steps=1000)
ROWS = {
    "ncsn": published("NCSN"),
    "ncsnv2": published("NCSNv2", bias=0.08),  # eq. (23) iterated: the variance settles 13 percent above its level's
    "one Langevin step at each of many levels": Row(
        VP(), grid("log_snr", num_steps=1000), corrector=annealed(0.5), corrector_steps=1, bias=0.03
    ),
    "ddpm": published("DDPM"),
    "ncsn++": published("NCSN++"),
    "ddpm++": published("DDPM++"),
    "ddpm++ flow": Row(VP(), UNIFORM, "ddim"),
    "ddpm++ flow, Euler": Row(VP(), UNIFORM, "euler"),
    "ddpm++ flow, adaptive": Row(VP(), grid("uniform", num_steps=1), "dormand_prince"),
    "ddpm++ flow, multistep": Row(VP(), grid("log_snr", num_steps=25), "dpmpp_2m", bias=0.02),
    "sub-vp": published("sub-VP"),
    "edm": published("EDM", bias=0.1),
    "edm, 4 times the steps": Row(EDM(), grid("karras", num_steps=68), "heun"),
}


def test_the_table_of_the_readme_is_that_of_the_methods():
    assert table() in (pathlib.Path(__file__).parents[2] / "README.md").read_text()


def corrector(row: Row, noise_fn: Callable, num_steps: int):
    return row.corrector(row.sde, noise_fn, **({"num_steps": num_steps} if num_steps else {}))


def test_the_rows_use_every_sampler_grid_and_prior():
    rows = ROWS.values()
    assert {row.predictor for row in rows} == set(PREDICTORS)
    used = {getattr(row.corrector, "func", row.corrector) for row in rows}
    assert used == set(CORRECTORS.values())
    assert {row.grid.func for row in rows} == set(GRIDS.values())
    assert {row.prior for row in rows} == set(PRIORS)


@pytest.mark.parametrize("name", ROWS)
def test_method_recovers_a_skewed_mixture(name):
    row = ROWS[name]
    times = row.grid(row.sde)

    def step(sde, noise_fn):
        predictor = PREDICTORS[row.predictor](sde, noise_fn)
        return chain(corrector(row, noise_fn, row.corrector_steps), predictor)

    sampler = Sampler(sde=row.sde, prior=PRIORS[row.prior], step=step, times=times, denoise=row.ends_denoised)
    keys = prng.per_image(jax.random.key(9), jnp.arange(128))
    draw = jax.jit(functools.partial(sampler, SKEWED.noise_fn(row.sde)))
    images, *_ = draw(keys, jnp.zeros((128, 8, 8, 1)))
    target = SKEWED if row.ends_denoised else SKEWED.at(row.sde, float(times[-1]))
    assert_moments(images, target, bias=row.bias)
    between_the_modes = -0.2
    expected = target.cdf(between_the_modes)
    allowed = 4 * np.sqrt(expected * (1 - expected) / images.size) + row.bias
    assert abs(float(jnp.mean(images < between_the_modes)) - expected) < allowed


# The step of NCSN++ is not affine, and that of a multistep method has a memory.
@pytest.mark.parametrize("name", [name for name in ROWS if name != "ncsn++" and ROWS[name].predictor != "dpmpp_2m"])
def test_discretization_bias_on_a_gaussian_is_as_stated(name, monkeypatch, x64):
    """Exact moments of the whole method, without samples."""
    row = ROWS[name]
    noise_fn, times = GAUSSIAN.noise_fn(row.sde), row.grid(row.sde)
    parts = [affine(monkeypatch, PREDICTORS[row.predictor](row.sde, noise_fn), times)]
    if row.corrector_steps:
        parts = [affine(monkeypatch, corrector(row, noise_fn, 1), times)] * row.corrector_steps + parts
    steps = Affine(*(np.stack(column, axis=1).ravel() for column in zip(*parts, strict=True)))
    mean, variance = (0.5, 1 / 12) if row.prior == "uniform" else (0.0, float(row.sde.sigma(times[0])) ** 2)
    mean, std = propagate(steps, mean, variance)
    if row.ends_denoised:
        at_0, at_1 = (denoise(row.sde, noise_fn, jnp.full((1, 1), x), times[-1]).item() for x in (0.0, 1.0))
        mean, std = at_0 + (at_1 - at_0) * mean, (at_1 - at_0) * std
    assert mean == pytest.approx(GAUSSIAN.mean(), abs=row.bias * GAUSSIAN.std())
    assert std == pytest.approx(GAUSSIAN.std(), rel=row.bias)
