"""From a config file and its overrides to settings, and back to the plain dict that config.json holds."""

import dataclasses
import difflib
import importlib.util
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from ml_collections import ConfigDict

from score_sde_jax.errors import UserError
from score_sde_jax.settings.choices import AUTO, Choice, From
from score_sde_jax.settings.fields import Range, describe, matches, parse
from score_sde_jax.settings.rules import check
from score_sde_jax.settings.sections import Settings

CONFIGS = "configs"
"""Name of a folder of config files, some in folders of their own."""
_PACKAGE = Path(__file__).parents[1]
_SHARE = _PACKAGE / "share"
PACKAGED = _SHARE if (_SHARE / CONFIGS).is_dir() else _PACKAGE.parent
"""Directory with the folder `configs` of the project: inside an installed wheel, or the clone."""


# ------------------------------------------------------------------------- config files


def load(argument: str) -> ConfigDict:
    """Return the config of `NAME` or `path/to/file.py`, either with `:variant`, by the file's `get_config(variant)`.

    A name is the path of a packaged config below `configs` without its suffix, such as `digits` or
    `ve/cifar10_ncsnpp_continuous`. A file may import `configs.families` from any directory. If it lies in or below a
    folder `configs` of its own, it may import that folder too.

    Raises:
        UserError: The file is missing, defines no config or fails, or the variant is unknown.
    """
    name, _, variant = argument.partition(":")
    file = _config_file(name)
    spec = importlib.util.spec_from_file_location("experiment_config", file)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={name}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    folders = file.resolve().parents
    roots = [str(next((folder.parent for folder in folders if folder.name == CONFIGS), folders[0].parent))]
    roots += [str(PACKAGED)]
    sys.path[:0] = roots
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file may raise
        raise UserError(f"--config={name}: {type(error).__name__}: {error}") from error
    finally:
        for root in roots:
            sys.path.remove(root)
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={name}: the file defines no get_config(variant)")
    try:
        return module.get_config(variant)
    except ValueError as error:
        raise UserError(f"--config={argument}: {error}") from error


def run_name(argument: str) -> str:
    """Return the name of a config's run: its path below `configs` or its own name, without suffix, and the variant."""
    name, _, variant = argument.partition(":")
    file = Path(name) if Path(name).is_file() else Path(CONFIGS, f"{name}.py")
    above = [folder for folder in file.parents if folder.name == CONFIGS]
    run = (file.relative_to(above[0]) if above else Path(file.name)).with_suffix("").as_posix()
    return f"{run}-{variant}" if variant else run


def _config_file(name: str) -> Path:
    """The file of this path, or of the packaged config of this name; UserError if there is neither."""
    packaged = PACKAGED / CONFIGS
    for file in (Path(name), packaged / f"{name}.py"):
        if file.is_file():
            return file
    files = [str(file) for file in Path(name).parent.rglob("*.py")] if name.endswith(".py") else []
    names = [file.relative_to(packaged).with_suffix("").as_posix() for file in packaged.rglob("*.py")]
    names = [other for other in names if not other.startswith("families/")]
    raise UserError(f"--config={name}: no such file or packaged config{_suggest(name, sorted(files) + sorted(names))}")


def from_config(config: ConfigDict, assignments: Sequence[str] = ()) -> Settings:
    """Settings of a config with `section.key=value` overrides; UserError for the first mistake.

    A new `name` starts its section afresh from that choice's defaults. Names are applied first, so that the keys of the
    new choice can be set beside it, in any order.
    """
    pairs = [assignment.partition("=")[::2] for assignment in assignments]
    with config.unlocked():
        for path, text in sorted(pairs, key=lambda pair: not pair[0].endswith(".name")):
            _override(config, path, text)
    settings = read(Settings, config.copy_and_resolve_references().to_dict())
    check(settings)
    return settings


def from_saved(saved: Mapping[str, Any], assignments: Sequence[str] = ()) -> Settings:
    """Settings of a config.json, with defaults for keys that are younger than it, and overrides on top."""
    keys = _hints(Settings)
    return from_config(ConfigDict({key: value for key, value in saved.items() if key in keys}), assignments)


# ------------------------------------------------------------------------- plain dicts


def read(kind: type, given: Any, path: str = "") -> Any:
    """An instance of a section's class from a plain dict.

    Raises UserError for an unknown or missing key, a value of the wrong type, and one out of its range.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"--config.{path}={given!r}: expected a section")
    hints, values = _hints(kind), dict[str, Any]()
    for key in given:
        if key not in hints:
            raise _unknown(kind, path, key)
    for field in dataclasses.fields(kind):
        inside, where = _join(path, field.name), hints[field.name]
        section = _section_type(where, given, field.name, path)
        if section is not None:
            values[field.name] = read(section, given.get(field.name, {}), inside)
        elif field.name in given:
            values[field.name] = _fit(given[field.name], where, inside)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"--config.{inside} is missing: expected {describe(_parts(where)[0])}")
    return kind(**values)


def plain(settings: Settings) -> dict[str, Any]:
    """The nested dict that `read` reads; a sampler that is left out is left out."""
    whole = dataclasses.asdict(settings)
    return _plain({key: value for key, value in whole.items() if (key, value) != ("sampler", None)})


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Other settings, in which the keys with these dotted paths have other values."""
    changed = plain(settings)
    for path, value in values.items():
        *above, key = path.split(".")
        section = changed
        for part in above:
            section = section[part]
        section[key] = value
    return read(Settings, changed)


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All values of a nested dict by their dotted paths."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        path = _join(prefix, key)
        flat |= flatten(value, path) if isinstance(value, Mapping) else {path: value}
    return flat


