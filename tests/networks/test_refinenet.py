"""The blocks of the RefineNet, in float64, against numpy written from the formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy_refinenet as reference
import pytest

from score_sde_jax.networks import layers, norms, refinenet

RNG = np.random.default_rng(0)
FINE, COARSE = RNG.normal(size=(2, 6, 10, 4)), RNG.normal(size=(2, 3, 5, 4))
LEVEL = np.array([2, 0])
CONDITIONAL = functools.partial(norms.ConditionalInstanceNormPlus, 3)

pytestmark = pytest.mark.usefixtures("x64")
# Compilation is most of these tests' time, and LLVM's optimization most of the compilation.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

with_and_without_norm = pytest.mark.parametrize("norm", [CONDITIONAL, None])


def output_and_parameters(block, x):
    """Run a block of compute type float64 with every parameter a normal draw."""
    x = jax.tree.map(jnp.asarray, x)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x, LEVEL)["params"]
    params = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape) / 2, shapes)
    return compiled(block.apply)({"params": params}, x, LEVEL), params


@pytest.mark.parametrize("norm", [CONDITIONAL, norms.InstanceNormPlus])
@pytest.mark.parametrize("kind", [{}, {"dilation": 2}, {"halve": True}, {"project": True, "dilation": 2}])
def test_residual_block(kind, norm):
    features = 5 if {"halve", "project"} & set(kind) else 4
    actual, params = output_and_parameters(refinenet.ResidualBlock(features, norm, dtype="float64", **kind), FINE)
    assert ("shortcut" in params) == (features == 5)
    expected = reference.residual(params, FINE, LEVEL, kind.get("dilation", 1))
    np.testing.assert_allclose(actual, expected, atol=1e-11)


@with_and_without_norm
@pytest.mark.parametrize("units", [1, 3])
def test_residual_conv_units(units, norm):
    actual, params = output_and_parameters(refinenet.ResidualConvUnits(units, norm, "float64"), FINE)
    expected = reference.residual_units(params, FINE, units, LEVEL)
    np.testing.assert_allclose(actual, expected, rtol=1e-11)


@with_and_without_norm
@pytest.mark.parametrize("second", [COARSE, FINE[..., :3]], ids=["coarse", "fine"])
def test_multi_resolution_fusion(second, norm):
    block = refinenet.MultiResolutionFusion(3, norm, "float64")
    actual, params = output_and_parameters(block, [FINE, second])
    np.testing.assert_allclose(actual, reference.fusion(params, [FINE, second], LEVEL), atol=1e-11)


@pytest.mark.parametrize(
    "norm, pool, numpy_pool",
    [
        (CONDITIONAL, layers.average_pool_5x5, reference.average_pool),
        (None, layers.max_pool_5x5, reference.max_pool),
    ],
)
def test_chained_residual_pooling(norm, pool, numpy_pool):
    block = refinenet.ChainedResidualPooling(norm, pool, "float64")
    actual, params = output_and_parameters(block, FINE)
    expected = reference.chained_pooling(params, FINE, numpy_pool, LEVEL)
    np.testing.assert_allclose(actual, expected, atol=1e-11)


@with_and_without_norm
@pytest.mark.parametrize("xs", [[FINE], [FINE, COARSE]], ids=["one", "two"])
def test_refine_block(xs, norm):
    features = 4 if len(xs) == 1 else 3  # a single input keeps its channels
    block = refinenet.RefineBlock(features, norm, layers.max_pool_5x5, "float64", num_output_units=3)
    actual, params = output_and_parameters(block, xs)
    assert ("msf" in params) == (len(xs) > 1)
    expected = reference.refine(params, xs, reference.max_pool, 3, LEVEL)
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)
