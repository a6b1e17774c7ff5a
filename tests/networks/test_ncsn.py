"""NCSN against its published parameter list and a numpy network written from the paper."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpy_refinenet as reference
import published_weights
import pytest

from score_sde_jax.condition import Condition
from score_sde_jax.errors import UserError
from score_sde_jax.networks import NCSN

RNG = np.random.default_rng(0)
IMAGES, LEVEL = RNG.uniform(-1, 1, (3, 8, 12, 2)), np.array([2, 0, 1])
SMALL = NCSN(width=6, num_levels=3)
NETWORK = SMALL.clone(dtype="float64")
SHAPES = jax.eval_shape(SMALL.init, jax.random.key(0), IMAGES[:1], Condition(LEVEL[:1]))["params"]
PARAMS = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape) / 5, SHAPES)

# Compilation is most of these tests' time, and LLVM's optimization most of the compilation.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@compiled
def gradient_and_score(params, x, level):
    """Gradient of the sum of squares, and the score itself: one program serves every test."""

    def loss(params):
        score = NETWORK.apply({"params": params}, x, Condition(level))
        return jnp.square(score).sum(), score

    return jax.grad(loss, has_aux=True)(params)


def numpy_score(params):
    return reference.network(
        params,
        IMAGES,
        reference.average_pool,
        dilations={"res1": 1, "res2": 1, "res3": 2, "res4": 4},
        refinements=["refine1", "refine2", "refine3", "refine4"],
        level=LEVEL,
    )


@pytest.mark.parametrize(
    "name, width, image, count",
    [
        ("ncsn_cifar10", 128, (32, 32, 3), 30_117_635),
        ("ncsn_mnist", 64, (28, 28, 1), 7_638_657),
    ],
)
def test_parameters_are_the_published_ones(name, width, image, count):
    actual = published_weights.parameter_shapes(NCSN(width=width), image)
    assert actual == published_weights.published_shapes(name)
    assert sum(math.prod(shape) for shape in actual.values()) == count


def test_network_is_the_numpy_network(x64):
    _, actual = gradient_and_score(PARAMS, IMAGES, LEVEL)
    expected = numpy_score(PARAMS)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_gradient_is_the_slope_of_the_numpy_loss(x64):
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), PARAMS)

    def loss(step):
        moved = jax.tree.map(lambda leaf, along: leaf + step * along, PARAMS, direction)
        return np.sum(numpy_score(moved) ** 2)

    gradient, _ = gradient_and_score(PARAMS, IMAGES, LEVEL)
    slope = sum(jax.tree.leaves(jax.tree.map(np.vdot, gradient, direction)))
    np.testing.assert_allclose(slope, (loss(1e-6) - loss(-1e-6)) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("change", ["image", "level"])
def test_an_image_and_its_level_change_its_own_score_alone(change, x64):
    images, level = IMAGES.copy(), LEVEL.copy()
    if change == "image":
        images[1] *= 0.9
    else:
        level[1] = 2
    _, before = gradient_and_score(PARAMS, IMAGES, LEVEL)
    _, after = gradient_and_score(PARAMS, images, level)
    differs = np.any(np.asarray(before != after), axis=(1, 2, 3))
    assert differs.tolist() == [False, True, False]


def test_every_layer_computes_in_the_given_type_and_parameters_stay_float32():
    network, x = SMALL.clone(dtype="bfloat16"), jnp.zeros((1, 8, 8, 1))

    def run(key):
        return network.init_with_output(key, x, Condition(LEVEL[:1]), capture_intermediates=True)

    score, variables = jax.eval_shape(run, jax.random.key(0))
    assert score.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["params"])} == {jnp.dtype("float32")}
    outputs = variables["intermediates"]
    outputs.pop("__call__")
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype("bfloat16")}


def test_size_that_cannot_be_halved_is_named():
    with pytest.raises(UserError, match=r"image size must be a multiple of 2 for this network, got 31x32"):
        SMALL.init(jax.random.key(0), jnp.zeros((1, 31, 32, 1)), Condition(LEVEL[:1]))
