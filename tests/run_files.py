"""Files, log lines, images and state of a run, for tests."""

import json

import jax
import numpy as np

from score_sde_jax.data.dataset import ArrayDataset
from score_sde_jax.devices.parallel import Jit
from score_sde_jax.runs import build
from score_sde_jax.runs.checkpoint import Checkpoints

TIMES = {"images_per_second", "images_per_second_per_device", "seconds_data", "seconds_compute", "seconds_save"}
TIMES |= {"process_peak_memory_bytes"}


def quiet(line):
    pass


def contents(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def timeless(row):
    """A line of metrics.jsonl without what depends on the clock or the machine."""
    return {key: value for key, value in row.items() if key not in TIMES}


def arrays(directory):
    """All arrays of a set of samples, in the order of its shards."""
    shards = []
    for path in sorted(directory.glob("[ip]*s*.npz"), key=lambda path: (len(path.name), path.name)):
        with np.load(path) as archive:
            shards.append(dict(archive))
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}


def images(directory):
    """Return the samples of a set without further arrays."""
    (samples,) = arrays(directory).values()
    return samples


def made_up(shape, num=8):
    """Images for the record of a run."""
    return ArrayDataset("made up", np.zeros((num, *shape), np.uint8), None)


def restored(workdir, config, step):
    """The whole training state."""
    shape = tuple(json.loads((workdir / "config.json").read_text())["image_shape"])
    abstract = Jit().abstract(build.experiment(config, shape).init, jax.random.key(0))
    return Checkpoints(workdir / "checkpoints").restore(step, abstract)
