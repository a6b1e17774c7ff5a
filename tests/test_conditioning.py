"""What is known of an image: projectors, masks, and what samplers draw given them, against closed forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SDE_CASES, SKEWED, assert_moments

from score_sde_jax import conditioning, losses, tasks
from score_sde_jax import keys as prng
from score_sde_jax.conditioning import MASKS, Known
from score_sde_jax.errors import UserError
from score_sde_jax.parameterization import Parameterization, edm, log_sigma
from score_sde_jax.samplers import CORRECTORS, GRIDS, PREDICTORS, PRIORS, Sampler, Step, chain, encode, interpolate
from score_sde_jax.sdes import VE, VP, SubVP

SHAPE = (6, 8, 12, 3)
KEYS = prng.per_image(jax.random.key(3), jnp.arange(SHAPE[0]))


def projectors():
    found = {"grey": conditioning.grey, "block_means_2": conditioning.block_means(2)}
    found["block_means_4"] = conditioning.block_means(4)
    for name, mask in MASKS.items():
        found[name] = lambda x, mask=mask: conditioning.masked(mask(KEYS, x, 0.5))(x)
    return found


@pytest.mark.parametrize("name", projectors())
def test_every_projector_is_linear_idempotent_and_self_adjoint(name, x64):
    project = projectors()[name]
    a, b = (jnp.asarray(np.random.default_rng(seed).normal(size=SHAPE)) for seed in (0, 1))
    np.testing.assert_allclose(project(project(a)), project(a), atol=1e-14)
    np.testing.assert_allclose(project(2 * a - b), 2 * project(a) - project(b), atol=1e-14)
    for inner in (jnp.sum(project(a) * b, axis=(1, 2, 3)), jnp.sum(a * project(b), axis=(1, 2, 3))):
        np.testing.assert_allclose(inner, jnp.sum(project(a) * project(b), axis=(1, 2, 3)), atol=1e-12)
    lengths = jnp.sum(a**2, axis=(1, 2, 3)), jnp.sum(project(a) ** 2, axis=(1, 2, 3))
    assert (lengths[1] > 0.01 * lengths[0]).all() and (lengths[1] < 0.99 * lengths[0]).all()  # something, and not all


def test_projectors_are_means(x64):
    x = np.random.default_rng(0).normal(size=SHAPE)
    np.testing.assert_allclose(conditioning.grey(jnp.asarray(x))[..., 1], x.mean(-1), atol=1e-14)
    coarse = np.asarray(conditioning.block_means(4)(jnp.asarray(x)))
    for row in range(8):
        for column in range(12):
            block = x[:, row // 4 * 4 : row // 4 * 4 + 4, column // 4 * 4 : column // 4 * 4 + 4]
            np.testing.assert_allclose(coarse[:, row, column], block.mean((1, 2)), atol=1e-14)


@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_masks_hide_what_they_say(fraction):
    like = jnp.zeros(SHAPE)
    known = {name: np.asarray(mask(KEYS, like, fraction))[..., 0].astype(bool) for name, mask in MASKS.items()}
    rows, columns = np.mgrid[:8, :12]
    expected = {
        "left": columns >= 12 * fraction,
        "right": columns < 12 * (1 - fraction),
        "top": rows >= 8 * fraction,
        "bottom": rows < 8 * (1 - fraction),
    }
    for name, where in expected.items():
        np.testing.assert_array_equal(known[name], where[None], err_msg=name)
    box = ~known["box"][0]
    assert abs(box.mean() - fraction) < 0.1 and not box[[0, -1]].any() and not box[:, [0, -1]].any()
    np.testing.assert_array_equal(box, box[::-1, ::-1])  # in the middle, and convex:
    assert box.sum() == box.any(1).sum() * box.any(0).sum()


def test_a_random_mask_is_a_function_of_the_image_alone():
    keys = prng.per_image(jax.random.key(0), jnp.arange(200))
    like = jnp.zeros((200, 8, 12, 3))
    known = np.asarray(MASKS["random"](keys, like, 0.3))
    assert known.shape == (200, 8, 12, 1) and set(np.unique(known)) == {0.0, 1.0}
    assert abs(known.mean() - 0.7) < 4 * np.sqrt(0.21 / known.size)
    assert len({mask.tobytes() for mask in known}) == 200
    np.testing.assert_array_equal(MASKS["random"](keys[7:9], like[7:9], 0.3), known[7:9])


# ------------------------------------------------------------------------- samplers


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


@pytest.mark.parametrize("name", SAMPLERS)
def test_pixels_that_do_not_depend_on_the_known_ones_keep_their_distribution(name):
    """Of independent pixels, half are given: these are exact, and the others are as if nothing were given."""
    draw, bias = SAMPLERS[name]
    observed = SKEWED.sample(jax.random.key(1), (128, 8, 8, 1))
    task = tasks.Inpainting(mask="right")
    keys = prng.per_image(jax.random.key(9), jnp.arange(128))

    @jax.jit
    def drawn(observed):
        networks = tasks.Networks(SKEWED.noise_fn(draw.sde))
        return task.sample(draw, networks, keys, jnp.zeros_like(observed), {"observed": observed[:, None]})

    images = drawn(observed).images
    np.testing.assert_array_equal(images[:, :, :4], observed[:, :, :4])
    assert_moments(images[:, :, 4:], SKEWED, bias=bias)

    other = observed.at[:, :, 4:].set(SKEWED.sample(jax.random.key(2), (128, 8, 4, 1)))
    np.testing.assert_array_equal(drawn(other).images, images)  # what is hidden does not leak


@pytest.mark.parametrize("name", ["ancestral", "dormand_prince"])
def test_of_gaussian_pixels_with_known_means_the_rest_has_its_own_variance(name):
    """P x is exact, and (I - P) x independent of it: of mean 0 and the variance of a pixel times (1 - 1/4)."""
    draw, bias = SAMPLERS[name]
    observed = GAUSSIAN.sample(jax.random.key(1), (128, 8, 8, 1))
    task = tasks.SuperResolution(factor=2)
    keys = prng.per_image(jax.random.key(9), jnp.arange(128))
    networks = tasks.Networks(GAUSSIAN.noise_fn(draw.sde))
    samples = jax.jit(lambda x: task.sample(draw, networks, keys, jnp.zeros_like(x), {"observed": x[:, None]}))(
        observed
    )
    project = conditioning.block_means(2)
    np.testing.assert_allclose(project(samples.images), project(observed), atol=1e-5)
    rest = dataclasses.replace(GAUSSIAN, means=(0.0,), stds=(GAUSSIAN.std() * 0.75**0.5,))
    assert_moments(samples.images - project(samples.images), rest, bias=bias, errors=6.0)  # three of four are free


def test_langevin_dynamics_draws_from_the_distribution_given_the_known_part():
    """Pairs of Gaussian pixels of correlation 0.9, the first one given: mean 0.9 y, variance 1 - 0.9^2."""
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
    sde = VE(sigma_min=0.1, sigma_max=4.0)

    def noise_fn(x, t):
        sigma = sde.sigma(t)
        precision = jnp.linalg.inv(jnp.asarray(covariance, jnp.float32) + sigma**2 * jnp.eye(2))
        return sigma * jnp.einsum("ij,bhjc->bhic", precision, x)

    draw = sampler(sde, corrector=functools.partial(ANNEALED, num_steps=150), grid="ladder", num=12, denoise=False)
    observed = jnp.asarray(np.random.default_rng(0).normal(size=(2000, 1, 2, 1)), jnp.float32)
    keys = prng.per_image(jax.random.key(4), jnp.arange(2000))
    given = {"observed": observed[:, None]}
    task, networks = tasks.Inpainting(mask="right"), tasks.Networks(noise_fn)
    images = jax.jit(lambda: task.sample(draw, networks, keys, jnp.zeros_like(observed), given).images)()
    y, x = np.asarray(images)[:, 0, :, 0].T
    np.testing.assert_array_equal(y, np.asarray(observed)[:, 0, 0, 0])
    slope, residual = np.polyfit(y, x, 1)[0], x - 0.9 * y
    assert slope == pytest.approx(0.9, abs=0.05)
    assert abs(residual.mean()) < 4 * np.sqrt(0.19 / len(y)) + 0.01
    assert residual.var() == pytest.approx(0.19 + 0.1**2, rel=0.15)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("sde", [VE(sigma_max=1.0), VP()], ids=["ve", "vp"])
def test_the_start_is_at_the_marginal_of_the_first_time(sde, prior):
    """Where nothing moves, the frame is the start: alpha y + sigma z where y is known, the prior elsewhere."""
    still = Sampler(
        sde=sde,
        prior=PRIORS[prior],
        step=lambda sde, noise_fn: Step(lambda keys, x, t, s: x, evaluations=0),
        times=GRIDS["uniform"](sde, num_steps=1),
        denoise=False,
        num_frames=1,
        temperature=0.5,
    )
    observed = 10 + jnp.zeros((128, 8, 8, 1))
    keys = prng.per_image(jax.random.key(0), jnp.arange(128))
    task, networks = tasks.Inpainting(mask="top"), tasks.Networks(lambda x, t: x)
    found = task.sample(still, networks, keys, jnp.zeros_like(observed), {"observed": observed[:, None]})
    (start,) = np.asarray(found.frames)
    alpha, sigma = (float(f(jnp.asarray(sde.t_max))) for f in (sde.alpha, sde.sigma))
    assert_moments(start[:, 4:], dataclasses.replace(GAUSSIAN, means=(10 * alpha,), stds=(sigma,)))
    rest = start[:, :4]
    if prior == "gaussian":
        assert_moments(rest, dataclasses.replace(GAUSSIAN, means=(0.0,), stds=(0.5 * sigma,)))
    else:
        assert rest.min() >= 0 and rest.max() <= 0.5 and rest.mean() == pytest.approx(0.25, abs=0.01)
    assert abs(np.corrcoef(start[:, 4:].ravel(), rest.ravel())[0, 1]) < 4 / np.sqrt(rest.size)
    np.testing.assert_array_equal(found.images[:, 4:], observed[:, 4:])
    np.testing.assert_array_equal(found.images[:, :4], rest)


def test_means_do_not_tell_what_they_are_means_of():
    """Colours and blocks of the same means, in numbers that a float holds exactly: equal results to the last bit."""
    rng, draw = np.random.default_rng(0), sampler(VP(), "ancestral", num=3)
    observed = rng.integers(0, 64, (4, 4, 4, 3)) / 64
    keys = prng.per_image(jax.random.key(0), jnp.arange(4))
    swapped = {"colorization": observed[..., ::-1], "super_resolution": observed[:, [1, 0, 3, 2]]}
    for name, other in swapped.items():
        assert not np.array_equal(other, observed)
        task = tasks.TASKS[name]()
        networks = tasks.Networks(lambda x, t: jnp.sin(3 * x))
        results = [
            task.sample(
                draw, networks, keys, jnp.zeros((4, 4, 4, 3)), {"observed": jnp.asarray(x, jnp.float32)[:, None]}
            )
            for x in (observed, other)
        ]
        np.testing.assert_array_equal(results[0].images, results[1].images)


@pytest.mark.parametrize("name", SDE_CASES)
def test_the_known_part_of_the_prediction_is_exact(name, x64):
    """Eq. (32): the reverse of alpha y + sigma z, and outside it the network's own prediction."""
    sde, t, _ = SDE_CASES[name]
    rng = np.random.default_rng(0)
    y, z, eps = (jnp.asarray(rng.normal(size=(2, 4, 4, 3))) for _ in range(3))
    for time in (jnp.asarray(t), jnp.full((2, 1, 1, 1), t)):
        known = Known(sde, conditioning.grey, conditioning.grey(y))
        x = sde.alpha(time) * y + sde.sigma(time) * z
        found = known.noise_fn(lambda x, t: eps)(x, time)
        np.testing.assert_allclose(conditioning.grey(found), conditioning.grey(z), atol=1e-6)
        np.testing.assert_allclose(found - conditioning.grey(found), eps - conditioning.grey(eps), atol=1e-12)
        np.testing.assert_allclose(
            conditioning.grey(sde.denoised(x, found, time)), conditioning.grey(y), atol=1e-6
        )  # so the last denoising step ends on y


