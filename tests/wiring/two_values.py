"""Every key of the schema with a config in which it has an effect and another value, or the reason why it has none.

A key's id is the path of its section, the choice that owns it, and its name: "sde=ve.sigma_max", "train.ema_decay".
"""

import typing
from typing import Any

from score_sde_jax.settings.reading import section_types, value_types
from score_sde_jax.tasks.masks import MASKS

TRAIN, SAVE, SAMPLE, EVAL, NETWORK = "train", "save", "sample", "eval", "network"

TINY = (  # the debug variant of configs/digits.py, with every kind of step and the fastest network
    "model.name=mlp model.width=4 model.depth=1 parameterization.condition.name=log_sigma loss.times.name=uniform "
    "train.steps=2 train.batch_size=4 train.preview_every=0 checkpoint.every=2 "
    "sampler.times.name=uniform sampler.times.num_steps=2 sampler.predictor.name=ancestral "
    "sampler.corrector.name=langevin sampler.num_images=4 sampler.batch_size=4 sampler.num_frames=2 "
    "eval.split=train eval.num_images=4 eval.batch_size=4 eval.draws=2"
)

CLASSIFIER = "digits_classifier"
TINY_CLASSIFIER = (
    "model.base=8 model.multiplier=1 model.blocks_per_group=1 train.steps=2 train.batch_size=4 train.preview_every=0 "
    "checkpoint.every=2 eval.num_images=4 eval.batch_size=4 eval.draws=2"
)

# In which modes a key must show, by the longest start of its id. SAVE is training with its checkpoints on disk, NETWORK
# the network alone. (Training draws as --mode=sample does: test_by_hand.py.)
ACTS = {
    "": (TRAIN, SAMPLE, EVAL),
    "data": (TRAIN,),
    "data.value_range": (TRAIN, SAMPLE, EVAL),
    "data.dequantize": (TRAIN, SAMPLE, EVAL),
    "data=points.seed": (TRAIN, EVAL),
    "model": (NETWORK,),
    "model=mlp": (TRAIN, SAMPLE, EVAL),
    "sde": (TRAIN, SAMPLE, EVAL),
    "parameterization": (TRAIN, SAMPLE, EVAL),
    "loss": (TRAIN, EVAL),
    "optimizer": (TRAIN,),
    "train": (TRAIN,),
    "parallel": (TRAIN,),
    "checkpoint": (SAVE,),
    "sampler": (SAMPLE,),
    "task": (SAMPLE,),
    "eval": (EVAL,),
}

LADDER = "parameterization.condition.name=level_index loss.times.name=ladder "
LEVELS = LADDER + "loss.times.num_levels=3 parameterization.condition.num_levels=3 sampler.times.num_steps=2"
UNET = " model.width=4 model.multipliers=(1,1) model.num_blocks=1 model.attention=(8,)"
POINTS = "data.name=points data.num_points=50 data.value_range=none parameterization.center=0.0"
REFINENET = " model.width=4 parameterization.condition.name=none"
SMALL_UNET = "model.name=small_unet model.widths=(8,) model.num_blocks=1 model.bottleneck=4"
TWO_AVERAGES = "train.averages={{'slow':0.5}}"
IN_COLOR = "data.name=npz data.dir={color} "

