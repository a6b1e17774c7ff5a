"""The info driver: size, cost and noise levels of a config, computed from shapes."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from score_sde_jax.data import dataset_spec
from score_sde_jax.devices.machine import num_devices
from score_sde_jax.devices.parallel import bytes_per_device
from score_sde_jax.errors import UserError
from score_sde_jax.networks import trainable
from score_sde_jax.networks.convolution import native_convolutions
from score_sde_jax.runs import build, workdir
from score_sde_jax.runs.experiment import Experiment, training_cost
from score_sde_jax.runs.reporting import Say
from score_sde_jax.samplers import Sampler
from score_sde_jax.settings import Settings, adopt, automatic, resolve
from score_sde_jax.settings.sections import Train

MIB = 2**20
DEVICE_COUNTS = (1, 2, 4, 8, 64)


def info(settings: Settings, directory: Path, say: Say = print) -> None:
    """Print parameters, FLOPs, memory, noise levels, step sizes, NFE and the length of the run.

    Args:
        settings: settings of the run.
        directory: workdir, whose run replaces values "auto".
        say: takes the log lines.

    Raises:
        UserError: a value "auto" or the image shape needs data that are missing.
    """
    saved = workdir.saved_config(directory)
    if saved is not None:
        settings = adopt(settings, saved)
    settings, image_shape, length = _look_at_data(settings, tuple(saved[workdir.IMAGE_SHAPE]) if saved else None, say)
    experiment, options = build.experiment(settings, image_shape), settings.train
    for line in experiment.notes():
        say(line)
    with native_convolutions():
        state = jax.eval_shape(experiment.init, jax.random.key(0))
    learned = jax.tree.map(lambda leaf, trained: leaf.size * trained, state.params, trainable(state.params))
    number = sum(jax.tree.leaves(learned))
    say(f"parameters: {number}")
    if fixed := sum(leaf.size for leaf in jax.tree.leaves(state.params)) - number:
        say(f"fixed random parameters: {fixed}")
    _say_cost(experiment, state, options, say)
    if experiment.sampler:
        _say_noise(experiment, experiment.sampler, say)
    epochs = f"{options.steps * options.batch_size / length:,.4g}" if length else "an unknown number of"
    say(f"run: {options.steps:,} steps of {options.batch_size} images, {epochs} epochs")


def _look_at_data(
    settings: Settings, trained_on: tuple[int, ...] | None, say: Say
) -> tuple[Settings, tuple[int, ...], int | None]:
    """Return settings without "auto", and the shape and number of the images.

    If the data are missing and no value is "auto", the number of images is the published one. Their shape is then that
    of the options, or that of the run in the workdir (`trained_on`).
    """
    section = settings.data
    shape = dataset_spec(section.name).shape(section.get("image_size"), section.get("channels")) or trained_on
    try:
        data = settings.data()
    except UserError as error:
        if shape is None or automatic(settings):
            raise
        length = dataset_spec(section.name).length(section.get("split"))
        number = f"{length:,} images as published" if length else "number unknown"
        say(f"data: {section.name} of shape {shape}, {number}; {error}")
        return settings, shape, length
    build.check_classes(settings, data)
    settings, lines = resolve(settings, data)
    for line in [*lines, *data.lines()]:
        say(line)
    return settings, data.image_shape, len(data)


def _say_cost(experiment: Experiment, state: PyTree, options: Train, say: Say) -> None:
    devices = num_devices()
    batch = max(1, options.batch_size // (devices * options.microbatches))
    cost = training_cost(experiment, state.params, batch)
    what = "matrix products and convolutions, forward and backward"
    if options.rematerialize:
        what += ", with the recomputed activations"
    say(f"FLOPs per training image: {cost.flops / batch:.4g} ({what})")
    activations = cost.residual_bytes
    held = bytes_per_device(state, 1, False)
    # the optimizer holds the gradient and the state at the same time
    gradient = bytes_per_device(state.params, 1, False)
    say(
        f"memory per device, {batch} images at once on each of {devices}: state {held / MIB:,.0f} MiB, "
        f"gradient {gradient / MIB:,.0f} MiB, activations {activations / MIB:,.0f} MiB at most, "
        f"total {(held + gradient + activations) / MIB:,.0f} MiB (estimate)"
    )
    say("memory of state and gradient per device, in MiB, by section parallel and number of devices:")
    say(f"  {'':24}" + "".join(f"{number:>9}" for number in DEVICE_COUNTS))
    for name, split in {"jit or pmap": False, "jit, fully_sharded=True": True}.items():
        sizes = [
            sum(bytes_per_device(tree, number, split) for tree in (state, state.params)) for number in DEVICE_COUNTS
        ]
        say(f"  {name:24}" + "".join(f"{size / MIB:>9,.1f}" for size in sizes))


def _say_noise(experiment: Experiment, sampler: Sampler, say: Say) -> None:
    sde, times = experiment.sde, sampler.times
    sigmas = np.asarray(jax.vmap(sde.sigma)(times[:-1]))
    shown = [f"{sigma:.4g}" for sigma in (sigmas if len(sigmas) <= 12 else [*sigmas[:4], *sigmas[-4:]])]
    if len(sigmas) > 12:
        shown.insert(4, "...")
    say(f"noise levels visited by the sampler: {len(sigmas)}, sigma = {', '.join(shown)}")
    steps = experiment.step_sizes(sigmas)
    if steps is not None:
        say(f"Langevin step sizes: {steps[0]:.4g} at the first level to {steps[-1]:.4g} at the last")
    evaluations = sampler.nfe()
    say(f"network evaluations per image (NFE): {'adaptive' if evaluations is None else evaluations}")
