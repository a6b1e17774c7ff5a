"""The layer rule: a module imports from lower layers alone. LAYERS is its statement; docs/design.md explains it."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "score_sde_jax"

# From the bottom up. Modules of one layer do not import each other.
LAYERS = (
    {"errors", "keys", "values"},
    {
        "sdes",
        "ode",
        "models",
        "data",
        "metrics",
    },  # the networks know no diffusion, the diffusions no network
    {"parameterization"},
    {"losses", "samplers", "likelihood", "techniques", "conditioning"},
    {"tasks"},  # the mathematics ends here
    {"state", "optimizer", "checkpoint", "processes", "reporting", "config"},
    {"sharding", "window", "pictures", "workdir", "results"},
    {"schema"},
    {"options"},
    {"contradictions", "experiment"},
    {"build"},
    {"given"},
    {"automatic", "drawing", "measures", "costs", "neighbours"},
    {"train", "sample", "info", "evaluate"},  # the drivers
)
# main.py has the flags, a config to read, a mistake to print, and a driver to call.
MAIN_IMPORTS = {"errors", "config", "build", "processes", "workdir"} | LAYERS[-1]

# Inside a package, its files may import these (from the bottom up again), and __init__ every file.
SHARED = {
    "data": ({"dataset", "images"}, {"tfds_source"}, {"idx"}, {"archives"}),
    "models": ({"convolution", "embedding", "resampling"}, {"layers"}, {"refinenet", "unet_blocks"}),
    "samplers": ({"layers"}, {"flow"}),
}

MATHEMATICS = {"keys", "sdes", "ode", "parameterization", "losses", "samplers", "likelihood", "conditioning", "tasks"}
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
def test_module_has_a_layer(path):
    name = module_name(path)
    assert not name or rank(name[0], LAYERS) is not None, f"put {name[0]} into LAYERS"


@for_every_file
def test_module_imports_from_lower_layers_alone(path):
    name = module_name(path)
    if not name:
        return  # the public surface shows all layers
    wrong = [".".join(to) for to in imports(path) if to[:1] != name[:1] and not below(to, name)]
    assert not wrong, f"{'.'.join(name)} must not import {wrong}"


def below(lower: tuple[str, ...], upper: tuple[str, ...]) -> bool:
    ranks = [rank(module[0], LAYERS) for module in (lower, upper) if module]
    return len(ranks) == 2 and None not in ranks and ranks[0] < ranks[1]


@pytest.mark.parametrize("path", [f for f in FILES if len(module_name(f)) == 2], ids=lambda f: "/".join(module_name(f)))
def test_files_of_a_package_import_its_shared_files_alone(path):
    package, name = module_name(path)
    shared = SHARED.get(package, ())
    own = rank(name, shared)
    for to in imports(path):
        if to[0] == package:
            assert len(to) == 2, f"{package}/{name} imports its own package"
            found = rank(to[1], shared)
            assert found is not None and (own is None or found < own), f"{name} must not import {to[1]}"


def test_main_imports_the_drivers():
    assert {module[0] for module in imports(ROOT / "main.py")} <= MAIN_IMPORTS


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


@for_every_file
def test_file_is_short(path):
    assert len(path.read_text().splitlines()) < 300


@for_every_file
def test_cited_equations_exist(path):
    """Every `eq. (n)` is a numbered equation of docs/theory.md."""
    theory = (ROOT / "docs" / "theory.md").read_text()
    cited = {part.split(")")[0] for part in path.read_text().split("eq. (")[1:]}
    missing = [number for number in sorted(cited) if f"\\tag{{{number}}}" not in theory]
    assert not missing
