"""DDPM, DDPM++ and NCSN++: published parameters, whole networks against numpy, dropout, bfloat16, and their HLO."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpy_unet as reference
import published_unets
import pytest
from flax import linen as nn

from score_sde_jax import keys as prng
from score_sde_jax.condition import Condition
from score_sde_jax.errors import UserError
from score_sde_jax.networks import DDPM, DDPMpp, NCSNpp, UNet, trainable

PYRAMIDS = dict(progressive_input="skip", progressive_output="skip")
SIZE_256 = dict(multipliers=(1, 1, 2, 2, 2, 2, 2), num_blocks=2, **PYRAMIDS)
SIZE_1024 = dict(width=16, multipliers=(1, 2, 4, 8, 16, 32, 32, 32), num_blocks=1, **PYRAMIDS)

# Trained parameters as published, and the files that list them.
PUBLISHED = {
    "ddpm": (DDPM(), 32, 35_218_947, ["jax_vp_ddpm_cifar10", "pytorch_vp_cifar10_ddpm_continuous"]),
    "ddpm unconditional": (DDPM(embedding="none"), 32, 32_329_347, []),
    "ddpm++": (
        DDPMpp(),
        32,
        61_804_419,
        ["jax_vp_cifar10_ddpmpp_continuous", "pytorch_vp_cifar10_ddpmpp_continuous"],
    ),
    "ncsn++ discrete": (NCSNpp(embedding="positional"), 32, 62_693_251, ["pytorch_ve_cifar10_ncsnpp"]),
    "ncsn++": (
        NCSNpp(),
        32,
        62_758_787,
        ["jax_ve_cifar10_ncsnpp_continuous", "pytorch_ve_cifar10_ncsnpp_continuous"],
    ),
    "ncsn++ 256": (NCSNpp(**SIZE_256), 256, 65_574_421, ["pytorch_ve_ffhq_256_ncsnpp_continuous"]),
}
PUBLISHED_COUNTS = {
    "ddpm 256": (DDPM(multipliers=(1, 1, 2, 2, 4, 4)), 256, 111_569_923),
    "ddpm++ deep": (DDPMpp(num_blocks=8), 32, 106_632_579),
    "ncsn++ deep": (NCSNpp(num_blocks=8), 32, 107_586_947),
    "ncsn++ deep vp": (NCSNpp(num_blocks=8, embedding="positional"), 32, 107_521_411),
    "ncsn++ 1024": (NCSNpp(**SIZE_1024), 1024, 105_785_880),
}

SMALL = dict(width=4, multipliers=(1, 2), num_blocks=1, attention=(4,))
NETWORKS = {
    "ddpm": DDPM(**SMALL),
    "ddpm unconditional": DDPM(**SMALL, embedding="none"),
    "ddpm++": DDPMpp(**SMALL),
    "ncsn++": NCSNpp(**SMALL),
    "ncsn++ 256": NCSNpp(**SMALL, **PYRAMIDS),
    "three resolutions": NCSNpp(width=4, multipliers=(1, 1, 2), num_blocks=1, attention=(8, 2)),
    "everything else": NCSNpp(
        **SMALL, block="ddpm", progressive_input="skip", combine="cat", progressive_output="residual"
    ),
}
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (2, 8, 8, 3))
CONDITION = np.array([0.7, -1.3])

# Compilation is most of these tests' time, and LLVM's optimization most of the compilation.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def shapes_of_params(network):
    return jax.eval_shape(network.init, jax.random.key(0), IMAGES[:1], Condition(CONDITION[:1]))


def random_params(network):
    """A normal draw of the parameters: at their start the last convolutions are nearly zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) / 3, shapes_of_params(network))


