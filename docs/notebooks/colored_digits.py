"""Handwritten digits of 8 x 8 pixels in random colors: data, config and one trained run for the notebooks."""

import colorsys
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from score_sde_jax import DATASETS, settings
from score_sde_jax.runs.train import train
from score_sde_jax.runs.trained import TrainedRun, load_run

FOLDER = Path(__file__).parent.parent / "_build" / "colored_digits"


def colored_digits(split: str, copies: int, seed: int) -> tuple[UInt8[np.ndarray, "num 8 8 3"], np.ndarray]:
    """Return images and labels: every digit of a split in `copies` random hues on black."""
    digits = DATASETS["digits"](split=split)
    gray, labels = digits.gather(np.tile(np.arange(len(digits)), copies))
    hues = np.random.default_rng(seed).random(len(gray))
    colors = np.array([colorsys.hsv_to_rgb(hue, 0.75, 1.0) for hue in hues])
    images = gray / (digits.levels - 1) * colors[:, None, None, :]
    return np.round(255 * images).astype(np.uint8), labels


def get_config(variant: str = "") -> ConfigDict:
    """Return a config of EDM's noise and preconditioning with the small U-Net, conditioned on the class."""
    del variant
    return ConfigDict(
        dict(
            seed=0,
            data=dict(name="npz", dir=str(FOLDER / "train.npz")),
            model=dict(name="small_unet", widths=(64,), num_blocks=2, num_classes=10),
            sde=dict(name="edm", t_min=0.01, t_max=10.0),
            parameterization=dict(name="edm", center=0.2, sigma_data=0.3, condition=dict(name="log_sigma")),
            loss=dict(times=dict(name="importance"), weight=dict(name="edm", sigma_data=0.3)),
            optimizer=dict(name="adam", learning_rate=2e-3, decay="cosine"),
            train=dict(steps=1500, batch_size=128, ema_decay=0.998, log_every=500),
            sampler=dict(
                times=dict(name="karras", num_steps=18),
                predictor=dict(name="heun"),
                corrector=dict(name="none"),
                num_images=100,
                batch_size=100,
            ),
        )
    )


def trained_run() -> TrainedRun:
    """Train the network in `FOLDER`, unless it is trained, and load it."""
    if not (FOLDER / "train.npz").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        images, labels = colored_digits("train", copies=4, seed=0)
        np.savez(FOLDER / "train.npz", images=images, labels=labels)
    train(settings.from_config(get_config()), FOLDER / "run")
    return load_run(FOLDER / "run")


def show(rows: Mapping[str, Float[np.ndarray, "num height width channels"]]) -> None:
    """Plot one row of images in [0, 1] for each title."""
    columns = max(map(len, rows.values()))
    figure, axes = plt.subplots(len(rows), 1, figsize=(0.55 * columns + 2, 0.62 * len(rows)), squeeze=False)
    for axis, (title, images) in zip(axes[:, 0], rows.items(), strict=True):
        strip = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=1)
        axis.imshow(np.concatenate(strip.clip(0, 1), axis=1), interpolation="nearest")
        axis.set_axis_off()
        axis.text(-1, 4, title, ha="right", va="center", fontsize="small")
    figure.subplots_adjust(left=2 / (0.55 * columns + 2), right=1, top=1, bottom=0, hspace=0.08)
