"""Train, sample, evaluate or describe a score-based generative model.

score-sde-jax --config=digits --mode=train|sample|eval|info [--workdir=DIR] [--config.section.key=value ...]
python main.py --config=configs/digits.py ...   the same command, in a clone of the repository
"""

import io
import os
import re
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from logging import DEBUG, NOTSET, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from absl import app, flags, logging

from score_sde_jax.devices.environment import set_variables
from score_sde_jax.devices.signals import Stop, stopping
from score_sde_jax.devices.signals import tell as _tell
from score_sde_jax.errors import RunError, StoppedError, UserError, file_error

if TYPE_CHECKING:
    from score_sde_jax.settings import Settings

MODES = ("train", "sample", "eval", "info")
FLAGS = flags.FLAGS
FLAG_MODES: dict[str, tuple[str, ...]] = {}
"""Modes that use a flag, by its name; in another mode the flag is refused."""


def _define(define: Callable[..., object], name: str, default: object, text: str, modes: Sequence[str] = MODES) -> None:
    """Define a flag for these modes; its help names them unless all modes use it."""
    FLAG_MODES[name] = tuple(modes)
    define(name, default, text if len(modes) == len(MODES) else f"{', '.join(modes)}: {text}")


_define(
    flags.DEFINE_string,
    "config",
    None,
    "Name of a packaged config, or a file, either with :variant; by default the settings saved in --workdir. "
    "--config.section.key=value overrides a value.",
)
_define(flags.DEFINE_string, "mode", "train", f"What to do: {', '.join(MODES)}.")
_define(flags.DEFINE_string, "workdir", None, "Directory of the run, by default runs/NAME for configs/NAME.py.")
_define(
    flags.DEFINE_integer,
    "num_images",
    None,
    "number of images (sampler.num_images, eval.num_images).",
    ("sample", "eval"),
)
_define(
    flags.DEFINE_integer,
    "seed",
    None,
    "seed of the run, of the images or of the noise, by default that of the config.",
    ("train", "sample", "eval"),
)
_define(
    flags.DEFINE_string,
    "checkpoint",
    None,
    "step of the checkpoint, or best; by default the latest.",
    ("sample", "eval"),
)
_define(flags.DEFINE_string, "output", None, "directory of the images, by default WORKDIR/samples/STEP.", ("sample",))
_define(flags.DEFINE_bool, "files", False, "also write every image as a PNG file.", ("sample",))
_define(flags.DEFINE_integer, "neighbors", None, "number of nearest training images to find per image.", ("sample",))
flags.DEFINE_alias("neighbours", "neighbors")
_define(flags.DEFINE_string, "profile", "", "FIRST:LAST, the steps to trace into WORKDIR/profile.", ("train",))
_define(
    flags.DEFINE_string,
    "distributed",
    "auto",
    "Several processes: on, off, or auto (TPU, Slurm, a coordinator).",
)
_define(flags.DEFINE_string, "coordinator_address", None, "HOST:PORT of process 0, the same in every process.")
_define(flags.DEFINE_integer, "num_processes", None, "Number of processes.")
_define(flags.DEFINE_integer, "process_id", None, "Number of this process, from 0.")
_define(flags.DEFINE_bool, "debug", False, "Print the traceback of an error and the warnings of Orbax too.")


