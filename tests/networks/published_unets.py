"""Names and shapes of the published weights of score_sde, in both frameworks, and the rule from them to ours.

Our modules are numbered by class in the order in which the image meets them, as those of the Flax repository are: the
rule renames classes, layers and leaves. The PyTorch repository numbers all modules in one list, in the same order: the
class of an entry follows from its layers, and its number counts the previous entries of the class.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import published_weights
from flax.traverse_util import flatten_dict

from score_sde_jax.condition import Condition

# Class in the Flax repository (the endings of DDPM's and of NCSN++'s) to ours.
CLASSES = {
    "ResnetBlockDDPM": "ResidualBlock",
    "ResnetBlockDDPMpp": "ResidualBlock",
    "ResnetBlockBigGANpp": "ResidualBlock",
    "AttnBlock": "Attention",
    "AttnBlockpp": "Attention",
    "GaussianFourierProjection": "FourierFeatures",
}

# Layers inside a module of our class, in either framework, to ours.
LAYERS = {
    "ResidualBlock": {
        "GroupNorm_0": "norm0",
        "Conv_0": "conv0",
        "Dense_0": "level",
        "GroupNorm_1": "norm1",
        "Conv_1": "conv1",
        "Conv_2": "shortcut",
        "NIN_0": "shortcut",
    },
    "Attention": {"GroupNorm_0": "norm", "NIN_0": "query", "NIN_1": "key", "NIN_2": "value", "NIN_3": "out"},
    "Downsample": {"Conv_0": "conv", "Conv2d_0": "conv"},
    "Upsample": {"Conv_0": "conv", "Conv2d_0": "conv"},
    "Combine": {"Conv_0": "conv"},
}


def from_flax(names: dict[str, tuple[int, ...]]) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Our path and shape of every leaf of the Flax repository."""
    actual = {}
    for name, shape in names.items():
        module, *layers, leaf = name.split("/")
        kind, number = module.rsplit("_", 1)
        kind = CLASSES.get(kind, kind)
        actual[f"{kind}_{number}", *(LAYERS[kind][layer] for layer in layers), _leaf(kind, leaf)] = shape
    return actual


def from_torch(names: dict[str, tuple[int, ...]]) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Our path and shape of every tensor of the PyTorch repository."""
    return {path: tuple(shape[axis] for axis in order) for path, shape, order in _matched(names, lambda shape: shape)}


def weights_from_torch(tensors: dict[str, np.ndarray]) -> dict[tuple[str, ...], np.ndarray]:
    """Our path and array of every tensor of the PyTorch repository."""
    return {path: tensor.transpose(order) for path, tensor, order in _matched(tensors, np.shape)}


def _matched(
    entries: dict[str, Any], shape_of: Callable[[Any], tuple[int, ...]]
) -> Iterator[tuple[tuple[str, ...], Any, tuple[int, ...]]]:
    """Our path of every entry, the entry, and the order of its axes in ours: kernels are OIHW, matrices transposed."""
    modules: dict[int, dict[str, Any]] = {}
    for name, entry in entries.items():
        number, rest = re.fullmatch(r"all_modules\.(\d+)\.(.+)", name).groups()
        modules.setdefault(int(number), {})[rest] = entry
    counts: dict[str, int] = {}
    for number in sorted(modules):
        shapes = {name: shape_of(entry) for name, entry in modules[number].items()}
        kind = torch_class(shapes, number > max(modules) / 2)
        index = counts[kind] = counts.get(kind, -1) + 1
        for name, entry in modules[number].items():
            *layers, leaf = name.split(".")
            path = (f"{kind}_{index}", *(LAYERS[kind][layer] for layer in layers))
            if leaf == "weight":
                order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[len(shapes[name])]
                yield (*path, "scale" if len(order) == 1 else "kernel"), entry, order
            else:
                yield (*path, _leaf(kind, leaf)), entry, tuple(range(len(shapes[name])))


def torch_class(parts: dict[str, tuple[int, ...]], upwards: bool) -> str:
    """Our class of one entry of the list, from the names and shapes of its tensors."""
    if "W" in parts:
        return "FourierFeatures"
    if "weight" in parts:
        return {4: "Conv", 2: "Dense", 1: "GroupNorm"}[len(parts["weight"])]
    if "GroupNorm_1.weight" in parts:
        return "ResidualBlock"
    if "NIN_3.W" in parts:
        return "Attention"
    if parts.get("Conv_0.weight", (0,))[-1] == 1:
        return "Combine"
    return "Upsample" if upwards else "Downsample"


def _leaf(kind: str, leaf: str) -> str:
    if kind == "FourierFeatures":
        return "fixed_frequencies"
    return {"W": "kernel", "b": "bias", "weight": "kernel"}.get(leaf, leaf)


def ours(network, size: int) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Path and shape of every parameter of a network for color images of `size` pixels."""
    images = jnp.zeros((1, size, size, 3))
    tree = jax.eval_shape(network.init, jax.random.key(0), images, Condition(jnp.zeros(1)))["params"]
    return {path: leaf.shape for path, leaf in flatten_dict(tree).items()}


def published(name: str) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Our path and shape of every leaf that reference_keys/score_sde_<name>.txt lists."""
    rule = from_flax if name.startswith("jax") else from_torch
    return rule(published_weights.published_shapes(f"score_sde_{name}"))