CONTEXTS = {  # overrides with which a key or choice has an effect, besides TINY, by the longest prefix of its id
    "": "",
    "data=mnist": "data.name=mnist data.dir={tfds}",
    "data=fashion_mnist": "data.name=fashion_mnist data.dir={tfds}",
    "data=cifar10": "data.name=cifar10 data.dir={tfds}",
    "data=celeb_a": "data.name=celeb_a data.dir={tfds} data.image_size=8",
    "data=earth": "data.name=earth data.dir={earth} data.num_images=40 data.image_size=16",
    "data=image_folder": "data.name=image_folder data.dir={folder} data.image_size=8",
    "data=npz": IN_COLOR,
    "data=points": POINTS + " eval.split=none",
    "model=ncsn": LEVELS + " model.name=ncsn model.width=4 model.num_levels=3",
    "model=ncsnv2": "model.name=ncsnv2" + REFINENET,
    "model=ddpm": "parameterization.condition.name=scaled_time model.name=ddpm" + UNET,
    "model=ncsnpp": "model.name=ncsnpp" + UNET,
    "model=mlp": "",
    "model=wide_resnet": "",
    "model=small_unet": SMALL_UNET,
    "sde=ve": "",
    "sde=vp": "sde.name=vp",
    "sde=subvp": "sde.name=subvp",
    "sde=edm": "sde.name=edm",
    "sde=ddpm": "sde.name=ddpm sde.num_levels=5",
    "parameterization.condition=level_index": LEVELS,
    "parameterization.condition=scaled_time": "parameterization.condition.name=scaled_time",
    "loss=sliced": "loss.name=sliced",
    "loss=classification": "",
    "loss.times=ladder": "loss.times.name=ladder",
    "loss.times=log_normal": "sde.name=edm loss.times.name=log_normal",
    "loss.weight=likelihood_importance": "loss.times.name=importance loss.weight.name=likelihood_importance",
    "loss.weight=edm": "loss.weight.name=edm",
    "train.steps_per_call": "train.log_every=2",
    "train.precision": SMALL_UNET,
    "sampler.precision": SMALL_UNET,
    "train.label_dropout": SMALL_UNET + " model.num_classes=10",
    "parallel=jit": "model.width=32",  # smaller leaves stay whole
    "checkpoint.every": "checkpoint.every=1",
    "checkpoint.keep": "checkpoint.every=1",
    "checkpoint.keep_every": "checkpoint.every=1 checkpoint.keep=1 train.steps=3",
    "sampler.times=ladder": "sampler.times.name=ladder",
    "sampler.times=karras": "sampler.times.name=karras sampler.times.num_steps=2 sde.t_min=0.1",
    "sampler.times=log_snr": "sampler.times.name=log_snr sampler.times.num_steps=2",
    "sampler.predictor=reverse_diffusion": "sampler.predictor.name=reverse_diffusion",
    "sampler.predictor=dormand_prince": "sampler.predictor.name=dormand_prince",
    "sampler.corrector=annealed_langevin": "sampler.corrector.name=annealed_langevin sampler.corrector.num_steps=2",
    "task=inpainting": "task.name=inpainting",
    "task=colorization": IN_COLOR + "task.name=colorization",
    "task=super_resolution": "task.name=super_resolution",
    "task=class_conditional": "task.name=class_conditional task.classifier={classifier}",
    "task=interpolation": "task.name=interpolation task.num_between=1",
    "task=reconstruction": "task.name=reconstruction",
    "eval": "eval.bits_per_dim=true",
    "eval.dir": IN_COLOR + "eval.split=none",
    "eval.average": TWO_AVERAGES,
    "sampler.average": TWO_AVERAGES,
}

FOURIER = "model.embedding=fourier parameterization.condition.name=log_sigma"
POSITIONAL = "model.embedding=positional parameterization.condition.name=scaled_time"
UNCONDITIONAL = "model.embedding=none parameterization.condition.name=none"
SKIPS = "model.progressive_input=skip "

OTHERS = {  # values to compare with that of the context, by the end of a key's id; more assignments may go with one
    "data.value_range": ["(-1.0,1.0)", "(0.0,2.0)"],
    "split": ["test"],
    "npz.dir": ["{other_color}"],
    "earth.dir": ["{other_earth}"],
    "earth.image_size": ["32"],
    "earth.num_images": ["4"],
    "image_folder.dir": ["{other_folder}"],
    "eval.dir": ["{other_color}"],
    "celeb_a.image_size": ["16"],
    "image_folder.image_size": ["16"],
    "channels": ["1"],
    "crop": ["100"],
    "distribution": ["gaussians"],
    "ncsn.num_levels": ["4 loss.times.num_levels=4 parameterization.condition.num_levels=4"],
    "level_index.num_levels": ["4 loss.times.num_levels=4"],
    "multipliers": ["(1,2)"],
    "attention": ["()", "(4,)"],
    "widths": ["(16,)", "(8,8)"],
    "patch": ["1"],
    "dropout": ["0.3", "0.0"],
    "ncsnpp.embedding": ["positional " + POSITIONAL, "none " + UNCONDITIONAL],
    "wide_resnet.embedding": ["fourier"],
    "wide_resnet.base": ["16"],
    "ncsnpp.width": ["8"],
    "combine": [f"sum {SKIPS}", f"cat {SKIPS}"],
    "fourier_scale": [f"8.0 {FOURIER}", f"4.0 {FOURIER}"],
    "gradient_clip": ["0.5"],
    "weight_decay": ["0.1"],
    "ema_decay": ["0.5"],
    "averages": ["{{'slow':0.5}}", "{{'slow':0.75}}"],
    "average": ["slow"],
    "preview_every": ["1"],
    "microbatches": ["2"],
    "batch_size": ["8"],
    "train.steps": ["4"],
    "steps_per_call": ["2"],
    "precision": ["bfloat16"],
    "rng": ["philox4x32"],
    "checkpoint.every": ["2"],
    "checkpoint.keep": ["1"],
    "keep_every": ["2"],
    "t_end": ["0.1"],
    "karras.rho": ["3.0"],
    "sampler.num_images": ["8"],
    "source": ["{image}"],
    "mask": [mask for mask in MASKS if mask != "right"] + ["{mask}"],
    "factor": ["4"],
    "task=class_conditional.classifier": ["{other_classifier}"],
    "label": ["3"],
    "num_between": ["2"],
    "eval.split": ["test"],
    "num_frames": ["1"],
    "eval.t_min": ["0.1"],
    "vp.t_min": ["1e-3"],
    "ve.t_min": ["0.1"],
    "ddpm.t_min": ["0.1"],
    "beta_min": ["0.2"],
    "ddpm.beta_min": ["2e-4"],
    "center": ["0.2"],
}

