"""A small classifier of Fashion-MNIST (or MNIST) whose last hidden layer gives features for the Fréchet distance.

    python benchmarks/feature_classifier.py --config=configs/fashion_mnist.py --output=runs/features.npz

Trains a convolutional network on the training split for two epochs, a few minutes on 2 CPU cores, prints its accuracy
on the test split, and saves its weights. Distances between its features are no FIDs: they compare samplers here.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from score_sde_jax import settings
from score_sde_jax.data import Dataset, Pixels, all_images, training_batches
from score_sde_jax.networks.layers import Conv
from score_sde_jax.runs import build
from score_sde_jax.settings import Settings, with_values

BATCH, RATE = 128, 2e-3


class Classifier(nn.Module):
    """Classifier of three strided stages: images in [0, 1] to (logits, features)."""

    width: int = 32
    features: int = 64
    classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return logits (batch, classes) and features (batch, features)."""
        for factor in (1, 2, 4):
            x = nn.relu(nn.GroupNorm(8, use_fast_variance=False)(Conv(factor * self.width, (3, 3))(x)))
            x = nn.max_pool(x, (2, 2), (2, 2), padding="SAME")
        # Without the norm, most features are 0 for all images, and a few dominate the distance.
        hidden = nn.LayerNorm()(nn.Dense(self.features)(x.reshape(len(x), -1)))
        return nn.Dense(self.classes)(nn.relu(hidden)), hidden


def main() -> None:
    """Train, test and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/fashion_mnist.py", help="config whose dataset is classified")
    parser.add_argument("--output", default="runs/features.npz")
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    config = settings.from_config(settings.load(arguments.config), [])
    train, test, pixels = split_of(config, "train"), split_of(config, "test"), build.pixels(config)
    params = fit(train, pixels, arguments.epochs * len(train) // BATCH)
    Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.output, **flatten_dict(jax.tree.map(np.asarray, params), sep="/"))
    labels = test.gather(np.arange(len(test)))[1]
    logits, _ = applied(params, pixels.gray(all_images(test)))
    print(f"accuracy on the {len(test):,} test images: {np.mean(logits.argmax(1) == labels):.4f}")


def split_of(config: Settings, split: str) -> Dataset:
    """Return a split of the dataset of a config."""
    return build.dataset(with_values(config, {"data.split": split}))


def fit(train: Dataset, pixels: Pixels, steps: int) -> Any:
    """Return the parameters after training with Adam and a cosine learning rate."""
    network, optimizer = Classifier(), optax.adam(optax.cosine_decay_schedule(RATE, steps))
    params = network.init(jax.random.key(0), jnp.zeros((1, *train.image_shape)))
    moments = optimizer.init(params)

    @jax.jit
    def step(params: Any, moments: Any, x: jax.Array, labels: jax.Array) -> tuple[Any, Any, jax.Array]:
        def loss(params: Any) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(network.apply(params, x)[0], labels).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, value

    batches = training_batches(train, batch_size=BATCH, seed=0)
    for number in range(1, steps + 1):
        batch = next(batches)
        images = pixels.gray(batch["image"]) / np.float32(255)
        params, moments, value = step(params, moments, images, batch["label"])
        if number % 200 == 0 or number == steps:
            print(f"step {number:,}/{steps:,}  loss {float(value):.3f}", flush=True)
    return params


def features_of(path: str, images: np.ndarray) -> np.ndarray:
    """Return features (num, 64) of uint8 images, with the weights that `main` saved."""
    with np.load(path) as saved:
        params = unflatten_dict(dict(saved), sep="/")
    return applied(params, images)[1]


def applied(params: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and features of uint8 images."""
    apply = jax.jit(Classifier().apply)
    parts = [apply(params, images[i : i + 500] / np.float32(255)) for i in range(0, len(images), 500)]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


if __name__ == "__main__":
    main()
