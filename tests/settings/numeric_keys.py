"""Every number in the settings, of every section and of every entry of a registry."""

import typing
from typing import Annotated

from score_sde_jax.settings.fields import alternatives
from score_sde_jax.settings.reading import section_types, value_hints


def types(hint):
    """Types of a value and of the items of its tuples."""
    for kind in alternatives(hint):
        yield from types(typing.get_args(kind)[0]) if typing.get_origin(kind) is tuple else [kind]


def numbers():
    """Name, override that picks the entry, dotted path, and annotation of every number."""
    for path, kind, mark in section_types():
        for name, section in {"": kind}.items() if mark is None else mark.registry.items():
            section = mark.pick(kind, name, path) if mark else kind
            for key, (hint, marks) in value_hints(section).items():
                if {int, float} & set(types(hint)):
                    hint = Annotated[(hint, *marks)] if marks else hint
                    picks = [f"{path}.name={name}"] if name else []
                    picks += ["data.image_size=8"] if name == "image_folder" and key != "image_size" else []
                    yield f"{path} {name} {key}".strip(), picks, f"{path}.{key}".lstrip("."), hint