# ------------------------------------------------------------------------- classes

WEIGHTS, MEANS, STDS = (0.3, 0.7), (-0.4, 0.5), (0.3, 0.2)
"""Images of two classes; all pixels of an image are drawn from the Gaussian of its class."""


def log_joint(sde):
    def log_joint(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        logs = []
        for weight, mean, std in zip(WEIGHTS, MEANS, STDS, strict=True):
            variance = (alpha * std) ** 2 + sigma**2
            each = -0.5 * (x - alpha * mean) ** 2 / variance - 0.5 * jnp.log(variance)
            logs.append(jnp.log(weight) + jnp.sum(each, axis=(1, 2, 3)))
        return jnp.stack(logs, axis=1)

    return log_joint


def exact(sde):
    """Noise prediction of all images, and log-probabilities of their classes."""

    def noise_fn(x, t):
        density = lambda x: jnp.sum(jax.nn.logsumexp(log_joint(sde)(x, t), axis=1))  # noqa: E731
        return -sde.sigma(t) * jax.grad(density)(x)

    return noise_fn, lambda x, t: jax.nn.log_softmax(log_joint(sde)(x, t))


@pytest.mark.parametrize("name", SDE_CASES)
def test_guidance_of_scale_1_gives_the_prediction_of_the_class(name, x64):
    """Eq. (33) with the exact classifier: sigma (x - alpha m) / (alpha^2 s^2 + sigma^2) of the class's Gaussian."""
    sde, t, _ = SDE_CASES[name]
    noise_fn, log_probabilities = exact(sde)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, 2, 1)))
    labels = jnp.asarray([0, 1, 0, 0, 1, 1])
    for time in (jnp.asarray(t), jnp.full((6, 1, 1, 1), t)):
        guided = [conditioning.guided(noise_fn, sde, log_probabilities, labels, scale) for scale in (0.0, 1.0, 3.0)]
        unguided, found, more = (predict(x, time) for predict in guided)
        alpha, sigma = sde.alpha(jnp.asarray(t)), sde.sigma(jnp.asarray(t))
        mean, std = (np.asarray(part)[np.asarray(labels)].reshape(-1, 1, 1, 1) for part in (MEANS, STDS))
        want = sigma * (x - alpha * mean) / ((alpha * std) ** 2 + sigma**2)
        np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(unguided, noise_fn(x, time), rtol=1e-12)
        np.testing.assert_allclose(more, unguided + 3 * (found - unguided), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["ancestral", "dormand_prince", "pc"])
