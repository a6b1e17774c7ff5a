"""Effect of every flag of main.py and of overrides on the call of the driver."""

import dataclasses
import pathlib
import shlex

import pytest
from experiments import finished
from run_files import made_up
from typed import DIGITS_HERE, ROOT

from score_sde_jax import settings
from score_sde_jax.runs import workdir

DRIVERS = {"train": "train.train", "sample": "sample.sample", "eval": "evaluate.evaluate", "info": "info.info"}


@pytest.fixture
def called(run, monkeypatch):
    """Return a function from a command line to the arguments of its driver, without settings and log function."""
    calls = []

    def driver(mode):
        def record(config, directory, *args):
            calls.append((mode, config, directory, [argument for argument in args if not callable(argument)]))
            raise SystemExit(0)

        return record

    for mode, function in DRIVERS.items():
        monkeypatch.setattr(f"score_sde_jax.runs.{function}", driver(mode))

    def called(*arguments):
        run(*arguments)
        return calls.pop()

    return called


def test_every_mode_has_its_driver_and_the_default_workdir_is_that_of_the_config(called):
    for mode in DRIVERS:
        assert called(DIGITS_HERE, f"--mode={mode}")[::2] == (mode, pathlib.Path("runs/digits-debug"))
    assert called(DIGITS_HERE)[0] == "train"
    nested = called("--config=ROOT/configs/vp/cifar10_ddpmpp.py:debug")
    assert nested[2] == pathlib.Path("runs/vp/cifar10_ddpmpp-debug")


def test_overrides_may_be_written_with_an_equals_sign_or_a_space(called):
    overrides = ["--config.train.steps", "7", "--config.sampler.corrector.name=langevin", "--config.seed=3"]
    _, config, _, args = called(DIGITS_HERE, *overrides)
    assert (config.train.steps, config.sampler.corrector.name, config.seed, args) == (7, "langevin", 3, [""])


@pytest.mark.parametrize("mode", DRIVERS)
def test_a_run_knows_its_settings(called, mode, tmp_path):
    """Without --config, the saved settings with overrides apply, whatever the config file contains now."""
    saved = finished("digits", "model.bottleneck=16", "sampler.num_images=3", "eval.draws=7")
    workdir.record(tmp_path / "run", saved, made_up((8, 8, 1)))
    where = f"--workdir={tmp_path / 'run'}", f"--mode={mode}"
    assert called(*where)[1:3] == (saved, tmp_path / "run")
    overridden = called(*where, "--config.train.steps=9", "--config.sampler.corrector.name=langevin")[1]
    assert overridden == finished(
        "digits",
        *("model.bottleneck=16", "sampler.num_images=3", "eval.draws=7"),
        *("train.steps=9", "sampler.corrector.name=langevin"),
    )


FLAGS = {  # what a flag changes in the call of each driver that has it: of the config, or of its other arguments
    "--workdir=there": {mode: pathlib.Path("there") for mode in DRIVERS},
    "--num_images=5": {"sample": {"sampler.num_images": 5}, "eval": {"eval.num_images": 5}},
    "--seed=0": {"train": {"seed": 0}, "sample": dict(seed=0), "eval": (1, 0)},
    "--seed=4": {"train": {"seed": 4}, "sample": dict(seed=4), "eval": (1, 4)},
    "--checkpoint=2": {"sample": dict(checkpoint=2), "eval": (0, 2)},
    "--checkpoint=best": {"sample": dict(checkpoint="best"), "eval": (0, "best")},
    "--output=there": {"sample": dict(output=pathlib.Path("there"))},
    "--files": {"sample": dict(files=True)},
    "--neighbors=3": {"sample": dict(neighbors=3)},
    "--neighbours=3": {"sample": dict(neighbors=3)},  # the spelling of version 0.1
    "--profile=1:2": {"train": (0, "1:2")},
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_reaches_its_drivers_and_changes_nothing_else(called, flag):
    for mode, change in FLAGS[flag].items():
        command = DIGITS_HERE, f"--mode={mode}", flag, "--config.seed=7"
        _, config, directory, args = called(*command)
        _, plain, _, plain_args = called(*(part for part in command if part != flag))
        here, there = (settings.flatten(settings.plain(each)) for each in (config, plain))
        differences = {key: value for key, value in here.items() if there[key] != value}
        of_the_settings = isinstance(change, dict) and (mode != "sample" or "." in next(iter(change)))
        assert differences == (change if of_the_settings else {})
        assert directory == (change if isinstance(change, pathlib.Path) else pathlib.Path("runs/digits-debug"))
        if mode == "sample":
            (request,), (other,) = args, plain_args
            typed = ["python", "main.py", *(part.replace("ROOT", str(ROOT)) for part in command)]
            assert shlex.split(request.command) == typed
            keys = change if isinstance(change, dict) and not of_the_settings else {}
            assert request == dataclasses.replace(other, command=request.command, **keys)
        elif isinstance(change, tuple):
            index, value = change
            assert args[index] == value != plain_args[index]
            assert args == [value if i == index else argument for i, argument in enumerate(plain_args)]
        else:
            assert args == plain_args


ALIASES = {"neighbours": "neighbors"}
PROCESSES = ("distributed", "coordinator_address", "num_processes", "process_id")
"""Flags of every mode that tests/devices/test_processes.py follows."""


def name_of(flag):
    return flag.partition("=")[0].removeprefix("--")


@pytest.mark.parametrize("mode", DRIVERS)
@pytest.mark.parametrize("flag", FLAGS)
def test_flag_in_a_mode_that_does_not_use_it_is_refused(run, called, flag, mode):
    if mode in FLAGS[flag]:
        assert called(DIGITS_HERE, f"--mode={mode}", flag)[0] == mode
        return
    code, err, out = run(DIGITS_HERE, f"--mode={mode}", flag)
    modes, name = " and ".join(FLAGS[flag]), name_of(flag)
    assert (code, out) == (2, "")
    use = "use" if " and " in modes else "uses"
    assert err == f"error: --{ALIASES.get(name, name)}: only --mode={modes} {use} it, not {mode}\n"


def test_flag_at_its_default_is_refused_too(run):
    code, err, _ = run(DIGITS_HERE, "--mode=info", "--nofiles")
    assert code == 2 and err == "error: --files: only --mode=sample uses it, not info\n"


def test_every_flag_has_its_modes():
    from absl import flags

    from score_sde_jax import cli

    ours = {flag.name for flag in flags.FLAGS.get_flags_for_module(cli)}
    known = {ALIASES.get(name_of(flag), name_of(flag)): set(modes) for flag, modes in FLAGS.items()}
    known |= {name: set(DRIVERS) for name in ("config", "mode", "debug", *PROCESSES)}
    assert ours - set(ALIASES) == set(known)
    assert {name: set(modes) for name, modes in cli.FLAG_MODES.items()} == known
    for name, modes in cli.FLAG_MODES.items():
        prefix = ", ".join(modes) + ": "
        assert flags.FLAGS[name].help.startswith(prefix) == (len(modes) < len(DRIVERS))


def test_a_command_to_repeat_survives_spaces(called):
    (request,) = called(DIGITS_HERE, "--mode=sample", "--workdir=my runs/one")[3]
    assert shlex.split(request.command)[-1] == "--workdir=my runs/one"
