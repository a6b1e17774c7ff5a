"""Settings of a config file and its overrides, and their conversion to and from the plain dict of config.json."""

import dataclasses
import difflib
import importlib.util
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from score_sde_jax import paths
from score_sde_jax.errors import UserError
from score_sde_jax.settings.choices import AUTO, Choice, OneOf
from score_sde_jax.settings.fields import describe, excludes, matches, parse, shown
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

    Args:
        argument: value of --config.

    Raises:
        UserError: the file is missing, defines no config or fails, or the variant is unknown.
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
    except (Exception, SystemExit) as error:  # a user's file may raise any type
        raise UserError(f"--config={name}: {type(error).__name__}: {error}") from error
    finally:
        for root in roots:
            sys.path.remove(root)
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"--config={name}: the file defines no function get_config(variant)")
    try:
        config = module.get_config(variant)
    except ValueError as error:
        raise UserError(f"--config={argument}: {error}") from error
    except (Exception, SystemExit) as error:  # as above
        raise UserError(f"--config={argument}: get_config failed ({type(error).__name__}: {error})") from error
    if not isinstance(config, ConfigDict):
        found = type(config).__name__
        raise UserError(f"--config={argument}: get_config must return an ml_collections.ConfigDict, not {found}")
    return ConfigDict(config) if isinstance(config, FrozenConfigDict) else config


def run_name(argument: str) -> str:
    """Return the name of a config's run: its path below `configs` or its own name, without suffix, and the variant."""
    name, _, variant = argument.partition(":")
    file = path if (path := _existing(name)) else Path(CONFIGS, f"{name}.py")
    above = [folder for folder in file.parents if folder.name == CONFIGS]
    run = (file.relative_to(above[0]) if above else Path(file.name)).with_suffix("").as_posix()
    return f"{run}-{variant}" if variant else run


def _existing(name: str) -> Path | None:
    """Return the path of a file as typed; None if it does not exist; UserError if it is no file."""
    file = paths.expanded(name, "--config")
    found = paths.kind(file, "--config", name)
    if (found == "folder" and name.endswith(".py")) or found == "pipe or device":
        raise UserError(f"--config={name}: expected a Python file, found a {found}")
    return file if found == "file" else None


def _config_file(name: str) -> Path:
    """Return the file of a path or of a packaged config; UserError if neither exists."""
    packaged = PACKAGED / CONFIGS
    names = [file.relative_to(packaged).with_suffix("").as_posix() for file in packaged.rglob("*.py")]
    names = sorted(other for other in names if not other.startswith("families/"))
    if (file := _existing(name)) is not None:
        return file
    if name in names:
        return packaged / f"{name}.py"
    beside = sorted(map(str, Path(name).parent.glob("*.py"))) if name.endswith(".py") else []
    if (same := name.removesuffix(".py").removeprefix(f"{CONFIGS}/")) in names:
        raise UserError(f"--config={name}: no such file; --config={same} names the packaged config")
    close = difflib.get_close_matches(name, beside + names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"the packaged configs are in {packaged}"
    raise UserError(f"--config={paths.printable(name)}: no such file or packaged config; {hint}")


def from_config(config: ConfigDict, assignments: Sequence[str] = ()) -> Settings:
    """Return the settings of a config with overrides.

    A new `name` resets its section to the defaults of the new entry. Names are applied first, so the order of overrides
    does not matter.

    Args:
        config: config of a file, which the overrides change.
        assignments: overrides `section.key=value`.

    Raises:
        UserError: unknown or missing key, wrong type, value out of range, or contradicting settings.
    """
    pairs = [assignment.partition("=")[::2] for assignment in assignments]
    with config.unlocked():
        for path, text in sorted(pairs, key=lambda pair: not pair[0].endswith(".name")):
            _override(config, path, text)
    _refuse_contradictions(config, dict(pairs))
    try:
        settings = read(Settings, config.copy_and_resolve_references().to_dict())
        check(settings)
    except UserError as error:
        raise UserError(_as_typed(str(error), config, dict(pairs))) from error
    return settings


def _as_typed(message: str, config: ConfigDict, texts: Mapping[str, str]) -> str:
    """Return a message with the value of an override replaced by the text that the user typed."""
    for path, text in texts.items():
        parsed = f"--config.{path}={shown(_tuples(_at(config, path)))}:"
        if message.startswith(parsed):
            return f"--config.{path}={shown(text)}:{message.removeprefix(parsed)}"
    return message


def _refuse_contradictions(config: ConfigDict, texts: Mapping[str, str]) -> None:
    """Raise UserError if two overrides set a number that several sections share to different values."""
    for path, text in texts.items():
        final, key = str(_at(config, path)), path.rpartition(".")[2]
        for other, other_text in texts.items():
            same_key = other.rpartition(".")[2] == key != "name"
            if same_key and other_text != text and final == other_text:
                raise UserError(f"--config.{path}={text}: contradicts --config.{other}={other_text}, the same number")


def _at(config: ConfigDict, path: str) -> Any:
    """Return the section or value at a dotted path of a config; None if it does not exist."""
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping | ConfigDict) else None
    return value