def section_types(kind: type = Settings, path: str = "") -> Iterator[tuple[str, type, From | None]]:
    """Path, class and registry of every section, whichever entries are picked."""
    yield path, kind, None
    for key, hint in _hints(kind).items():
        mark = _mark(hint)
        section = _section_class(hint)
        if section is None:
            continue
        for inside, found, picks in section_types(section, _join(path, key)):
            yield inside, found, mark if inside == _join(path, key) else picks


def value_types(section: type) -> dict[str, Any]:
    """Type of every value of a section's class, without marks."""
    return {key: kind for key, (kind, _) in value_hints(section).items()}


def value_hints(section: type) -> dict[str, tuple[Any, list[Any]]]:
    """Type and marks of every value of a section's class."""
    parts = {key: _parts(hint) for key, hint in _hints(section).items() if _section_class(hint) is None}
    return {key: (kind, marks) for key, (kind, *marks) in parts.items()}


# ------------------------------------------------------------------------- parts of the above


def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _parts(hint: Any) -> list[Any]:
    """A type and its marks."""
    return list(typing.get_args(hint)) if typing.get_origin(hint) is Annotated else [hint]


def _mark(hint: Any) -> From | None:
    return next((mark for mark in _parts(hint)[1:] if isinstance(mark, From)), None)


def _section_class(hint: Any) -> Any:
    """The section that a key holds, before an entry is picked; None for a value."""
    bare = _parts(hint)[0]
    return next((kind for kind in (bare, *typing.get_args(bare)) if dataclasses.is_dataclass(kind)), None)


def _section_type(hint: Any, given: Mapping[str, Any], key: str, path: str) -> type | None:
    """The class with which to read a section; None for a value, and for an optional section that is not given."""
    base, mark = _section_class(hint), _mark(hint)
    if base is None or (key not in given and type(None) in typing.get_args(_parts(hint)[0])):
        return None
    section = given.get(key, {})
    if mark is None or not isinstance(section, Mapping | ConfigDict):
        return base
    return mark.pick(base, section.get("name"), _join(path, key))


def _fit(value: Any, hint: Any, path: str) -> Any:
    """The value, if it has the type and lies in the ranges of its annotation; lists become tuples."""
    kind, *marks = _parts(hint)
    if typing.get_origin(kind) is Mapping and isinstance(value, Mapping):
        return {key: _fit(item, typing.get_args(kind)[1], _join(path, key)) for key, item in value.items()}
    if AUTO in marks and value == AUTO:
        return value
    if not matches(value, kind):
        raise UserError(f"--config.{path}={value}: expected {describe(kind)}{' or auto' if AUTO in marks else ''}")
    for allowed in (mark for mark in marks if isinstance(mark, Range)):
        if value not in allowed:
            raise UserError(f"--config.{path}={value}: {allowed}")
    return _tuples(value)


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were; networks must be hashable."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    """Dicts with `name` before the keys that it explains."""
    if not isinstance(value, dict):
        return value
    return {key: _plain(value[key]) for key in sorted(value, key=lambda key: key != "name")}


def _override(config: ConfigDict, path: str, text: str) -> None:
    """Apply one assignment in place; sections that share a `FieldReference` follow."""
    *above, key = path.split(".")
    kind: Any = Settings
    section = config
    for i, part in enumerate(above):
        hint = _hints(kind).get(part)
        if typing.get_origin(_parts(hint)[0]) is Mapping and i == len(above) - 1:
            section[part] = dict(section.get(part, {})) | {key: parse(text, _parts(_parts(hint)[0].__args__[1])[0])}
            return
        inside = None if hint is None else _section_type(hint, section, part, ".".join(above[:i]))
        if inside is None:
            raise UserError(f"--config.{path}: no such key{_suggest(path, _paths(config))}")
        if part not in section:
            section[part] = ConfigDict()
        if not isinstance(section[part], ConfigDict):
            raise UserError(f"--config.{'.'.join(above[: i + 1])}={section[part]!r}: expected a section")
        kind, section = inside, section[part]
    hints = _hints(kind)
    if key not in hints:
        raise _unknown(kind, ".".join(above), key)
    if _section_class(hints[key]) is not None:
        raise UserError(f"--config.{path}={text}: {path} is a section; set one of its keys, such as {path}.name")
    if key == "name" and issubclass(kind, Choice):
        if text == section.get("name", kind.name):
            return
        for own in set(kind.own) & set(section):
            del section[own]
    value = text if key == "name" else parse(text, _parts(hints[key])[0])  # "none" is a name
    with section.ignore_type():
        section[key] = value


def _unknown(kind: Any, path: str, key: str) -> UserError:
    owner = path or "the config"
    if issubclass(kind, Choice):
        owner = f"{path}.name={kind.name}"
    return UserError(f"--config.{_join(path, key)}: {owner} has no such key{_suggest(key, list(_hints(kind)))}")


def _paths(config: ConfigDict) -> list[str]:
    """Dotted paths of all keys of a config's sections, as far as they can be told."""
    flat = dict[str, Any]()
    for path, kind, mark in section_types():
        section: Any = config
        for part in filter(None, path.split(".")):
            section = section.get(part, ConfigDict()) if isinstance(section, ConfigDict) else ConfigDict()
        if mark is not None and section.get("name", mark.default) in mark.registry:
            kind = mark.pick(kind, section.get("name"), path)
        flat |= {_join(path, key): None for key, hint in _hints(kind).items() if _section_class(hint) is None}
    return list(flat)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _suggest(wrong: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(wrong, allowed, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; allowed are {', '.join(allowed)}" if allowed else ""
