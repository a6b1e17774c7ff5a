"""Names and shapes of the published PyTorch weights, and the rule from our parameters to them."""

import pathlib
import re

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from score_sde_jax.condition import Condition

FOLDER = pathlib.Path(__file__).parent / "reference_keys"
LEAVES = {"kernel": "weight", "embed": "embed.weight"}


def torch_name(path: tuple[str, ...]) -> str:
    """("res1_0", "conv1", "kernel") is res1.0.conv1.weight: a final number indexes a list."""
    *modules, leaf = path
    modules = [re.sub(r"_(\d+)$", r".\1", module) for module in modules]
    return ".".join([*modules, LEAVES.get(leaf, leaf)])


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Kernels are HWIO here and OIHW there; vectors and tables are the same."""
    return tuple(shape[i] for i in (3, 2, 0, 1)) if len(shape) == 4 else shape


def parameter_shapes(network, image_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's parameters under their published names."""
    x, level = jnp.zeros((1, *image_shape)), jnp.zeros(1, int)
    tree = jax.eval_shape(network.init, jax.random.key(0), x, Condition(level))["params"]
    return {torch_name(path): torch_shape(leaf.shape) for path, leaf in flatten_dict(tree).items()}


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Read the rows "name AxBxC" of reference_keys/<name>.txt."""
    rows = (line.split() for line in (FOLDER / f"{name}.txt").read_text().splitlines())
    return {key: tuple(int(n) for n in shape.split("x")) for key, shape in rows}