def from_saved(saved: Mapping[str, Any], assignments: Sequence[str] = ()) -> Settings:
    """Return the settings of a config.json, with defaults for newer keys, and overrides.

    Args:
        saved: content of config.json.
        assignments: overrides `section.key=value`.

    Raises:
        UserError: as in `from_config`.
    """
    keys = _hints(Settings)
    return from_config(ConfigDict({key: value for key, value in saved.items() if key in keys}), assignments)


# ------------------------------------------------------------------------- plain dicts


def read(kind: type, source: Any, path: str = "") -> Any:
    """Return an instance of a section's class from a plain dict.

    Args:
        kind: class of the section.
        source: values and sections by key.
        path: dotted path of the section.

    Raises:
        UserError: unknown or missing key, wrong type, or value out of range.
    """
    if not isinstance(source, Mapping):
        raise UserError(f"--config.{path}={shown(source)}: expected a section")
    hints, values = _hints(kind), dict[str, Any]()
    for key in source:
        if key not in hints:
            raise _unknown(kind, path, key)
    for field in dataclasses.fields(kind):
        inside, hint = _join(path, field.name), hints[field.name]
        section = _section_type(hint, source, field.name, path)
        if section is not None:
            values[field.name] = read(section, source.get(field.name, {}), inside)
        elif field.name in source:
            values[field.name] = _fit(source[field.name], hint, inside)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"--config.{inside} is missing: expected {describe(_parts(hint)[0])}")
    return kind(**values)


def plain(settings: Settings) -> dict[str, Any]:
    """Return the nested dict of settings, as `read` takes it, without an absent sampler."""
    sections = dataclasses.asdict(settings)
    return _plain({key: value for key, value in sections.items() if (key, value) != ("sampler", None)})


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return settings with other values.

    Args:
        settings: settings, which stay unchanged.
        values: new values by dotted path.
    """
    changed = plain(settings)
    for path, value in values.items():
        *above, key = path.split(".")
        section = changed
        for part in above:
            section = section[part]
        section[key] = value
    return read(Settings, changed)


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return all values of a nested dict by dotted path.

    Args:
        plain: nested dict.
        prefix: dotted path of the dict.
    """
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        path = _join(prefix, key)
        flat |= flatten(value, path) if isinstance(value, Mapping) else {path: value}
    return flat


def section_types(kind: type = Settings, path: str = "") -> Iterator[tuple[str, type, OneOf | None]]:
    """Yield path, class and choice of entries of every section, independent of the entries that a config picks."""
    yield path, kind, None
    for key, hint in _hints(kind).items():
        mark = _mark(hint)
        section = _section_class(hint)
        if section is None:
            continue
        for inside, section_class, inner_mark in section_types(section, _join(path, key)):
            yield inside, section_class, mark if inside == _join(path, key) else inner_mark


def value_types(section: type) -> dict[str, Any]:
    """Return the type of every value of a section's class, without marks."""
    return {key: kind for key, (kind, _) in value_hints(section).items()}


def value_hints(section: type) -> dict[str, tuple[Any, list[Any]]]:
    """Return type and marks of every value of a section's class."""
    parts = {key: _parts(hint) for key, hint in _hints(section).items() if _section_class(hint) is None}
    return {key: (kind, marks) for key, (kind, *marks) in parts.items()}


