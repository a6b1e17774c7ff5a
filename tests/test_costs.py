"""Costs read off a jaxpr against sums done by hand."""

import jax
import jax.numpy as jnp
import pytest

from score_sde_jax.costs import flops, residual_bytes


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


def test_residuals_of_a_chain_of_tanh():
    """Each tanh keeps its own output, the product its input."""
    params, x = {"w": jnp.zeros((6, 6))}, jnp.zeros((10, 6))

    def loss(params, x):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ params["w"])))

    kept = residual_bytes(loss, params, x)
    assert kept >= 2 * x.size * 4 and kept <= 6 * x.size * 4
