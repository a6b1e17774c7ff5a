"""Samples of a run on the digits, and the held-out digits to compare them with."""

import numpy as np
from experiments import smallest
from run_files import arrays, quiet

from score_sde_jax.data import DATASETS
from score_sde_jax.runs.sample import SampleRequest, sample

TEST = DATASETS["digits"](split="test").gather(np.arange(359))[0]


def as_stored(digits):
    """Return digits of 17 levels as stored samples have them."""
    return np.round(255 * np.arange(17) / 16).astype(np.uint8)[digits]


def archive(directory):
    """Return the arrays of a set of samples."""
    return arrays(directory)


def drawn(workdir, *assignments, request=None, lines=None):
    """Sample from a run on the digits and return the directory of the samples."""
    config = smallest("train.steps=2", *assignments)
    return sample(config, workdir, request or SampleRequest(), lines.append if lines is not None else quiet)
