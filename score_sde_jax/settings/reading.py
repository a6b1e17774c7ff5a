"""Configs: read a file, apply `--config.section.key=value`, fill in defaults, and refuse what nothing would consume.

Every section of a config is a constructor call: `dict(name="vp", beta_min=0.1)` calls the entry "vp" of a registry. A
schema maps the dotted path of each section to a `Section`, from which keys, types and defaults are read off the
constructors' signatures.
"""

import dataclasses
import difflib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from score_sde_jax.errors import UserError
from score_sde_jax.settings import fields as values

AUTO = "auto"
CONFIGS = "configs"
"""Folder that holds the config files of a project, some in folders of their own."""
MISSING = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Section:
    """Keys of a config section: arguments of the choice that `name` picks, and of `options` whatever the choice.

    `auto` names the keys that may also be "auto"; `default` is the choice where a config names none; `elsewhere` names
    the arguments of the choices that other sections give; an `optional` section may be left out with all inside it.
    """

    choices: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Callable[..., Any] | None = None
    auto: tuple[str, ...] = ()
    default: str | None = None
    elsewhere: tuple[str, ...] = ()
    optional: bool = False

    def parameters(self, name: str | None) -> dict[str, inspect.Parameter]:
        """Parameter of each key that the section takes when `name` is chosen."""
        found = arguments(self.options) if self.options else {}
        return found | (self.own(name) if name is not None else {})

    def own(self, name: str) -> dict[str, inspect.Parameter]:
        """Parameter of each key that a choice takes for itself."""
        return {key: kind for key, kind in arguments(self.choices[name]).items() if key not in self.elsewhere}


Schema = Mapping[str, Section]


