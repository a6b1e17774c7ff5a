"""Costs counted in a jaxpr against sums by hand."""

import resource
import types

import jax
import jax.numpy as jnp
import pytest

from score_sde_jax.devices import costs
from score_sde_jax.devices.costs import flops, gradient_cost, products


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
    costliest = flops(lambda p, a: jax.lax.cond(p, lambda a: a @ a, lambda a: a, a), True, a)
    assert costliest == 2 * 4**3


def test_products_have_the_number_of_their_executions():
    @jax.jit
    def cube(x):
        return x @ (x @ x)

    def step(x, _):
        return cube(x) @ x, None

    def function(x):
        return jax.lax.scan(step, x @ x, None, length=4)[0]

    def names(**options):
        equations = products(function, jnp.zeros((3, 3)), **options)
        return [(equation.primitive.name, times) for equation, times in equations]

    assert names() == [("dot_general", 1), ("dot_general", 4), ("dot_general", 4), ("dot_general", 4)]
    assert names(whole=["cube"]) == [("dot_general", 1), ("jit", 4), ("dot_general", 4)]


def test_residuals_of_a_chain_of_tanh():
    """Each tanh keeps its own output, the product its input."""
    params, x = {"w": jnp.zeros((6, 6))}, jnp.zeros((10, 6))

    def loss(params, x):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ params["w"])))

    num_bytes = gradient_cost(loss, params, x).residual_bytes
    assert num_bytes >= 2 * x.size * 4 and num_bytes <= 6 * x.size * 4


def test_residuals_of_a_sine_of_a_product():
    """A product keeps its input for the gradient of its weights, a sine its derivative; weights do not count."""
    params, x = {"v": jnp.zeros((6, 6)), "w": jnp.zeros((6, 6))}, jnp.zeros((10, 6))
    one = x.size * 4
    cost = gradient_cost(lambda params, x: jnp.sum(jnp.sin(x @ params["w"])), params, x)
    assert cost.residual_bytes == 2 * one
    assert cost.flops == 2 * (2 * 10 * 6 * 6)  # the product, and the gradient of the weights

    def two(params, x):
        return jnp.sum(jax.jit(jnp.sin)(jnp.sin(x @ params["v"]) @ params["w"]))

    assert gradient_cost(two, params, x).residual_bytes == 4 * one  # w does not count


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


DEVICE_KINDS = {  # as JAX reports them: peak in bfloat16 and in float32, in TFLOP/s, rounded
    "NVIDIA H100 80GB HBM3": (990, 495),
    "NVIDIA H100 PCIe": (756, 378),
    "NVIDIA H100 NVL": (836, 418),
    "NVIDIA H200": (990, 495),
    "NVIDIA GH200 480GB": (990, 495),
    "NVIDIA B200": (2250, 1125),
    "NVIDIA A100-SXM4-40GB": (312, 156),
    "NVIDIA A100-SXM4-80GB": (312, 156),
    "NVIDIA A100-PCIE-40GB": (312, 156),
    "NVIDIA A100 80GB PCIe": (312, 156),
    "NVIDIA L4": (121, 60),
    "NVIDIA L40S": (362, 183),
    "Tesla V100-SXM2-16GB": (None, 16),
    "Tesla V100-PCIE-32GB": (None, 14),
    "Tesla T4": (None, 8),
    "TPU v4": (275, 275),
    "TPU v5": (459, 459),
    "TPU v5p": (459, 459),
    "TPU v5 lite": (197, 197),
    "TPU v5e": (197, 197),
    "TPU v6 lite": (918, 918),
    "TPU7x": (1154, 1154),
}


@pytest.mark.parametrize("kind", DEVICE_KINDS)
def test_peak_flops_of_a_device_kind_depends_on_the_type(kind):
    peaks = [costs.peak_flops(dtype, kind) for dtype in ("bfloat16", "float32")]
    assert tuple(peak and round(peak / 1e12) for peak in peaks) == DEVICE_KINDS[kind]
    assert costs.peak_flops("float64", kind) is None


@pytest.mark.parametrize("kind", ["cpu", "TPU v4 lite", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA L40", ""])
def test_peak_flops_of_another_device_is_unknown(kind):
    assert costs.peak_flops("float32", kind) is None


def test_peak_flops_at_another_precision_of_products_is_unknown():
    with jax.default_matmul_precision("highest"):
        assert costs.peak_flops("float32", "NVIDIA H200") is None
    assert costs.peak_flops("float32", "NVIDIA H200") == 494.7e12


def test_utilization_is_a_share_of_the_peak_of_this_device(monkeypatch):
    assert costs.utilization(1e12, "float32") == {}  # a CPU
    monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(device_kind="TPU v4")])
    assert costs.utilization(27.5e12, "bfloat16") == {"model_flops_utilization": pytest.approx(0.1)}


def test_memory_use_on_a_cpu_is_the_peak_of_the_process():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    use = costs.memory_use()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert list(use) == ["process_peak_memory_bytes"]
    assert 1024 * before <= use["process_peak_memory_bytes"] <= 1024 * after  # Linux counts in KiB


def test_memory_use_of_accelerators_is_that_of_the_fullest(monkeypatch):
    stats = [{"bytes_in_use": 3, "peak_bytes_in_use": 5}, {"bytes_in_use": 2, "peak_bytes_in_use": 7, "num_allocs": 1}]
    devices = [types.SimpleNamespace(memory_stats=lambda each=each: each) for each in stats]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert costs.memory_use() == {"device_memory_bytes": 3, "device_peak_memory_bytes": 7}
