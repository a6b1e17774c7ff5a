"""Check that the tests notice small faults: plant each in a copy of the project, and run tests on it.

python tests/mutate.py tests/mutants.toml [--only ID ...] [--whole] [--jobs N] [--unchecked]

The file is a list of such tables:

[[mutant]]
id = "heun-at-one-time"  # a short name of its own
kind = "formula"  # "wiring": something is lost or mixed up on its way; "formula": the mathematics or a network is wrong
old = '''velocity(x + (s - t) * v, s)'''  # occurs once in score_sde_jax/, in whichever file
new = '''velocity(x + (s - t) * v, t)'''  # takes its place
tests = ["tests/samplers/test_predictors.py"]  # files or folders of tests that should notice

First all the tests that are named must pass without a mutant. Each mutant is then one of

killed: a test fails, and the first one to fail is named;
survived: the tests of the mutant pass; with --whole the whole default suite is asked too, and passes as well;
stale: its old text does not occur exactly once; the code has moved on, and the entry has to follow;
broken: a module cannot be imported, or a file of tests not collected, which says nothing about the tests.

The exit status is 0 if all are killed, else 1. The working tree is only read: what git tracks or does not ignore is
copied to a temporary directory, and it is the package in there that the tests import.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "score_sde_jax"
VERDICTS = ("killed", "survived", "stale", "broken")
IMPORT_ALL = f"""
import importlib, pkgutil, main, {PACKAGE}
for module in pkgutil.walk_packages({PACKAGE}.__path__, "{PACKAGE}."):
    importlib.import_module(module.name)
print(main.__file__, {PACKAGE}.__file__, sep="\\n")
"""


def read(file: pathlib.Path) -> dict[str, dict]:
    """The mutants of a file by their ids."""
    tables = tomllib.loads(file.read_text())["mutant"]
    mutants = {mutant["id"]: mutant for mutant in tables}
    assert len(mutants) == len(tables), "an id is given twice"
    return mutants


def copy_the_tree(target: pathlib.Path) -> None:
    """Copy the files that git tracks or does not ignore, as they are now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():  # a tracked file may have been removed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def python(copy: pathlib.Path, cwd: pathlib.Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of Python, which finds the package of the copy before the installed one."""
    # Without byte code, none can be left of a mutant of the same second and length.
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, **streams)
    return done.returncode, done.stdout.strip() or "no output"


def import_error(copy: pathlib.Path) -> str | None:
    """Why not every module can be imported, or where they come from instead of the copy; None if all is well."""
    status, output = python(copy, copy.parent, "-c", IMPORT_ALL)
    paths = output.splitlines()[-2:]
    if status == 0 and paths == [str(copy / "main.py"), str(copy / PACKAGE / "__init__.py")]:
        return None
    return f"import: {paths[-1]}"


def tested(copy: pathlib.Path, tests: list[str]) -> tuple[str, str]:
    """Verdict of these tests, of the whole suite for an empty list, and what it rests on."""
    one_by_one = ["-n", "0"] if tests else []  # in the order given; mutants run side by side instead
    status, output = python(copy, copy, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *one_by_one, *tests)
    if status == 0:
        return "survived", " ".join(tests) or "the whole suite"
    summary = output.rpartition("short test summary info")[2]
    failure = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", summary, re.MULTILINE)
    if failure and "::" in failure[1]:
        return "killed", f"by {failure[1]}"
    return "broken", f"collection: {failure[1] if failure else output.splitlines()[-1]}"


def examined(copy: pathlib.Path, mutant: dict, whole: bool) -> tuple[str, str]:
    """Verdict of one mutant, and what it rests on; the copy is afterwards what it was."""
    files = sorted((copy / PACKAGE).rglob("*.py"))
    texts = {file: text for file in files if mutant["old"] in (text := file.read_text())}
    if (times := sum(text.count(mutant["old"]) for text in texts.values())) != 1:
        return "stale", f"its old text occurs {times} times"
    ((file, text),) = texts.items()
    file.write_text(text.replace(mutant["old"], mutant["new"]))
    try:
        if error := import_error(copy):
            return "broken", error
        verdict, why = tested(copy, mutant["tests"])
        return tested(copy, []) if whole and verdict == "survived" else (verdict, why)
    finally:
        file.write_text(text)


def main() -> int:
    """Run the command line; 0 if every mutant was killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=pathlib.Path, help="tests/mutants.toml")
    parser.add_argument("--only", nargs="+", metavar="ID", help="these alone")
    parser.add_argument("--whole", action="store_true", help="ask the whole suite about those that survive")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without a mutant first")
    asked = parser.parse_args()
    mutants, counts = read(asked.file), collections.Counter()
    if unknown := [name for name in asked.only or () if name not in mutants]:
        parser.error(f"no mutant {' or '.join(unknown)} in {asked.file}")
    selected = [mutants[name] for name in asked.only or mutants]
    with tempfile.TemporaryDirectory() as folder:
        copies = queue.SimpleQueue[pathlib.Path]()
        for number in range(asked.jobs):
            copies.put(copy := pathlib.Path(folder).resolve() / str(number))
            copy_the_tree(copy)
        tests = sorted({path for mutant in selected for path in mutant["tests"]})
        if missing := [path for path in tests if not (copy / path.partition("::")[0]).exists()]:
            parser.exit(1, f"there are no {' and no '.join(missing)}\n")
        if not asked.unchecked:
            print(f"without a mutant: {' '.join(tests)}", flush=True)
            error = import_error(copy)
            verdict, why = ("broken", error) if error else tested(copy, tests)
            if verdict != "survived":
                parser.exit(1, f"this fails without any mutant: {verdict} {why}\n")

        def examine(mutant: dict) -> None:
            copy = copies.get()
            verdict, why = examined(copy, mutant, asked.whole)
            copies.put(copy)
            print(f"{mutant['id']}: {verdict} {why}", flush=True)
            counts[mutant["kind"], verdict] += 1

        with concurrent.futures.ThreadPoolExecutor(asked.jobs) as threads:
            list(threads.map(examine, selected))
    print(f"\n{'':8}" + "".join(f"{verdict:>10}" for verdict in VERDICTS))
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:8}" + "".join(f"{counts[kind, verdict]:>10}" for verdict in VERDICTS))
    return int(any(verdict != "killed" for _, verdict in counts))


if __name__ == "__main__":
    sys.exit(main())