def main(argv: list[str]) -> None:
    """Run the mode that the flags ask for."""
    from score_sde_jax.devices import processes
    from score_sde_jax.runs import workdir

    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # at INFO, Orbax logs every part of every save
    getLogger(__package__).setLevel(DEBUG if FLAGS.debug else NOTSET)
    assignments = _assignments(argv[1:])
    if FLAGS.mode not in MODES:
        raise UserError(f"--mode={FLAGS.mode}: choose one of {', '.join(MODES)}")
    _check_modes()
    for name in ("workdir", "output", "config"):
        if FLAGS[name].value == "":
            raise UserError(f"--{name}=: is empty; give a value, or leave it out")
    if FLAGS.seed is not None and not 0 <= FLAGS.seed < 2**32:
        raise UserError(f"--seed={FLAGS.seed}: must be >= 0 and < 2^32")
    checkpoint = _checkpoint(FLAGS.checkpoint)
    settings, directory = _settings_with_flags(assignments)
    if FLAGS.mode != "sample" and settings.task.name != "none":
        raise UserError(f"--config.task.name={settings.task.name}: only --mode=sample has tasks, not {FLAGS.mode}")
    processes.start(FLAGS.distributed, FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id)
    say = _say if processes.is_first() else _discard
    if FLAGS.mode == "train":
        from score_sde_jax.runs.train import train

        train(settings, directory, say, FLAGS.profile)
    elif FLAGS.mode == "sample":
        from score_sde_jax.runs.sample import SampleRequest, sample

        request = SampleRequest(
            checkpoint=checkpoint,
            seed=FLAGS.seed,
            output=None if FLAGS.output is None else workdir.locate(FLAGS.output, "--output"),
            files=FLAGS.files,
            neighbors=FLAGS.neighbors,
            command=shlex.join([*_program(), *sys.argv[1:]]),
        )
        sample(settings, directory, request, say)
    elif FLAGS.mode == "eval":
        from score_sde_jax.runs.evaluate import evaluate

        evaluate(settings, directory, checkpoint, FLAGS.seed, say)
    else:
        from score_sde_jax.runs.info import info

        info(settings, directory, say)


def _check_modes() -> None:
    """Raise UserError for a flag that the mode does not use."""
    for name, modes in FLAG_MODES.items():
        if FLAGS[name].present and FLAGS.mode not in modes:
            use = "uses" if len(modes) == 1 else "use"
            raise UserError(f"--{name}: only --mode={' and '.join(modes)} {use} it, not {FLAGS.mode}")


def _settings_with_flags(assignments: list[str]) -> tuple["Settings", Path]:
    """Return the settings with overrides and flags applied, and the workdir; an error names the flag as typed."""
    keys = {}
    if FLAGS.num_images is not None:
        keys[f"{'eval' if FLAGS.mode == 'eval' else 'sampler'}.num_images"] = "num_images"
    if FLAGS.seed is not None and FLAGS.mode == "train":
        keys["seed"] = "seed"
    try:
        return _settings([*assignments, *(f"{key}={FLAGS[flag].value}" for key, flag in keys.items())])
    except UserError as error:
        message = str(error)
        for key, flag in keys.items():
            message = message.replace(f"--config.{key}=", f"--{flag}=")
        raise UserError(message) from error


def _settings(assignments: list[str]) -> tuple["Settings", Path]:
    """Return the settings of the config, by default those of the run in the workdir, and the workdir."""
    from score_sde_jax import settings
    from score_sde_jax.runs import workdir

    if FLAGS.config is not None:
        config = settings.load(FLAGS.config)
        directory = workdir.locate(FLAGS.workdir or f"runs/{settings.run_name(FLAGS.config)}")
        return settings.from_config(config, assignments), directory
    if FLAGS.workdir is None:
        raise UserError(
            "--config is missing: name a config, such as --config=digits, or a trained run by --workdir=DIR"
        )
    directory = workdir.locate(FLAGS.workdir)
    saved = workdir.saved_settings(directory, assignments)
    if saved is None:
        raise UserError(f"--workdir={FLAGS.workdir}: holds no run; name a config, such as --config=digits")
    return saved, directory


def _checkpoint(text: str | None) -> int | Literal["best"] | None:
    """Return the step of a checkpoint, "best", or None for the latest."""
    if text is None:
        return None
    if text == "best":
        return "best"
    from score_sde_jax.paths import printable

    if not re.fullmatch("[0-9]{1,12}", text):
        raise UserError(f"--checkpoint={printable(text)}: give the step of a checkpoint, or best")
    return int(text)