def test_guided_samplers_draw_the_class(name):
    draw, bias = SAMPLERS[name]
    labels = jnp.arange(128) % 2
    networks = tasks.Networks(*exact(draw.sde))
    task = tasks.ClassConditional(classifier="")
    keys = prng.per_image(jax.random.key(9), jnp.arange(128))
    images = jax.jit(lambda: task.sample(draw, networks, keys, jnp.zeros((128, 6, 6, 1)), {"label": labels}).images)()
    for label in (0, 1):
        want = dataclasses.replace(GAUSSIAN, means=(MEANS[label],), stds=(STDS[label],))
        assert_moments(images[label::2], want, bias=bias)


def test_the_minimum_of_the_classification_loss_is_the_exact_classifier():
    """Mean cross-entropy of the exact classifier: the entropy of the class given x_t, below that of any other."""
    sde, num = VP(), 4000
    rng = np.random.default_rng(0)
    labels = rng.choice(2, size=num, p=WEIGHTS)
    mean, std = (np.asarray(part)[labels].reshape(-1, 1, 1, 1) for part in (MEANS, STDS))
    x0 = jnp.asarray(mean + std * rng.normal(size=(num, 2, 2, 1)), jnp.float32)
    labels, keys = jnp.asarray(labels, jnp.int32), prng.per_image(jax.random.key(0), jnp.arange(num))
    _, right = exact(sde)

    def times(sde, keys):
        return 0.3 + 0.2 * prng.uniform(keys, jnp.zeros(len(keys)))

    def loss(log_probabilities, **more):
        return np.asarray(losses.classification_loss(log_probabilities, sde, keys, x0, labels, times=times, **more))

    best = loss(right)
    for other in (
        lambda x, t: jax.nn.log_softmax(1.3 * right(x, t)),
        lambda x, t: jax.nn.log_softmax(0.7 * right(x, t)),
        lambda x, t: jax.nn.log_softmax(right(x, t) + jnp.asarray([[0.3, 0.0]])),
        lambda x, t: right(x, 0.8 * t),
        lambda x, t: right(x, t)[:, ::-1],
    ):
        excess = loss(other) - best
        assert excess.mean() > 2 * excess.std() / np.sqrt(num)
    key_t, key_eps = prng.split(keys, 2)
    t = prng.bcast(times(sde, key_t), x0)
    x_t, _ = sde.perturb(key_eps, x0, t)
    logs = np.asarray(right(x_t, t))
    np.testing.assert_allclose(best, -logs[np.arange(num), np.asarray(labels)], rtol=1e-5)
    entropy = -(np.exp(logs) * logs).sum(1)
    assert abs((best - entropy).mean()) < 4 * (best - entropy).std() / np.sqrt(num)
    np.testing.assert_allclose(loss(right, weight=lambda sde, t: 2 * t), 2 * np.ravel(t) * best, rtol=1e-5)
    hits = np.asarray(losses.classified(right, sde, key_eps, x0, labels, jnp.asarray(0.4)))
    x_t, _ = sde.perturb(key_eps, x0, jnp.asarray(0.4))
    joint = np.asarray(log_joint(sde)(x_t, jnp.asarray(0.4)))
    np.testing.assert_array_equal(hits, (joint[:, 1] > joint[:, 0]) == np.asarray(labels))