def count_trained(network, size):
    shapes = published_unets.ours(network, size)
    return sum(math.prod(shape) for path, shape in shapes.items() if not path[-1].startswith("fixed_"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name):
    network, size, count, files = PUBLISHED[name]
    actual = published_unets.ours(network, size)
    fixed = [math.prod(shape) for path, shape in actual.items() if path[-1].startswith("fixed_")]
    assert sum(math.prod(shape) for shape in actual.values()) - sum(fixed) == count
    assert fixed == ([128] if network.embedding == "fourier" else [])
    for file in files:
        assert published_unets.published(file) == actual, file


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_number_of_parameters_is_the_published_one(name):
    network, size, count = PUBLISHED_COUNTS[name]
    assert count_trained(network, size) == count


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_the_numpy_network(name, x64):
    network, params = NETWORKS[name].clone(dtype="float64"), random_params(NETWORKS[name])
    actual = compiled(network.apply)(params, IMAGES, Condition(CONDITION))
    expected = reference.network(network, params["params"], IMAGES, CONDITION)
    # the frequencies of positional features are float32
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    assert np.std(expected) > 1e-2


def test_gradient_is_the_slope_of_the_numpy_loss(x64):
    network, params = NETWORKS["ncsn++"].clone(dtype="float64"), random_params(NETWORKS["ncsn++"])
    direction = random_params(NETWORKS["ncsn++"])
    direction["params"]["FourierFeatures_0"] = jax.tree.map(np.zeros_like, direction["params"]["FourierFeatures_0"])

    def loss(step):
        moved = jax.tree.map(lambda leaf, along: leaf + step * along, params, direction)
        return np.sum(reference.network(network, moved["params"], IMAGES, CONDITION) ** 2)

    gradient = compiled(jax.grad(lambda p: jnp.sum(jnp.square(network.apply(p, IMAGES, Condition(CONDITION))))))(params)
    slope = sum(jax.tree.leaves(jax.tree.map(np.vdot, gradient, direction)))
    np.testing.assert_allclose(slope, (loss(1e-5) - loss(-1e-5)) / 2e-5, rtol=1e-5)
    assert not np.any(gradient["params"]["FourierFeatures_0"]["fixed_frequencies"])


def test_fixed_parameters_are_told_from_trained_ones():
    flags = jax.tree_util.tree_leaves_with_path(trainable(shapes_of_params(NETWORKS["ncsn++"])))
    assert [jax.tree_util.keystr(path) for path, flag in flags if not flag] == [
        "['params']['FourierFeatures_0']['fixed_frequencies']"
    ]


DROPPING = DDPMpp(**SMALL, dropout=0.5)
KEYS = jax.random.split(jax.random.key(3), 2)
SINGLE = IMAGES.astype(np.float32)


@compiled
def dropped(x, condition, keys):
    return DROPPING.apply(random_params(NETWORKS["ddpm++"]), x, Condition(condition), train=True, dropout_keys=keys)


def test_dropout_of_an_image_is_a_function_of_its_key_alone():
    whole = dropped(SINGLE, CONDITION, KEYS)
    reversed_batch = dropped(SINGLE[::-1], CONDITION[::-1], KEYS[::-1])
    np.testing.assert_allclose(whole, reversed_batch[::-1], atol=1e-5)
    other = dropped(SINGLE, CONDITION, KEYS[::-1])
    assert np.abs(whole - other).max() > 1e-2


def test_every_block_drops_by_keys_of_its_own(monkeypatch):
    numbers, fold_in, params = [], prng.fold_in, random_params(NETWORKS["ddpm++"])
    monkeypatch.setattr(prng, "fold_in", lambda keys, number: numbers.append(number) or fold_in(keys, number))
    jax.eval_shape(
        functools.partial(DROPPING.apply, train=True), params, SINGLE, Condition(CONDITION), dropout_keys=KEYS
    )
    blocks = [name for name in params["params"] if name.startswith("ResidualBlock")]
    assert sorted(numbers) == list(range(len(blocks)))


def test_no_dropout_when_not_training():
    inputs = random_params(NETWORKS["ddpm++"]), SINGLE, Condition(CONDITION)
    apply = compiled(functools.partial(DROPPING.apply, *inputs, train=False))
    np.testing.assert_array_equal(apply(), apply(dropout_keys=KEYS))


def test_training_with_dropout_needs_keys():
    with pytest.raises(ValueError, match="dropout_keys"):
        DROPPING.apply(random_params(NETWORKS["ddpm++"]), SINGLE, Condition(CONDITION), train=True)


@pytest.mark.parametrize("name", ["ddpm", "ncsn++ 256"])
def test_bfloat16_is_close_and_every_layer_computes_in_it(name):
    network = NETWORKS[name].clone(dtype="bfloat16")
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), random_params(NETWORKS[name]))
    inputs = params, IMAGES.astype(np.float32), Condition(CONDITION)
    traced = compiled(network.apply).trace(*inputs)
    actual = traced.lower().compile()(*inputs)
    expected = reference.network(network, params["params"], IMAGES, CONDITION)
    assert actual.dtype == jnp.float32
    # 8 bits of mantissa, through some 20 layers
    assert np.sqrt(np.mean((actual - expected) ** 2) / np.mean(expected**2)) < 0.05
    jaxpr = str(traced.jaxpr)
    products = [line for line in jaxpr.splitlines() if "conv_general_dilated" in line or " dot_general" in line]
    assert products and all("bf16" in line.split("=")[0] for line in products if "f32" in line)


# Names of operations, in StableHLO and in HLO: "stablehlo.gather"(...) and = f32[2,8] gather(...).
REFUSED = re.compile(r"(?:stablehlo\.|[\]})] )\"?(gather|scatter|select.and.scatter|reduce.window)\b")


@pytest.mark.parametrize("name", ["ncsn++", "everything else"])
def test_compiled_step_has_no_gather_scatter_or_window(name):
    network = NETWORKS[name]
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), random_params(network))

    def loss(params, x):
        return jnp.sum(jnp.square(network.apply(params, x, Condition(jnp.ones(2)), train=True, dropout_keys=KEYS)))

    lowered = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, SINGLE)
    compiled_step = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
    for text in (lowered.as_text(), compiled_step.as_text()):
        assert not REFUSED.findall(text)
        assert not re.search(r"feature_group_count ?= ?([2-9]|1\d)", text)


def test_gathers_and_scatters_would_be_found():
    def blurred(x):
        return jnp.sum(jnp.square(nn.max_pool(x, (2, 2), (2, 2)))) + x[jnp.array([1, 0])].sum()

    lowered = jax.jit(jax.grad(blurred)).lower(SINGLE)
    for text in (lowered.as_text(), lowered.compile().as_text()):
        assert REFUSED.findall(text)


@pytest.mark.parametrize("multipliers, size, unit", [((1, 2), 9, 2), ((1, 2, 2, 2), 28, 8)])
def test_size_that_cannot_be_halved_is_named(multipliers, size, unit):
    with pytest.raises(UserError, match=rf"image size must be a multiple of {unit}, got {size}x{size}"):
        UNet(width=4, multipliers=multipliers).init(
            jax.random.key(0), jnp.zeros((1, size, size, 3)), Condition(jnp.zeros(1))
        )


def test_embedding_without_a_condition_is_refused():
    with pytest.raises(UserError, match="embedding=positional"):
        DDPM(**SMALL).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), Condition())


def test_small_sizes_halve():
    for size, multipliers in ((8, (1, 2)), (28, (1, 2, 2))):
        network = NCSNpp(width=8, multipliers=multipliers, num_blocks=1)
        x = jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32)
        condition = Condition(jax.ShapeDtypeStruct((2,), jnp.float32))
        assert jax.eval_shape(network.init_with_output, jax.random.key(0), x, condition)[0].shape == x.shape