def _say(line: str) -> None:
    """Print a line; if the reader of standard output is gone, stop as after SIGTERM, so that a run saves its state."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  open until the process ends
        signal.raise_signal(signal.SIGTERM)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise file_error(error, "standard output") from error


def _discard(line: str) -> None:
    del line  # process 0 prints it


def _program() -> list[str]:
    """Return the words that start this program: score-sde-jax, or python main.py."""
    name = sys.argv[0]
    return ["python", name] if name.endswith(".py") else [Path(name).name]


def _parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags and leave --config.section.key=value to `_assignments`; UserError for a wrong flag."""
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(f"{__doc__}\n{FLAGS.module_help(__name__)}")
        sys.exit(0)
    try:
        return FLAGS(argv, known_only=True)
    except flags.IllegalFlagValueError as error:  # "flag --seed=abc: why"
        typed = str(error).removeprefix("flag ").partition(": ")[0]
        name = typed.removeprefix("--").partition("=")[0]
        kinds = {"int": "an integer", "bool": "True or False"}
        kind = kinds.get(FLAGS[name].flag_type() if name in FLAGS else "", "another value")
        raise UserError(f"{typed}: expected {kind}") from error
    except flags.Error as error:
        raise UserError(str(error)) from error


def _assignments(arguments: list[str]) -> list[str]:
    """Return `section.key=value` of every override; UserError for any other argument."""
    assignments, rest = [], iter(arguments)
    for argument in rest:
        path = argument.lstrip("-").removeprefix("config.")
        if not argument.startswith(("--config.", "-config.")):
            raise UserError(f"{argument}: unknown flag or argument; see {shlex.join(_program())} --help")
        if "=" not in path:
            value = next(rest, None)
            if value is None:
                raise UserError(f"{argument}: a value is missing; write {argument}=VALUE")
            path = f"{path}={value}"
        assignments.append(path)
    return assignments


def run() -> None:
    """Run the command of `sys.argv`; every error becomes one line and an exit status.

    2 is a user's mistake, 1 a fault of the machine or of this package, 128 + N a signal.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may have characters that the terminal lacks
    status = 0
    try:
        with stopping():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, Stop.SIGNALS)
            app.run(main, flags_parser=_parse_flags)
    except (UserError, RunError, StoppedError) as error:
        _print_traceback()
        _tell(f"{'' if isinstance(error, StoppedError) else 'error: '}{_one_line(str(error))}")
        status = error.status
    except KeyboardInterrupt:
        _tell("interrupted; the same command resumes from the last checkpoint")
        status = 130
    except MemoryError as error:
        _print_traceback()
        _tell(f"error: not enough memory ({_one_line(str(error))}); choose smaller batches, images or a smaller model")
        status = 1
    except OSError as error:
        _print_traceback()
        failed = file_error(error, error.filename or type(error).__name__)
        _tell(f"error: {_one_line(str(failed))}{_report()}")
        status = failed.status
    except Exception as error:
        _print_traceback()
        _tell(f"error: unexpected {type(error).__name__}: {_one_line(str(error))}; please report it{_report()}")
        status = 1
    if status:
        from score_sde_jax.devices.processes import exit_process

        exit_process(status)


def _one_line(text: str) -> str:
    """Return a message as one line that any terminal prints, cut if it is long."""
    line = " ".join(text.split("\n")).replace("\r", " ")
    line = "".join(letter if letter.isprintable() or letter == "\t" else ascii(letter)[1:-1] for letter in line)
    return line if len(line) <= 2000 else f"{line[:2000]}..."


def _print_traceback() -> None:
    """Print the traceback of the current error, if --debug is set."""
    if "--debug" in sys.argv or "--debug=true" in [argument.lower() for argument in sys.argv]:
        _tell(traceback.format_exc().rstrip())


def _report() -> str:
    """Write the traceback of the current error to a temporary file, and return a clause with its path."""
    try:
        number, path = tempfile.mkstemp(prefix="score-sde-jax-", suffix=".txt")
        with open(number, "w", errors="backslashreplace") as file:
            file.write(f"{shlex.join(sys.argv)}\n{traceback.format_exc()}")
    except OSError:
        return ""
    return f"; the traceback is in {path}"


def _open_missing_streams() -> None:
    """Open the standard streams that the caller closed, so that no file of the run gets their descriptors."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def start() -> None:
    """Run the command, on a CPU in a new process with large memory pages: the entry point of every installation."""
    _open_missing_streams()
    # `run` unblocks them: in between, an interrupt would break an import and end in a traceback.
    signal.pthread_sigmask(signal.SIG_BLOCK, Stop.SIGNALS)
    if set_variables():
        os.execv(sys.executable, sys.orig_argv)
    run()