def test_a_classifier_sees_what_a_noise_prediction_would_see():
    how, sde = Parameterization(coefficients=edm, condition=log_sigma, center=0.3, input_scale=2.0), VE()
    seen = []

    def network(x, told):
        seen.append((np.asarray(x), np.asarray(told)))
        return x.reshape(len(x), -1)

    x, t = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 1)), jnp.float32), jnp.asarray(0.4)
    probabilities = np.exp(how.log_probabilities(network, sde)(x, t))
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-6)
    how.noise_fn(lambda x, told: network(x, told).reshape(x.shape), sde)(x, t)
    for first, second in zip(*seen, strict=True):
        np.testing.assert_array_equal(first, second)
    sigma = float(sde.sigma(t))
    np.testing.assert_allclose(seen[0][0], 2 * (np.asarray(x) - 0.3) / np.sqrt(sigma**2 + 0.25), rtol=1e-5)
    np.testing.assert_allclose(seen[0][1], np.log(sigma), rtol=1e-6)


# ------------------------------------------------------------------------- along the flow


def test_reconstruction_gives_back_what_it_is_given_and_counts():
    sde = VP()
    networks = tasks.Networks(SKEWED.noise_fn(sde))
    observed = SKEWED.sample(jax.random.key(1), (5, 2, 2, 1))
    keys, draw = prng.per_image(jax.random.key(9), jnp.arange(5)), sampler(sde, "ancestral", num=1)
    given = {"observed": observed[:, None]}
    found = tasks.Reconstruction().sample(draw, networks, keys, jnp.zeros_like(observed), given)
    np.testing.assert_allclose(found.images, observed, atol=1e-3)
    one_way = encode(sde, networks.noise_fn, observed)
    assert (np.asarray(found.evaluations) > np.asarray(one_way.evaluations)).all()
    few = tasks.Reconstruction(max_evaluations=20).sample(draw, networks, keys, jnp.zeros_like(observed), given)
    assert np.isnan(few.images).all()


