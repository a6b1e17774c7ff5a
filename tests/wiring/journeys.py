"""Runs of the drivers without compilation, and their traces: programs, calls, values and files."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dry import fingerprint, ramps, recorded
from experiments import finished
from run_files import quiet, timeless

from score_sde_jax.condition import Condition
from score_sde_jax.runs import build
from score_sde_jax.runs import workdir as directories
from score_sde_jax.runs.evaluate import evaluate
from score_sde_jax.runs.reporting import read_metrics
from score_sde_jax.runs.sample import SampleRequest, sample
from score_sde_jax.runs.train import _Run, train

AFTER_TRAINING = ("sampler.", "task.", "eval.")
"""Sections that a trained run does not depend on."""


class Unsaved:
    """Checkpoints without files."""

    def __init__(self, *args):
        pass

    def steps(self):
        return []

    def save(self, step, state, **more):
        pass

    def restore_latest(self, abstract, optimizer=None):
        return None

    def close(self):
        pass


def restore(workdir, checkpoint, abstract):
    """Return averages that depend on the seed alone, instead of those of a checkpoint."""
    start = directories.saved_config(workdir)["seed"]
    return 1, ramps(abstract, start + 0.5 * ("averages" in abstract))


class Journeys:
    """Trains, samples and evaluates once per set of overrides; `places` are the paths that they may name."""

    def __init__(self, root, places):
        self.root, self.places, self.known, self.runs = root, places, {}, {}
        self.finished = functools.cache(finished)

    def config(self, name, assignments):
        return self.finished(name, *(assignment.format_map(self.places) for assignment in assignments))

    def observe(self, mode, name, assignments):
        """Return the observable results of a mode with these assignments, computed once."""
        asked = mode, name, tuple(assignments)
        if asked not in self.known:
            self.known[asked] = getattr(self, f"_{mode}")(name, asked[2])
        return self.known[asked]

    def workdir(self, name, assignments):
        """Return the files of a run with these assignments, with the files that follow training apart."""
        before = tuple(text for text in assignments if not text.startswith(AFTER_TRAINING))
        if before not in self.runs:
            config, workdir = self.config(name, before), self.root / f"run{len(self.runs)}"
            directories.record(workdir, config, build.dataset(config))
            self.runs[before] = workdir
        return self.runs[before]

    def _save(self, name, assignments):
        """Train, and return the files."""
        workdir = self.root / f"trained{len(self.known)}"
        with recorded() as seen, pytest.MonkeyPatch.context() as patch:
            patch.setattr(_Run, "_final_set", lambda *args: None)  # sampling has a mode of its own
            train(self.config(name, assignments), workdir, quiet)
        names = sorted(path.relative_to(workdir).as_posix() for path in workdir.glob("*"))
        steps = sorted(path.relative_to(workdir).as_posix() for path in workdir.glob("*/[0-9]*"))
        rows = [timeless(row) for row in read_metrics(workdir / "metrics.jsonl")]
        return seen.programs, seen.calls, names, steps, rows

    def _train(self, name, assignments):
        """Train without checkpoints, which take half of the time."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("score_sde_jax.runs.train.Checkpoints", Unsaved)
            return self._save(name, assignments)

    def _sample(self, name, assignments):
        workdir, output = self.workdir(name, assignments), self.root / f"samples{len(self.known)}"
        with recorded() as seen, pytest.MonkeyPatch.context() as patch:
            patch.setattr(directories, "restore", restore)
            sample(self.config(name, assignments), workdir, SampleRequest(output=output), quiet)
        with np.load(next(output.glob("*.npz"))) as archive:
            arrays = fingerprint(dict(archive))
        return seen.programs, seen.calls, arrays, sorted(path.name for path in output.iterdir())

    def _eval(self, name, assignments):
        workdir = self.workdir(name, assignments)
        shutil.rmtree(workdir / "eval", ignore_errors=True)
        with recorded() as seen, pytest.MonkeyPatch.context() as patch:
            patch.setattr(directories, "restore", restore)
            output = evaluate(self.config(name, assignments), workdir, say=quiet)
        results = json.loads((output / "metrics.json").read_text())
        return seen.programs, seen.calls, results, sorted(path.name for path in output.iterdir())

    def _network(self, name, assignments):
        """Return the initial parameters of the network and its outputs in training."""
        config = self.config(name, assignments)
        network = build.experiment(config, (8, 8, 1)).network
        keys, x = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 8, 8, 1))
        conditions = {"level_index": jnp.zeros(2, jnp.int32), "none": None}
        condition = conditions.get(config.parameterization.condition.name, jnp.zeros(2))
        more = {"dropout_keys": keys} if config.model.get("dropout") else {}
        with recorded() as seen:
            seen.trace(lambda x: network.init_with_output(keys[0], x, Condition(condition), train=True, **more), x)
        return seen.programs
