"""Share of a training run's time that is spent in the compiled step.

    python benchmarks/step_share.py --config=configs/digits.py --config.train.steps=600

Prints seconds per step of a run and of the compiled step alone, and their ratio. The run is that of
`main.py --mode=train` in a temporary directory, from the first step to the last, with the config's data, log and
checkpoints. The compiled step is timed alone before and after, on one batch that stays in memory.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from score_sde_jax import keys as prng
from score_sde_jax import settings
from score_sde_jax.data import training_batches
from score_sde_jax.errors import UserError
from score_sde_jax.runs import build
from score_sde_jax.runs.train import train


def main() -> None:
    """Print seconds per step in the run and alone, and the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--calls", type=int, default=50, help="calls of the step alone, before and after the run")
    arguments, overrides = parser.parse_known_args()
    assignments = [override.removeprefix("--config.") for override in overrides]
    try:
        config = settings.from_config(settings.load(arguments.config), [*assignments, "train.preview_every=0"])
        before = seconds_alone(config, arguments.calls)
        whole = seconds_in_run(config)
        alone = (before + seconds_alone(config, arguments.calls)) / 2
    except UserError as error:
        parser.error(str(error))
    print(f"a step of the run: {whole:.4g} s\na step alone: {alone:.4g} s\nshare: {alone / whole:.3f}")


def seconds_in_run(config: Any) -> float:
    """Return the seconds per step from the end of compilation to the end of the last step."""
    times: dict[str, float] = {}

    def say(line: str) -> None:
        print(line, flush=True)
        times.setdefault(line.lower().split()[0], time.perf_counter())

    with tempfile.TemporaryDirectory() as directory:
        train(config, Path(directory), say)
    return (times["sampling"] - times["compiled"]) / config.train.steps


def seconds_alone(config: Any, calls: int) -> float:
    """Return the mean seconds of a call of the compiled step."""
    data, parallel, key = build.dataset(config), config.parallel(), prng.root(config.seed, "train")
    config, _ = settings.resolve(config, data)
    experiment = build.experiment(config, data.image_shape)
    batches = training_batches(data, batch_size=config.train.batch_size, seed=0)
    batch = parallel.shard(jax.tree.map(lambda rows: rows[None], dict(next(batches))))
    del batches  # ends its threads
    state = parallel.init(experiment.init, key)
    step, flags = parallel.compiled(experiment.steps, state, batch, key), parallel.flags(False)
    state, *_ = jax.block_until_ready(step(state, batch, key, flags))
    began = time.perf_counter()
    for _ in range(calls):
        state, metrics, _ = step(state, batch, key, flags)
        jax.block_until_ready(metrics)
    return (time.perf_counter() - began) / calls


if __name__ == "__main__":
    main()