def test_interpolation_goes_from_one_image_to_the_other():
    """Of Gaussian pixels the flow is affine, so the images between are known."""
    sde, task = VP(), tasks.Interpolation(num_between=3)
    indices = np.arange(5)
    np.testing.assert_array_equal(task.sources(np.arange(4, 6)), [[0, 1], [2, 3]])
    fractions = task.given(indices)["fraction"]
    np.testing.assert_allclose(fractions, [0, 0.25, 0.5, 0.75, 1])
    pair = GAUSSIAN.sample(jax.random.key(1), (2, 3, 3, 1))
    observed = jnp.broadcast_to(pair, (5, 2, 3, 3, 1))
    networks, keys = tasks.Networks(GAUSSIAN.noise_fn(sde)), prng.per_image(jax.random.key(9), jnp.arange(5))
    given = {"observed": observed, "fraction": jnp.asarray(fractions)}
    draw = sampler(sde, "ancestral", num=1)
    found = task.sample(draw, networks, keys, jnp.zeros((5, 3, 3, 1)), given).images

    def affine(x, t, s):  # mean and standard deviation of a pixel go to those of the other time
        here, there = GAUSSIAN.at(sde, t), GAUSSIAN.at(sde, s)
        return there.mean() + there.std() / here.std() * (x - here.mean())

    latents = affine(np.asarray(pair), sde.t_min, sde.t_max)
    between = interpolate(*(jnp.asarray(latents[i : i + 1], jnp.float32) for i in (0, 1)), jnp.asarray(fractions))
    np.testing.assert_allclose(found, affine(np.asarray(between)[:, 0], sde.t_max, sde.t_min), atol=2e-3)
    np.testing.assert_allclose(np.asarray(found)[[0, -1]], pair, atol=2e-3)


