"""Samples of a run on the digits, and the held-out digits to compare them with."""

import numpy as np
from experiments import finished
from run_files import quiet

from score_sde_jax.data import DATASETS
from score_sde_jax.runs import pictures
from score_sde_jax.runs.sample import SampleRequest, sample

TEST = DATASETS["digits"](split="test").gather(np.arange(359))[0]


def seen(digits):
    """Digits of 17 levels as samples are stored."""
    return pictures.to_uint8((digits / np.float32(16)).astype(np.float32), (0.0, 1.0))


def archive(directory):
    with np.load(directory / "images.npz") as loaded:
        return dict(loaded)


def drawn(workdir, *assignments, request=None, lines=None):
    chosen = finished("digits", "train.steps=2", *assignments)
    return sample(chosen, workdir, request or SampleRequest(), lines.append if lines is not None else quiet)