REFUSED = {  # fixed by the files: another value is refused, and the message names the key
    f"data={name}.{key}"
    for name, keys in {
        "digits": ("image_size", "channels"),
        "mnist": ("image_size", "channels"),
        "fashion_mnist": ("image_size", "channels"),
        "cifar10": ("image_size", "channels"),
        "npz": ("image_size", "channels"),
        "earth": ("channels",),
    }.items()
    for key in keys
} | {f"data={name}.dir" for name in ("mnist", "fashion_mnist", "cifar10", "celeb_a")}

SAME_CODE = {"ddpm": "ncsnpp", "ddpmpp": "ncsnpp", "ncsnv2_deeper": "ncsnv2", "ncsnv2_deepest": "ncsnv2"}
"""Networks that differ from another one only in their defaults; its keys are tested instead."""

REASONS = {  # keys of which no value can be seen in what a run computes and leaves
    "train.flat": "speed alone: tests/runs/test_flat.py trains with and without",
    "data=celeb_a.cache_bytes": "memory and speed alone: tests/data reads the same images with and without it",
    "data=image_folder.max_value": "images of more than 8 bits: tests/data/test_image_folder.py scales some",
    "data=image_folder.max_unreadable": "damaged files: tests/data/test_image_folder.py has some",
    "data=image_folder.cache_bytes": "memory and speed alone: tests/data reads the same images with and without it",
    "train.max_skipped": "acts on updates that are not finite alone: tests/runs/test_faults.py poisons some",
}


def keys() -> dict[str, Any]:
    """Return the annotation of every key, by its id."""
    kinds: dict[str, Any] = {}
    for path, section, registry in section_types():
        kinds |= {f"{path}.{key}".lstrip("."): kind for key, kind in value_types(section).items() if key != "name"}
        for name in registry.registry if registry else ():
            picked = registry.pick(section, name, path)
            kinds |= {f"{path}={name}.{key}": kind for key, kind in value_types(picked).items() if key in picked.own}
    return kinds


def registries() -> dict[str, Any]:
    """Return the registry of every section that has one, by its path."""
    return {path: mark.registry for path, _, mark in section_types() if mark}


def by_start(table: dict[str, Any], key: str) -> Any:
    """Return the entry whose name is the longest prefix of a key's id."""
    return table[max(filter(key.startswith, table), key=len)]


def by_end(table: dict[str, Any], key: str) -> Any:
    """Return the entry whose name is the longest suffix of a key's id; None if there is none."""
    return table.get(max(filter(key.endswith, table), key=len, default=None))


def path_of(key: str) -> str:
    """Return the flag of a key: "sde.sigma_max" for "sde=ve.sigma_max"."""
    section, _, name = key.rpartition(".")
    return f"{section.partition('=')[0]}.{name}".lstrip(".")


def context(key: str) -> tuple[str, ...]:
    """Return the overrides with which a key, or a choice, has an effect."""
    return _tiny(key, by_start(CONTEXTS, key).split())


def of_choice(path: str, name: str) -> tuple[str, ...]:
    """Return the overrides that pick an entry of a registry, with the other keys that it needs."""
    choice = f"{path}={name}"
    return context(choice) if choice in CONTEXTS else _tiny(choice, [f"{path}.name={name}"])


def _tiny(key: str, more: list[str]) -> tuple[str, ...]:
    """Add the tiny values of the sections that the overrides do not set."""
    picked = [text.partition(".name=")[0] for text in more if ".name=" in text]
    tiny = (TINY_CLASSIFIER if config_of(key) == CLASSIFIER else TINY).split()
    return (*(text for text in tiny if text.partition("=")[0].rpartition(".")[0] not in picked), *more)


def config_of(key: str) -> str:
    """Return the config file of the overrides."""
    return CLASSIFIER if key.startswith(("model=wide_resnet", "loss=classification")) else "digits"


def other_values(key: str, annotation: Any, value: Any) -> list[tuple[str, ...]]:
    """Return the overrides that set each of the other values of a key."""
    given = by_end(OTHERS, key)
    if given is None:
        given = [str(other) for other in _others(key, annotation, value)]
    path = path_of(key)
    return [(f"{path}={value}", *more) for value, *more in map(str.split, given)]


def _others(key: str, annotation: Any, value: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        return [choice for choice in typing.get_args(annotation) if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    assert isinstance(value, float), f"{key}={value!r}: give another value in OTHERS"
    return [0.75 * value]
