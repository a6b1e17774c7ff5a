"""Import rules of the folders of the package, and the folder that may query the machine (docs/design.md)."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "score_sde_jax"

# From the bottom up. A folder imports from the sets before its own; folders of one set do not import each other.
FOLDERS = (
    {"errors", "keys", "condition", "version", "ranges"},
    {"paths"},
    {"devices"},
    {"diffusion", "networks", "data"},
    {"samplers"},
    {"tasks"},
    {"settings"},
    {"runs"},
    {"cli"},
)

# Inside a folder a file imports from the sets before its own; other files come last, and then __init__.
INSIDE = {
    "diffusion": (
        {"sdes", "ode", "ladder"},
        {"parameterization"},
    ),
    "data": ({"dataset", "images", "pixels", "finding"}, {"tfds_source"}, {"idx"}, {"archives"}),
    "devices": ({"machine", "signals"},),
    "networks": (
        {"fusion", "convolution", "embedding", "resampling"},
        {"layers", "norms"},
        {"refinenet", "unet_blocks"},
    ),
    "samplers": ({"step"}, {"flow"}),
    "tasks": ({"task", "masks"}, {"observed", "loss"}),
    "settings": ({"fields", "choices"}, {"sections"}, {"rules"}, {"reading"}),
    "runs": (
        {"flat", "records"},
        {"step"},
        {"reporting", "checkpoint"},
        {"window", "pictures", "workdir", "experiment"},
        {"build", "numbered"},
        {"batch_sampler", "neighbors"},
    ),
}

MATHEMATICS = {"keys", "diffusion", "samplers", "tasks"}
MACHINE = {
    "device_count",
    "local_device_count",
    "devices",
    "local_devices",
    "process_index",
    "process_count",
    "default_backend",
}
DEVICES_AND_HOST = {
    "pmean",
    "psum",
    "pmax",
    "pmin",
    "all_gather",
    "all_to_all",
    "ppermute",
    "axis_index",
    "pmap",
    "shard_map",
    "device_put",
    "with_sharding_constraint",
    "pure_callback",
    "io_callback",
    "callback",
    "device_get",
}

FILES = sorted(PACKAGE.rglob("*.py"))
for_every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def syntax(path: pathlib.Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def module_name(path: pathlib.Path) -> tuple[str, ...]:
    """("samplers", "times") for samplers/times.py, ("samplers",) for samplers/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_name(path) for path in FILES}


def imports(path: pathlib.Path) -> set[tuple[str, ...]]:
    """Modules of this project that a file imports, anywhere in it."""
    names = []
    for node in syntax(path):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    modules = {tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == PACKAGE.name}
    return {module if module in MODULES else module[:-1] for module in modules}


def rank(name: str, layers: tuple[set[str], ...]) -> int | None:
    return next((i for i, layer in enumerate(layers) if name in layer), None)


@for_every_file
def test_module_has_a_folder(path):
    name = module_name(path)
    assert not name or rank(name[0], FOLDERS) is not None, f"put {name[0]} into FOLDERS"


@for_every_file
def test_folder_imports_from_lower_folders_alone(path):
    name = module_name(path)
    if not name:
        return  # the public interface imports all folders
    wrong = [".".join(to) for to in imports(path) if to[:1] != name[:1] and not below(to, name)]
    assert not wrong, f"{'.'.join(name)} must not import {wrong}"


def below(lower: tuple[str, ...], upper: tuple[str, ...]) -> bool:
    ranks = [rank(module[0], FOLDERS) for module in (lower, upper) if module]
    return len(ranks) == 2 and None not in ranks and ranks[0] < ranks[1]


@pytest.mark.parametrize("path", [f for f in FILES if len(module_name(f)) == 2], ids=lambda f: "/".join(module_name(f)))
def test_file_of_a_folder_imports_from_the_files_before_it_alone(path):
    folder, name = module_name(path)
    order = INSIDE.get(folder, ())
    own = rank(name, order)
    for to in imports(path):
        if to[0] == folder:
            assert len(to) == 2, f"{folder}/{name} imports its own folder"
            place = rank(to[1], order)
            assert place is not None and (own is None or place < own), f"{name} must not import {to[1]}"


@for_every_file
def test_only_devices_queries_the_machine(path):
    """Only devices/ queries devices, processes and backends."""
    if module_name(path)[:1] == ("devices",):
        return
    for node in syntax(path):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "jax":
            assert node.attr not in MACHINE, f"line {node.lineno}: jax.{node.attr}"


def test_main_imports_the_command_line_only():
    assert imports(ROOT / "main.py") == {("cli",)}


@for_every_file
def test_nobody_asks_which_diffusion_it_is(path):
    diffusions = {"SDE", "VE", "VP", "SubVP", "EDM", "DDPM"}
    for node in syntax(path):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {
            "isinstance",
            "issubclass",
            "type",
        }:
            named = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            assert not named & (diffusions | {"sde"}), f"line {node.lineno}"


@pytest.mark.parametrize(
    "path",
    [f for f in FILES if module_name(f)[:1] and module_name(f)[0] in MATHEMATICS],
    ids=lambda f: f.stem,
)
def test_the_mathematics_knows_no_devices_and_no_host(path):
    for node in syntax(path):
        name = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "name", None)
        assert name not in DEVICES_AND_HOST, f"line {getattr(node, 'lineno', '?')}: {name}"


@pytest.mark.parametrize("path", [f for f in FILES if module_name(f)[:1] and module_name(f)[0] in MATHEMATICS], ids=str)
def test_the_mathematics_imports_no_devices(path):
    assert not [".".join(to) for to in imports(path) if to[:1] == ("devices",)]


@for_every_file
def test_function_is_short(path):
    for node in syntax(path):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} has {node.end_lineno - node.lineno + 1} lines"


@for_every_file
def test_cited_equations_exist(path):
    """Every `eq. (n)` is a numbered equation of docs/theory.md."""
    theory = (ROOT / "docs" / "theory.md").read_text()
    cited = {part.split(")")[0] for part in path.read_text().split("eq. (")[1:]}
    missing = [number for number in sorted(cited) if f"\\tag{{{number}}}" not in theory]
    assert not missing
