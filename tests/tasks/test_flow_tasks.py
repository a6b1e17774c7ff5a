"""Tasks of the probability flow ODE against closed forms; observed images of each task; wrong options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SKEWED
from draws import sampler

from score_sde_jax import keys as prng
from score_sde_jax import tasks
from score_sde_jax.data import DATASETS, Pixels
from score_sde_jax.diffusion import ode
from score_sde_jax.diffusion.sdes import VP
from score_sde_jax.errors import UserError
from score_sde_jax.samplers import encode, interpolate

SETUP = tasks.TaskSetup(
    image_shape=(8, 8, 1),
    pixels=Pixels(levels=17),
    sde=VP(),
    held_out=functools.partial(DATASETS["digits"], split="test"),
    about_held_out={},
    num_classes=10,
)


def test_reconstruction_returns_the_observed_image_and_the_evaluations():
    sde = VP()
    networks = tasks.Networks(SKEWED.noise_fn(sde))
    observed = SKEWED.sample(jax.random.key(1), (5, 2, 2, 1))
    keys, draw = prng.per_image(jax.random.key(9), jnp.arange(5)), sampler(sde, "ancestral", num=1)
    arrays = {"observed": observed[:, None]}

    @functools.partial(jax.jit, static_argnums=0)
    def drawn(task):
        return task.sample(draw, networks, keys, jnp.zeros_like(observed), arrays)

    samples = drawn(tasks.Reconstruction())
    np.testing.assert_allclose(samples.images, observed, atol=1e-3)
    encoding = jax.jit(functools.partial(encode, sde, networks.noise_fn))(observed)
    assert (np.asarray(samples.nfe) > np.asarray(encoding.nfe)).all()
    assert np.isnan(drawn(tasks.Reconstruction(max_evaluations=20)).images).all()


@pytest.mark.parametrize(
    "task", [tasks.Reconstruction(), tasks.Interpolation()], ids=["reconstruction", "interpolation"]
)
def test_an_image_with_a_failed_solution_is_nan(task, monkeypatch):
    """Solution i of image i fails; all solutions of the last image converge."""
    solution_numbers = iter(range(9))

    def solve(sde, noise_fn, x, **options):
        converged = jnp.arange(len(x)) != next(solution_numbers)
        return ode.Solution(jnp.ones_like(x), jnp.full(len(x), 5), converged)

    monkeypatch.setattr(tasks.flow, "encode", solve)
    monkeypatch.setattr(tasks.flow, "decode", solve)
    num = task.observations + 1
    observed = jnp.ones((num + 1, task.observations, 2, 2, 1))
    arrays = {"observed": observed, "fraction": jnp.full(num + 1, 0.5)}
    networks, keys = tasks.Networks(GAUSSIAN.noise_fn(VP())), prng.per_image(jax.random.key(9), jnp.arange(num + 1))
    samples = task.sample(sampler(VP(), "ancestral", num=1), networks, keys, observed[:, 0], arrays)
    assert np.isnan(samples.images).all((1, 2, 3)).tolist() == [True] * num + [False]
    np.testing.assert_array_equal(samples.images[-1], 1)
    np.testing.assert_array_equal(samples.nfe, 5 * num)


def test_interpolation_is_the_great_circle_between_the_latents():
    """For Gaussian pixels the flow is affine, which gives the interpolated images in closed form."""
    sde, task = VP(), tasks.Interpolation(num_between=3)
    indices = np.arange(5)
    inputs = task.inputs(SETUP)
    np.testing.assert_array_equal(inputs.source_indices(np.arange(4, 6)), [[0, 1], [2, 3]])
    fractions = inputs(indices)["fraction"]
    np.testing.assert_allclose(fractions, [0, 0.25, 0.5, 0.75, 1])
    pair = GAUSSIAN.sample(jax.random.key(1), (2, 3, 3, 1))
    observed = jnp.broadcast_to(pair, (5, 2, 3, 3, 1))
    networks, keys = tasks.Networks(GAUSSIAN.noise_fn(sde)), prng.per_image(jax.random.key(9), jnp.arange(5))
    arrays = {"observed": observed, "fraction": jnp.asarray(fractions)}
    draw = sampler(sde, "ancestral", num=1)
    samples = jax.jit(lambda: task.sample(draw, networks, keys, jnp.zeros((5, 3, 3, 1)), arrays).images)()

    def affine(x, t, s):  # maps mean and standard deviation of a pixel from time t to time s
        here, there = GAUSSIAN.at(sde, t), GAUSSIAN.at(sde, s)
        return there.mean() + there.std() / here.std() * (x - here.mean())

    latents = affine(np.asarray(pair), sde.t_min, sde.t_max)
    between = interpolate(*(jnp.asarray(latents[i : i + 1], jnp.float32) for i in (0, 1)), jnp.asarray(fractions))
    np.testing.assert_allclose(samples, affine(np.asarray(between)[:, 0], sde.t_max, sde.t_min), atol=2e-3)
    np.testing.assert_allclose(np.asarray(samples)[[0, -1]], pair, atol=2e-3)


def test_source_indices_and_labels_of_images():
    task = tasks.Inpainting(samples_per_image=3)
    np.testing.assert_array_equal(task.inputs(SETUP).source_indices(np.arange(2, 8)).ravel(), [0, 1, 1, 1, 2, 2])
    labels = tasks.ClassConditional().inputs(SETUP)(np.arange(8, 13))["label"]
    np.testing.assert_array_equal(labels, [8, 9, 0, 1, 2])
    np.testing.assert_array_equal(tasks.ClassConditional(label=3).inputs(SETUP)(np.arange(2))["label"], [3, 3])


@pytest.mark.parametrize(
    ("task", "shape", "part"),
    [
        (tasks.Colorization(), (8, 8, 1), "needs images of 3 channels, not 1"),
        (
            tasks.SuperResolution(factor=3),
            (8, 8, 1),
            "config.task.factor=3: must be >= 2 and divide the image size, 8 x 8",
        ),
        (tasks.SuperResolution(factor=1), (8, 8, 1), "config.task.factor=1: must be >= 2"),
        (tasks.Inpainting(), (2,), "observes images, but the data are points"),
        (tasks.Interpolation(num_between=0), (8, 8, 1), "num_between=0: must be >= 1"),
        (tasks.ClassConditional(classifier="x", scale=-1.0), (8, 8, 1), "scale=-1.0: must be >= 0"),
    ],
)
def test_tasks_that_do_not_fit_the_images_are_refused(task, shape, part):
    with pytest.raises(UserError) as raised:
        task.check(shape)
    assert part in str(raised.value) and str(raised.value).startswith("--config.task")


def test_options_out_of_range_are_refused():
    for wrong in (dict(fraction=0.0), dict(fraction=1.0), dict(samples_per_image=0)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            tasks.Inpainting(**wrong)
    for wrong in (dict(rtol=0.0), dict(atol=-1.0), dict(max_evaluations=3)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            tasks.Interpolation(**wrong)
