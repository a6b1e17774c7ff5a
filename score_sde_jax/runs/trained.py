"""A trained run as Python objects."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxtyping import Array, Int, PyTree

from score_sde_jax.diffusion.parameterization import NoiseFn
from score_sde_jax.errors import UserError
from score_sde_jax.runs import build, workdir
from score_sde_jax.runs.experiment import Experiment, abstract_average, average_of
from score_sde_jax.settings import Settings
from score_sde_jax.settings.sections import EMA


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A checkpoint of a run with the objects that its settings describe.

    Attributes:
        settings: settings of the run.
        experiment: SDE, network, parameterization and sampler.
        params: one average of the parameters.
        step: training step of the checkpoint.
    """

    settings: Settings
    experiment: Experiment
    params: PyTree
    step: int

    def noise_fn(self, label: Int[Array, " batch"] | None = None) -> NoiseFn:
        """Return the noise prediction (x, t) -> eps_hat of the trained network.

        Args:
            label: class of each image; None for the unconditional prediction.
        """
        return self.experiment.noise_fn(self.params, label)


def load_run(directory: Path | str, checkpoint: int | Literal["best"] | None = None, average: str = EMA) -> TrainedRun:
    """Load a trained run from its workdir.

    Args:
        directory: workdir of the run; a path or a gs:// address.
        checkpoint: step of the checkpoint, or "best"; None for the latest.
        average: average of the parameters: "ema", or a name of `train.averages`.

    Raises:
        UserError: there is no run, or it has no such checkpoint or average.
    """
    folder = workdir.locate(str(directory))
    settings = workdir.saved_settings(folder)
    if settings is None:
        raise UserError(f"directory={str(directory)!r}: holds no run; train first, with --mode=train")
    if average not in (names := (EMA, *settings.train.averages)):
        raise UserError(f"average={average!r}: must be one of {', '.join(names)}")
    settings, image_shape = workdir.adopt_run(folder, settings)
    experiment = build.experiment(settings, image_shape)
    step, state = workdir.restore(folder, checkpoint, abstract_average(experiment, settings.parallel(), average))
    return TrainedRun(settings=settings, experiment=experiment, params=average_of(state, average), step=step)
