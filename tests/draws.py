"""Samplers for the tests of tasks, and the bias of each."""

import functools

from score_sde_jax.diffusion.sdes import VE, VP, SubVP
from score_sde_jax.samplers import CORRECTORS, GRIDS, PREDICTORS, PRIORS, Sampler, chain


def sampler(sde, predictor="none", corrector=None, *, grid="uniform", num=100, prior="gaussian", **more):
    def step(sde, noise_fn):
        parts = [PREDICTORS[predictor](sde, noise_fn)]
        return chain(*([corrector(sde, noise_fn)] if corrector else []), *parts)

    points = dict(num_levels=num) if grid == "ladder" else dict(num_steps=num)
    return Sampler(sde=sde, prior=PRIORS[prior], step=step, times=GRIDS[grid](sde, **points), **more)


SMALL_VE = VE(sigma_min=0.02, sigma_max=4.0)
ANNEALED = functools.partial(CORRECTORS["annealed_langevin"], step_size=0.1, num_steps=60)
SAMPLERS = {  # and the bias of its discretization
    "annealed langevin": (
        sampler(SMALL_VE, corrector=ANNEALED, grid="ladder", num=20, prior="uniform"),
        0.12,
    ),
    "pc": (sampler(SMALL_VE, "reverse_diffusion", CORRECTORS["langevin"], num=300), 0.06),
    "ancestral": (sampler(VP(), "ancestral", num=300), 0.06),
    "euler_maruyama": (sampler(SubVP(), "euler_maruyama", num=400), 0.06),
    "ddim": (sampler(VP(), "ddim", num=200), 0.06),
    "dormand_prince": (sampler(SubVP(), "dormand_prince", num=1), 0.03),
}