# ------------------------------------------------------------------------- helpers


def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _parts(hint: Any) -> list[Any]:
    """Return a type and its marks."""
    return list(typing.get_args(hint)) if typing.get_origin(hint) is Annotated else [hint]


def _mark(hint: Any) -> OneOf | None:
    return next((mark for mark in _parts(hint)[1:] if isinstance(mark, OneOf)), None)


def _section_class(hint: Any) -> Any:
    """Return the class of a section before an entry is picked; None for a value."""
    bare = _parts(hint)[0]
    return next((kind for kind in (bare, *typing.get_args(bare)) if dataclasses.is_dataclass(kind)), None)


def _section_type(hint: Any, source: Mapping[str, Any], key: str, path: str) -> type | None:
    """Return the class with which to read a section; None for a value and for an absent optional section."""
    base, mark = _section_class(hint), _mark(hint)
    if base is None or (key not in source and type(None) in typing.get_args(_parts(hint)[0])):
        return None
    section = source.get(key, {})
    if mark is None or not isinstance(section, Mapping | ConfigDict):
        return base
    return mark.pick(base, section.get("name"), _join(path, key))


def _fit(value: Any, hint: Any, path: str) -> Any:
    """Return the value, with tuples for lists, if it has the type and ranges of its annotation; UserError if not."""
    kind, *marks = _parts(hint)
    if typing.get_origin(kind) is Mapping and isinstance(value, Mapping):
        return {key: _fit(item, typing.get_args(kind)[1], _join(path, key)) for key, item in value.items()}
    value = value.item() if isinstance(value, np.generic) else value
    if AUTO in marks and isinstance(value, str) and value == AUTO:
        return value
    if not matches(value, kind):
        expected = describe(kind) + (" or auto" if AUTO in marks else "")
        raise UserError(f"--config.{path}={shown(value)}: expected {expected}")
    if (allowed := excludes(hint, value)) is not None:
        raise UserError(f"--config.{path}={shown(value)}: {allowed}")
    return _tuples(value)


def _tuples(value: Any) -> Any:
    """Return tuples for the lists of JSON, since networks must be hashable."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    """Return dicts with the key `name` first."""
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
            section[part] = dict(section.get(part, {})) | {key: parse(text, _parts(hint)[0].__args__[1])}
            return
        inside = None if hint is None else _section_type(hint, section, part, ".".join(above[:i]))
        if inside is None:
            raise UserError(f"--config.{path}: no such key{_suggest(path, _paths(config))}")
        if part not in section:
            section[part] = ConfigDict()
        if not isinstance(section[part], ConfigDict):
            raise UserError(f"--config.{'.'.join(above[: i + 1])}={shown(section[part])}: expected a section")
        kind, section = inside, section[part]
    hints = _hints(kind)
    if key not in hints:
        raise _unknown(kind, ".".join(above), key)
    if _section_class(hints[key]) is not None:
        inner = _section_class(hints[key])
        first = "name" if issubclass(inner, Choice) else next(iter(_hints(inner)))
        raise UserError(
            f"--config.{path}={shown(text)}: {path} is a section; set one of its keys, such as {path}.{first}"
        )
    if key == "name" and issubclass(kind, Choice):
        if text == section.get("name", kind.name):
            return
        for own in set(kind.own) & set(section):
            del section[own]
    value = text if key == "name" else parse(text, hints[key])  # "none" is a name
    try:
        with section.ignore_type():
            section[key] = value
    except (TypeError, ValueError, KeyError) as error:  # a dict with keys that a ConfigDict refuses
        raise UserError(f"--config.{path}={shown(text)}: expected {describe(hints[key])}") from error


def _unknown(kind: Any, path: str, key: str) -> UserError:
    owner = path or "the config"
    if issubclass(kind, Choice):
        owner = f"{path}.name={kind.name}"
    keys = [other for other in _hints(kind) if other != "name"]
    problem = f"has no such key{_suggest(key, keys)}" if keys else "has no options"
    return UserError(f"--config.{_join(path, key)}: {owner} {problem}")


def _paths(config: ConfigDict) -> list[str]:
    """Return the dotted paths of all keys of a config, with those of the entries that it picks."""
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
    return f"; choose one of {', '.join(allowed)}" if allowed else ""
