"""Tables of the documentation that are generated from the code: flags, settings, methods and published configs."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import score_sde_jax
from configs.families import methods
from score_sde_jax import cli
from score_sde_jax.settings import load
from score_sde_jax.settings.reference import Entry, Key, entries, summary

CONFIGS = Path(__file__).parent.parent / "configs"
PUBLISHED = re.compile(r"as published|published FID|[\d,]+ parameters")
PARAMETERS = re.compile(r"([\d,]+) parameters")
FID = re.compile(r"published FID ([\d.]+)")
BITS = re.compile(r"([\d.]+) bits/dim")
TIME = re.compile(r"(one|several) (GPUs?), ((?:a )?\w+) \(estimate")


def write(directory: Path) -> None:
    """Write every table as a file of Markdown; files that do not change keep their time."""
    directory.mkdir(parents=True, exist_ok=True)
    tables = {
        "names": public_names(),
        "flags": flags(),
        "settings": settings(),
        "methods": methods.table(),
        "configs": published_configs(),
    }
    for name, text in tables.items():
        path = directory / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def public_names() -> str:
    """Return the table of exported names, with the entries of registries and the first sentences of the others."""
    rows = []
    for name in score_sde_jax.__all__:
        value = getattr(score_sde_jax, name)
        if isinstance(value, Mapping):
            rows.append((f"`{name}`", f"registry: {', '.join(f'`{key}`' for key in value)}"))
        elif isinstance(value, str):
            rows.append((f"`{name}`", "version of the package"))
        else:
            target = value.__name__ if inspect.ismodule(value) else f"{value.__module__}.{value.__qualname__}"
            rows.append((f"{{py:obj}}`{name} <{target}>`", _sentence(summary(value))))
    return table(("name", "meaning"), rows)


def flags() -> str:
    """Return the table of the flags of the command line, with the modes that use them."""
    rows = []
    for name, modes in cli.FLAG_MODES.items():
        shown = "all" if len(modes) == len(cli.MODES) else ", ".join(modes)
        rows.append((f"`--{name}`", shown, _sentence(cli.FLAGS[name].help.removeprefix(f"{shown}: "))))
    return table(("flag", "modes", "meaning"), rows)


def settings() -> str:
    """Return the tables of every section's keys, and of the keys of each entry of its registry."""
    return "\n\n".join(_section(entry) if entry.name is None else _entry(entry) for entry in entries())


def _section(entry: Entry) -> str:
    heading = f"## `{entry.path}`" if entry.path else "## Top level"
    return "\n\n".join([heading, _sentence(entry.summary), *_keys(entry.keys)])


def _entry(entry: Entry) -> str:
    default = " (default)" if entry.is_default else ""
    return "\n\n".join([f"### `{entry.path}.name={entry.name}`{default}", _sentence(entry.summary), *_keys(entry.keys)])


def _keys(keys: Sequence[Key]) -> list[str]:
    rows = [(f"`{key.name}`", _text(key.kind), _default(key), _sentence(key.meaning)) for key in keys]
    return [table(("key", "type and range", "default", "meaning"), rows)] if rows else []


def _default(key: Key) -> str:
    return "required" if key.default is None else f"`{key.default}`"


def published_configs() -> str:
    """Return the table of the configs of published models, with the figures that their docstrings state."""
    rows = []
    for path in sorted(CONFIGS.rglob("*.py")):
        text = " ".join((re.match(r'"""(.*?)"""', path.read_text(), re.S) or [""])[0].split()).strip('"')
        if "families" in path.parts or not PUBLISHED.search(text):
            continue
        parameters = PARAMETERS.search(text)
        config = load(str(path))
        figures = [figure[1] if (figure := each.search(text)) else "-" for each in (FID, BITS)]
        time = TIME.search(text)
        rows.append(
            (
                f"`{path.relative_to(CONFIGS).with_suffix('')}`",
                f"`{config.model.name}`",
                parameters[1] if parameters else "",
                "; ".join(figures) if figures != ["-", "-"] else "",
                f"{time[3]}, {time[1]} {time[2]}" if time else "",
            )
        )
    return table(("config", "model", "parameters", "FID; bits/dim", "estimated time"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _sentence(text: str) -> str:
    """Return a meaning as Markdown with a capital first letter."""
    return _text(text[:1].upper() + text[1:])


def _text(text: str) -> str:
    """Return plain text with code between backticks as Markdown, with all other markup escaped."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_<>\[\]|$])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [part.replace("|", r"\|") for part in parts[1::2]]
    return "`".join(parts)
