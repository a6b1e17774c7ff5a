"""What a training step becomes for accelerators, counted in programs that are lowered for CUDA and never run.

A count that grows is a pass over memory or hundreds of kernels that come back (docs/accelerators.md).
"""

import contextlib
import re

import jax
import jax.numpy as jnp
import pytest
from experiments import finished
from jax.experimental.compilation_cache import compilation_cache

from score_sde_jax.data import dataset_spec
from score_sde_jax.devices.machine import tracing_for
from score_sde_jax.networks import norms
from score_sde_jax.networks.unet_blocks import ResidualBlock
from score_sde_jax.runs import build
from score_sde_jax.runs.flat import flatten_state

SHAPE = (2, 8, 8, 16)
OVER_PIXELS = r"stablehlo\.reduce\([^\n]*dimensions = \[1, 2\] : \(tensor<2x8x8x16x"
OVER_ALL = r"stablehlo\.reduce\([^\n]*dimensions = \[0, 1, 2\] : \(tensor<2x8x8x16x"


def lowered(function, *shapes):
    with tracing_for("gpu"):
        return jax.jit(function).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()


def gradient_of(module, *arguments):
    """The program of the gradient of a module's output with respect to everything."""

    def loss(params, *arguments):
        return jnp.sum(jnp.sin(module.apply(params, *arguments).astype(jnp.float32)))

    with tracing_for("gpu"):
        params = jax.eval_shape(module.init, jax.random.key(0), *arguments)
    return lowered(jax.grad(loss, (0, 1)), params, *arguments)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("norm", [norms.GroupNorm, norms.InstanceNormPlus])
def test_a_norm_is_two_sums_forward_and_two_backward(norm, dtype):
    """With those that XLA fuses into one kernel each, the features are read twice forward and twice backward."""
    module = norm(dtype, jax.nn.silu) if norm is norms.GroupNorm else norm(jax.nn.silu)
    text = gradient_of(module, jax.ShapeDtypeStruct(SHAPE, dtype))
    assert len(re.findall(OVER_PIXELS, text)) == 4
    assert not re.findall(OVER_ALL, text)


def test_a_block_adds_the_sums_of_its_biases_only():
    """The gradients of the level embedding, and of scales and shifts, come out of the sums of the norms."""
    module = ResidualBlock(16, "ddpm", True, 0.0, "bfloat16")
    embedding = jax.ShapeDtypeStruct((2, 8), "bfloat16")
    text = gradient_of(module, jax.ShapeDtypeStruct(SHAPE, "bfloat16"), embedding, None)
    assert len(re.findall(OVER_PIXELS, text)) == 8
    assert len(re.findall(OVER_ALL, text)) == 2


@pytest.fixture(scope="module")
def steps():
    """The training step of a U-Net, and its state, in flat vectors or not."""
    config = finished("ve/cifar10_ncsnpp_continuous")
    with tracing_for("gpu"):
        shape = dataset_spec(config.data.name).shape(None, None)
        experiment, key = build.experiment(config, shape), jax.eval_shape(lambda: jax.random.key(0))
        state = jax.eval_shape(experiment.init, key)
        flat = jax.eval_shape(flatten_state, state, state.params)
        images, _ = experiment.batch_shapes(2)
        batches = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), images)
    return {name: (each, lowered(experiment.steps, each, batches, key)) for name, each in (("flat", flat), ("", state))}


def test_the_optimizer_takes_a_root_of_each_vector_not_of_each_parameter(steps):
    for state, text in steps.values():
        number = len(jax.tree.leaves(state.params))
        roots = len(re.findall(r"stablehlo\.sqrt", text))
        assert number <= roots <= number + 4  # three norms for the log, and one of the data
    assert len(jax.tree.leaves(steps["flat"][0].params)) < len(jax.tree.leaves(steps[""][0].params)) / 10


def test_the_state_is_few_arrays(steps):
    """Parameters, one average, two moments, and four counts."""
    state, _ = steps["flat"]
    assert len(jax.tree.leaves(state)) == 4 * len(jax.tree.leaves(state.params)) + 4


@contextlib.contextmanager
def without_cache():
    """Leave the compilation cache out: JAX cannot read a program for an absent device."""
    for enabled in (False, True):
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()  # it decides once whether it is used
        if not enabled:
            yield


def test_a_block_compiled_for_an_h100_reads_and_writes_what_it_must():
    """The passes over memory of the forward and backward pass of a block with dropout, beside its convolutions.

    It needs JAX 0.11, jax-cuda13-pjrt and jax-cuda13-plugin, but no card.
    """
    pytest.importorskip("jax_plugins.xla_cuda13")
    h100_program = pytest.importorskip("h100_program", reason="JAX 0.11 compiles for absent devices")
    module, shape = ResidualBlock(128, "biggan", True, 0.1, "bfloat16"), (128, 32, 32, 128)
    arguments = [jax.ShapeDtypeStruct(each, "bfloat16") for each in (shape, (128, 512))]
    arguments.append(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 128)))

    def loss(params, *arguments):
        return jnp.sum(jnp.sin(module.apply(params, *arguments).astype(jnp.float32)))

    parallel = h100_program.over_h100s("jit", 1)
    with tracing_for("gpu"):
        params = jax.eval_shape(module.init, jax.random.key(0), *arguments)
        shapes = h100_program.placed((params, *arguments), parallel.replicated)
        with without_cache():
            compiled = jax.jit(jax.grad(loss, (0, 1))).trace(*shapes).lower().compile()
    kernels = [each for each in h100_program.kernels(compiled.as_text()) if not each.kind.startswith("cudnn")]
    one_pass = 2 * 128 * 32 * 32 * 128
    # Forward 3 and backward 5 for each of two norms, the random bits, the dropout and its gradient, the residual sum,
    # its gradient and the loss.
    assert sum(each.size for each in kernels) < 26 * one_pass
    assert len(kernels) < 45


@pytest.mark.parametrize(
    ("precision", "written"), [("default", "DEFAULT"), ("highest", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", "bf16")]
)
@pytest.mark.parametrize("section", ["train", "sampler"])
def test_the_precision_reaches_every_convolution(section, precision, written):
    config = finished("digits", f"{section}.precision={precision}")
    with tracing_for("gpu"):
        experiment, key = build.experiment(config, (8, 8, 1)), jax.eval_shape(lambda: jax.random.key(0))
        params = jax.eval_shape(experiment.init_params, key)
        images, keys = experiment.batch_shapes(2)
    if section == "train":
        text = lowered(jax.grad(lambda *args: experiment.loss_fn(*args).mean()), params, keys, images)
    else:
        indices = jax.ShapeDtypeStruct((2,), jnp.int32)
        text = lowered(lambda *args: experiment.sample(*args, {}).images, params, indices, key)
    convolutions = re.findall(r"stablehlo\.convolution\(.*", text)
    assert len(convolutions) > 5
    for each in convolutions:
        if written == "bf16":
            assert each.endswith("bf16>")
        else:
            assert set(re.findall(r"DEFAULT|HIGHEST|HIGH", each)) <= {written}, each
            assert (written in each) or written == "DEFAULT"
            assert each.endswith("f32>")


def test_the_batch_comes_as_it_is_stored(steps):
    assert re.search(r"@main\([^)]*tensor<1x2x32x32x3xui8>", steps["flat"][1])
