"""The directory of a run: its resolved config, and the refusal to mix two different runs in it."""

import json
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from score_sde_jax.config import AUTO, differences, to_json
from score_sde_jax.errors import UserError
from score_sde_jax.reporting import write_atomically

IDENTITY = ("data", "model", "sde", "parameterization")
"""Sections that make a checkpoint what it is; a run cannot go on with others."""
IMAGE_SHAPE = "image_shape"
"""Key of config.json that the data decide, so that sampling needs no data."""


def saved_config(workdir: Path) -> dict[str, Any] | None:
    """The resolved config of the run in `workdir`, or None where there is no run."""
    path = workdir / "config.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not the config of a run ({error})") from error


def adopt_automatic(config: ConfigDict, saved: dict[str, Any] | None) -> None:
    """Replace every "auto" in place by what the run in the workdir has chosen before."""
    for key, value in config.items() if saved else ():
        chosen = (saved or {}).get(key)
        if isinstance(value, ConfigDict) and isinstance(chosen, dict):
            adopt_automatic(value, chosen)
        elif value == AUTO and chosen is not None:
            with config.ignore_type():
                config[key] = chosen


def refuse_another_run(workdir: Path, config: ConfigDict, saved: dict[str, Any] | None) -> None:
    """Raise UserError if the workdir holds a run with another model or data; where the data lie does not matter."""
    if saved is None:
        return
    new = json.loads(to_json(config))
    for section in IDENTITY:
        old_section, new_section = ({k: v for k, v in c.get(section, {}).items() if k != "dir"} for c in (saved, new))
        for difference in differences(old_section, new_section, section):
            raise UserError(f"{workdir} holds another run ({difference}); choose another --workdir")


def claim(workdir: Path, config: ConfigDict, image_shape: tuple[int, ...]) -> None:
    """Make the workdir and save the resolved config in it, with the shape of an image; UserError where it cannot be
    written.
    """
    resolved = json.loads(to_json(config)) | {IMAGE_SHAPE: image_shape}
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(workdir / "config.json", json.dumps(resolved, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be written ({os.strerror(error.errno or 0)})") from error
