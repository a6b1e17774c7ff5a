"""Costs read off a jaxpr against sums done by hand."""

import jax
import jax.numpy as jnp
import pytest

from score_sde_jax.devices.costs import flops, products, residual_bytes


def test_flops_of_a_product_its_gradient_and_a_scan():
    a, b = jnp.zeros((3, 5)), jnp.zeros((5, 7))
    one = 2 * 3 * 5 * 7
    assert flops(jnp.matmul, a, b) == one
    assert flops(jax.grad(lambda a, b: jnp.sum((a @ b) ** 2), argnums=(0, 1)), a, b) == 3 * one
    assert flops(lambda a: jax.lax.scan(lambda x, _: (x @ a, None), a, None, length=4), jnp.zeros((3, 3))) == 4 * 54


@pytest.mark.parametrize(("stride", "size"), [(1, 8), (2, 4)])
def test_flops_of_a_convolution(stride, size):
    x, w = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))

    def conv(x, w):
        return jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert flops(conv, x, w) == 2 * (2 * size * size * 5) * (3 * 3 * 3)


def test_the_costliest_branch_counts():
    a = jnp.zeros((4, 4))
    chosen = flops(lambda p, a: jax.lax.cond(p, lambda a: a @ a, lambda a: a, a), True, a)
    assert chosen == 2 * 4**3


def test_products_and_how_often_they_run():
    def step(x, _):
        return jax.lax.platform_dependent(x, cpu=lambda x: x @ x, default=lambda x: x @ (x @ x)) @ x, None

    def function(x):
        return jax.lax.scan(step, x @ x, None, length=4)[0]

    def names(**options):
        found = products(function, jnp.zeros((3, 3)), **options)
        return [(equation.primitive.name, times) for equation, times in found]

    assert names() == [("dot_general", 1), ("dot_general", 4), ("dot_general", 4), ("dot_general", 4)]
    assert names(whole=True) == [("dot_general", 1), ("cond", 4), ("dot_general", 4)]


def test_residuals_of_a_chain_of_tanh():
    """Each tanh keeps its own output, the product its input."""
    params, x = {"w": jnp.zeros((6, 6))}, jnp.zeros((10, 6))

    def loss(params, x):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ params["w"])))

    kept = residual_bytes(loss, params, x)
    assert kept >= 2 * x.size * 4 and kept <= 6 * x.size * 4


def test_residuals_of_a_sine_of_a_product():
    """A product keeps its input for the gradient of its weights, a sine its derivative; the weights are no extra."""
    params, x = {"v": jnp.zeros((6, 6)), "w": jnp.zeros((6, 6))}, jnp.zeros((10, 6))
    one = x.size * 4
    assert residual_bytes(lambda params, x: jnp.sum(jnp.sin(x @ params["w"])), params, x) == 2 * one

    def two(params, x):
        return jnp.sum(jax.jit(jnp.sin)(jnp.sin(x @ params["v"]) @ params["w"]))

    assert residual_bytes(two, params, x) == 4 * one  # w is needed for the gradient of v, and held anyway


def test_flops_of_batched_products_grouped_convolutions_and_inner_functions():
    a, b = jnp.zeros((4, 3, 5)), jnp.zeros((4, 5, 7))
    one = 2 * 4 * 3 * 5 * 7
    assert flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), a, b) == one
    assert flops(jax.jit(lambda a, b: jax.checkpoint(jnp.matmul)(a, b)), a, b) == one
    x, w = jnp.zeros((2, 8, 8, 6)), jnp.zeros((3, 3, 2, 9))  # three groups of 2 channels in and 3 out

    def grouped(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=3)

    assert flops(grouped, x, w) == 2 * (2 * 8 * 8 * 9) * (3 * 3 * 2)
