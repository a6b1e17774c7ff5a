"""The three NCSNv2 networks against published parameter lists and numpy networks."""

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
from score_sde_jax.networks import NCSNv2, NCSNv2Deeper, NCSNv2Deepest

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 8, 16, 2))

# network, dilation of each stage, and the names of the refinements from deep to shallow
SHAPES = [
    (
        NCSNv2,
        {"res1": 1, "res2": 1, "res3": 2, "res4": 4},
        ["refine1", "refine2", "refine3", "refine4"],
    ),
    (
        NCSNv2Deeper,
        {"res1": 1, "res2": 1, "res3": 1, "res4": 2, "res5": 4},
        ["refine1", "refine2", "refine3", "refine4", "refine5"],
    ),
    (
        NCSNv2Deepest,
        {"res1": 1, "res2": 1, "res3": 1, "res31": 1, "res4": 2, "res5": 4},
        ["refine1", "refine2", "refine31", "refine3", "refine4", "refine5"],
    ),
]


def small(network):
    """Return a narrow network of compute type float64 and a normal draw of its parameters."""
    rng = np.random.default_rng(0)
    network = network(width=4)
    shapes = jax.eval_shape(network.init, jax.random.key(0), IMAGES[:1], Condition())["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) / 5, shapes)
    return network.clone(dtype="float64"), params


NETWORK, PARAMS = small(NCSNv2)

# Compilation is most of these tests' time, and LLVM's optimization most of the compilation.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@compiled
def gradient_and_output(params, x):
    """Gradient of the sum of squares, and the output itself."""

    def loss(params):
        output = NETWORK.apply({"params": params}, x, Condition())
        return jnp.square(output).sum(), output

    return jax.grad(loss, has_aux=True)(params)


@pytest.mark.parametrize(
    "network, name, size, count",
    [
        (NCSNv2, "ncsnv2_cifar10", 32, 29_694_083),
        (NCSNv2Deeper, "ncsnv2_lsun_deeper", 128, 83_445_379),
        (NCSNv2Deepest, "ncsnv2_ffhq_deepest", 256, 94_132_611),
    ],
)
def test_parameters_are_the_published_ones(network, name, size, count):
    actual = published_weights.parameter_shapes(network(), (size, size, 3))
    assert actual == published_weights.published_shapes(name)
    assert sum(math.prod(shape) for shape in actual.values()) == count


@pytest.mark.parametrize("network, dilations, refinements", SHAPES)
def test_network_is_the_numpy_network(network, dilations, refinements, x64):
    network, params = small(network)
    expected = reference.network(params, IMAGES, reference.max_pool, dilations, refinements)
    actual = compiled(network.apply)({"params": params}, IMAGES, None)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_gradient_is_the_slope_of_the_numpy_loss(x64):
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), PARAMS)

    def loss(step):
        moved = jax.tree.map(lambda leaf, along: leaf + step * along, PARAMS, direction)
        return np.sum(reference.network(moved, IMAGES, reference.max_pool, *SHAPES[0][1:]) ** 2)

    gradient, _ = gradient_and_output(PARAMS, IMAGES)
    slope = sum(jax.tree.leaves(jax.tree.map(np.vdot, gradient, direction)))
    # A step so small that no maximum moves to another pixel.
    np.testing.assert_allclose(slope, (loss(1e-8) - loss(-1e-8)) / 2e-8, rtol=1e-4)


def test_an_image_changes_its_own_output_alone(x64):
    images = IMAGES.copy()
    images[1] *= 0.9
    _, before = gradient_and_output(PARAMS, IMAGES)
    _, after = gradient_and_output(PARAMS, images)
    differs = np.any(np.asarray(before != after), axis=(1, 2, 3))
    assert differs.tolist() == [False, True]


@pytest.mark.parametrize("network, size, factor", [(NCSNv2, 33, 2), (NCSNv2Deeper, 98, 4), (NCSNv2Deepest, 252, 8)])
def test_size_that_cannot_be_halved_is_named(network, size, factor):
    with pytest.raises(UserError, match=f"image size must be a multiple of {factor} .*, got {size}x{size}"):
        network(width=4).init(jax.random.key(0), jnp.zeros((1, size, size, 3)), Condition())