def arguments(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters that a config may set: those with a default and those that are keyword-only."""
    parameters = inspect.signature(constructor).parameters
    return {
        key: parameter
        for key, parameter in parameters.items()
        if (parameter.default is not MISSING or parameter.kind is parameter.KEYWORD_ONLY)
        and key not in ("parent", "name")  # flax gives these to every module
    }


def load(argument: str) -> ConfigDict:
    """Config of `path/to/file.py` or `path/to/file.py:variant`, as the file's `get_config(variant)` returns it.

    The file may lie in a folder below `configs`, and may import `configs.families`, wherever the command is run from.
    Raises UserError for a file that is not there, not a config or fails, and for an unknown variant.
    """
    path, _, variant = argument.partition(":")
    file = Path(path)
    if not file.is_file():
        others = sorted(str(other) for other in file.parent.rglob("*.py"))
        raise UserError(f"--config={path}: no such file{_suggest(path, others)}")
    spec = importlib.util.spec_from_file_location("experiment_config", file)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    folders = file.resolve().parents
    root = str(next((folder.parent for folder in folders if folder.name == CONFIGS), folders[0].parent))
    sys.path.insert(0, root)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file may raise
        raise UserError(f"--config={path}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(root)
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={path}: the file defines no get_config(variant)")
    try:
        return module.get_config(variant)
    except ValueError as error:
        raise UserError(f"--config={argument}: {error}") from error


def run_name(argument: str) -> str:
    """Name of the run of a config file: its path below the folder `configs`, or its own name, without the suffix."""
    file = Path(argument.partition(":")[0])
    above = [folder for folder in file.parents if folder.name == CONFIGS]
    return (file.relative_to(above[0]) if above else Path(file.name)).with_suffix("").as_posix()


def override(config: ConfigDict, schema: Schema, assignments: Sequence[str]) -> None:
    """Apply `section.key=value` assignments in place.

    A new `name` starts its section afresh from that choice's defaults; names are applied first, so that the keys of the
    new choice can be set beside it, in any order. Raises UserError for a key that does not exist.
    """
    pairs = [assignment.partition("=")[::2] for assignment in assignments]
    for path, text in sorted(pairs, key=lambda pair: not pair[0].endswith(".name")):
        section_path, _, key = path.rpartition(".")
        section = _descend(config, section_path)
        if section is None or section_path not in schema:
            raise UserError(f"--config.{path}: no such key{_suggest(path, list(flatten(config)))}")
        if key == "name":
            _rename(section, section_path, schema, text)
            continue
        _check_known(section_path, key, schema[section_path], section)
        wanted = schema[section_path].parameters(section.get("name"))[key].annotation
        with section.ignore_type():
            section[key] = values.parse(text, wanted)


def complete(config: ConfigDict, schema: Schema) -> None:
    """Fill in every key that has a default, in place, so that all of them can be read, overridden and saved."""
    for path, spec in _present(config, schema):
        section = _descend(config, path, create=True)
        if section is None:
            raise UserError(f"config.{path}: expected a section")
        if spec.default and "name" not in section:
            section.name = spec.default
        if spec.choices:
            _check_name(path, section, spec)
        for key, parameter in spec.parameters(section.get("name")).items():
            if key not in section and parameter.default is not MISSING:
                section[key] = parameter.default


def check(config: ConfigDict, schema: Schema) -> None:
    """Raise UserError for an unknown section, name or key, a missing key, or a value of the wrong type."""
    nested = set(schema)
    for path, spec in _present(config, schema):
        section = _descend(config, path)
        if section is None:
            raise UserError(f"config.{path}: the section is missing")
        if spec.choices:
            _check_name(path, section, spec)
        parameters = spec.parameters(section.get("name"))
        for key in section:
            if key != "name" and _join(path, key) not in nested:
                _check_known(path, key, spec, section)
        for key, parameter in parameters.items():
            if key not in section:
                raise UserError(
                    f"config.{_join(path, key)} is missing: expected {values.describe(parameter.annotation)}"
                )
            value = section[key]
            if not (value == AUTO and key in spec.auto) and not values.matches(value, parameter.annotation):
                expected = values.describe(parameter.annotation) + (' or "auto"' if key in spec.auto else "")
                raise UserError(f"config.{_join(path, key)}={value!r}: expected {expected}")


def construct(config: ConfigDict, schema: Schema, path: str, *args: Any, **extra: Any) -> Any:
    """Call the choice of a section with the section's keys; a ValueError becomes a UserError that names the section."""
    section = _descend(config, path)
    assert section is not None, path
    keywords = {key: section[key] for key in schema[path].own(section.name) if key in section}
    return _call(path, schema[path].choices[section.name], *args, **keywords, **extra)


def options(config: ConfigDict, schema: Schema, path: str) -> Any:
    """Call the options of a section with the section's keys."""
    section = _descend(config, path)
    constructor = schema[path].options
    assert section is not None and constructor is not None, path
    return _call(path, constructor, **{key: section[key] for key in arguments(constructor) if key in section})


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON."""
    return json.dumps(config.copy_and_resolve_references().to_dict(), indent=2) + "\n"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """One line for every value in which two resolved configs differ; `name`, which explains the rest, comes first."""
    for key in sorted(set(old) | set(new), key=lambda key: (key != "name", key)):
        path, before, after = _join(prefix, key), old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, path)
        elif before != after:
            yield f"{path}: {before!r} there, {after!r} here"


def section(config: ConfigDict, path: str) -> ConfigDict:
    """The section at a dotted path of a complete config."""
    for key in path.split("."):
        config = config[key]
    return config


def has(config: ConfigDict, path: str) -> bool:
    """Whether there is a section at a dotted path."""
    return _descend(config, path) is not None


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """All values by their dotted paths."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        path = _join(prefix, key)
        flat |= flatten(value, path) if isinstance(value, ConfigDict) else {path: value}
    return flat


# ------------------------------------------------------------------------- parts of the above


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _suggest(wrong: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(wrong, allowed, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; allowed are {', '.join(allowed)}"


def _descend(config: ConfigDict, path: str, create: bool = False) -> ConfigDict | None:
    found: Any = config
    for key in filter(None, path.split(".")):
        if create and key not in found:
            found[key] = ConfigDict()
        found = found.get(key)
        if not isinstance(found, ConfigDict):
            return None
    return found


def _present(config: ConfigDict, schema: Schema) -> Iterator[tuple[str, Section]]:
    """The sections of the schema, without the optional ones that the config leaves out and those inside them."""
    absent = [path for path, spec in schema.items() if spec.optional and _descend(config, path) is None]
    for path, spec in schema.items():
        if not any(path == left_out or path.startswith(f"{left_out}.") for left_out in absent):
            yield path, spec


def _check_name(path: str, section: ConfigDict, spec: Section) -> None:
    name = section.get("name")
    if name not in spec.choices:
        raise UserError(f"config.{path}.name={name!r}: choose one of {', '.join(spec.choices)}")


def _check_known(path: str, key: str, spec: Section, section: ConfigDict) -> None:
    name = section.get("name")
    allowed = list(spec.parameters(name))
    if key not in allowed:
        owner = f"{path} {name!r}" if name else path or "the config"
        raise UserError(f"config.{_join(path, key)}: {owner} has no such key{_suggest(key, allowed)}")


def _rename(section: ConfigDict, path: str, schema: Schema, name: str) -> None:
    spec = schema[path]
    if not spec.choices:
        raise UserError(f"--config.{path}.name: the section has no name")
    if name not in spec.choices:
        raise UserError(f"--config.{path}.name={name}: choose one of {', '.join(spec.choices)}")
    if name == section.get("name"):
        return
    for key in set(spec.own(section.name)) & set(section):
        del section[key]
    section.name = name
    complete(section, {"": spec})


def _call(path: str, constructor: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    try:
        return constructor(*args, **keywords)
    except ValueError as error:
        raise UserError(f"config.{path}: {error}") from error