# ------------------------------------------------------------------------- numbers and mistakes


def test_which_image_is_observed():
    task = tasks.Inpainting(samples_per_image=3)
    np.testing.assert_array_equal(task.sources(np.arange(2, 8)).ravel(), [0, 1, 1, 1, 2, 2])
    labels = tasks.ClassConditional(classifier="").labels(np.arange(8, 13), 10)
    np.testing.assert_array_equal(labels, [8, 9, 0, 1, 2])
    np.testing.assert_array_equal(tasks.ClassConditional(classifier="", label=3).labels(np.arange(2), 10), [3, 3])


@pytest.mark.parametrize(
    ("task", "shape", "part"),
    [
        (tasks.Colorization(), (8, 8, 1), "needs images of 3 channels, not 1"),
        (tasks.SuperResolution(factor=3), (8, 8, 1), "config.task.factor=3: at least 2, and a divisor of the 8 by 8"),
        (tasks.SuperResolution(factor=1), (8, 8, 1), "config.task.factor=1: at least 2"),
        (tasks.Inpainting(), (2,), "only images can be observed, not points"),
        (tasks.Interpolation(num_between=0), (8, 8, 1), "num_between=0: at least 1"),
        (tasks.ClassConditional(classifier="x", scale=-1.0), (8, 8, 1), "scale=-1.0: 0 or above"),
    ],
)
def test_tasks_that_make_no_sense(task, shape, part):
    with pytest.raises(UserError) as raised:
        task.check(shape)
    assert part in str(raised.value) and str(raised.value).startswith("config.task")


def test_options_out_of_range():
    for wrong in (dict(fraction=0.0), dict(fraction=1.0), dict(samples_per_image=0)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            tasks.Inpainting(**wrong)
    for wrong in (dict(rtol=0.0), dict(atol=-1.0), dict(max_evaluations=3)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            tasks.Interpolation(**wrong)
