"""Train, sample or describe a score-based generative model.

python main.py --config=configs/digits.py --mode=train [--workdir=DIR] [--config.section.key=value ...]
"""

import os
import shlex
import sys
from pathlib import Path

from absl import app, flags, logging

from score_sde_jax.errors import UserError

MODES = ("train", "sample", "info")
FLAGS = flags.FLAGS
flags.DEFINE_string(
    "config", None, "Config file, or file:variant; --config.section.key=value overrides one of its values."
)
flags.DEFINE_string("mode", "train", f"What to do: {', '.join(MODES)}.")
flags.DEFINE_string("workdir", None, "Directory of the run; runs/NAME for configs/NAME.py where not given.")
flags.DEFINE_integer("num_images", None, "sample: how many images there shall be (sampler.num_images of the config).")
flags.DEFINE_integer("seed", None, "sample: seed of the images (seed of the config).")
flags.DEFINE_integer("checkpoint", None, "sample: step of the checkpoint (the latest).")
flags.DEFINE_string("output", None, "sample: directory for the images (WORKDIR/samples/STEP).")

flags.DEFINE_bool("files", False, "sample: also write every image as a PNG file.")


def main(argv: list[str]) -> None:
    """Run the mode that the flags ask for."""
    from score_sde_jax import build, config

    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax tells every part of every save
    assignments = _assignments(argv[1:])
    if FLAGS.mode not in MODES:
        raise UserError(f"--mode={FLAGS.mode}: choose one of {', '.join(MODES)}")
    if FLAGS.config is None:
        raise UserError("--config is missing: name a file, such as --config=configs/digits.py")
    if FLAGS.num_images is not None:
        assignments.append(f"sampler.num_images={FLAGS.num_images}")
    experiment = build.finish(config.load(FLAGS.config), assignments)
    name = Path(FLAGS.config.partition(":")[0]).stem
    workdir = Path(FLAGS.workdir or f"runs/{name}")
    if FLAGS.mode == "train":
        from score_sde_jax.train import train

        train(experiment, workdir, _say)
    elif FLAGS.mode == "sample":
        from score_sde_jax.sample import SampleRequest, sample

        request = SampleRequest(
            checkpoint=FLAGS.checkpoint,
            seed=FLAGS.seed,
            output=Path(FLAGS.output) if FLAGS.output else None,
            files=FLAGS.files,
            command=shlex.join(["python", *sys.argv]),
        )
        sample(experiment, workdir, request, _say)
    else:
        from score_sde_jax.info import info

        info(experiment, workdir, _say)


def _say(line: str) -> None:
    print(line, flush=True)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parse our flags and leave --config.section.key=value to `_assignments`; a mistake is told in one line."""
    try:
        return FLAGS(argv, known_only=True)
    except flags.Error as error:
        raise UserError(str(error)) from error


def _assignments(arguments: list[str]) -> list[str]:
    """`section.key=value` of every override; UserError for anything else that is left over."""
    found, rest = [], iter(arguments)
    for argument in rest:
        path = argument.lstrip("-").removeprefix("config.")
        if not argument.startswith(("--config.", "-config.")):
            raise UserError(f"{argument}: unknown flag or argument; see python main.py --help")
        if "=" not in path:
            value = next(rest, None)
            if value is None:
                raise UserError(f"{argument}: a value is missing; write {argument}=VALUE")
            path = f"{path}={value}"
        found.append(path)
    return found


def run() -> None:
    """Entry point: a user's mistake ends in one line and exit status 2, Ctrl-C in 130."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        app.run(main, flags_parser=_parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
