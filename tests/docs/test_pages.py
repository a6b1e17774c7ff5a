"""The documentation: complete generated tables, a Python example that runs, and links with targets."""

import importlib.util
import pathlib
import re

import numpy as np
import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if not {"_build", "_generated"} & set(path.parts))


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(line):
    return len(re.findall(r"(?<!\\)\|", line))


def test_tables_have_rows_of_one_length(tables, tmp_path):
    tables.write(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        blocks = [block for block in path.read_text().split("\n\n") if block.startswith("|")]
        assert blocks, path.name
        for block in blocks:
            assert len(set(map(cells, block.splitlines()))) == 1, block


def test_flags_have_their_modes_and_no_others(tables):
    rows = tables.flags().splitlines()[2:]
    assert "| `--files` | sample | Also write every image as a PNG file. |" in rows
    assert {row.split(" | ")[1] for row in rows} <= {"all", "sample", "train", "sample, eval", "train, sample, eval"}


def test_published_configs_have_figures_and_an_estimated_time(tables):
    rows = tables.published_configs().splitlines()[2:]
    assert len(rows) == 45
    pattern = r"\| `[\w/]+` \| `\w+` \| [\d,]* \| (|[\d.]+; [\d.-]+|-; [\d.]+) \| [\w ]+, [\w ]+ \|"
    assert [row for row in rows if not re.fullmatch(pattern, row)] == []
    assert "| `ve/cifar10_ncsnpp_deep_continuous` | `ncsnpp` | 107,586,947 | 2.20; - | weeks, one GPU |" in rows


def test_text_is_escaped_outside_code(tables):
    assert tables._text("|x| of `a|b` in [0, 1]") == r"\|x\| of `a\|b` in \[0, 1\]"


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_quickstart_example_draws_images(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "quickstart.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code.replace('load("digits_ve")', 'load("digits_ve:debug")').replace("num_steps=100", "num_steps=3"), names)
    images = np.asarray(names["images"])
    assert images.shape == (16, 8, 8, 1)
    assert np.isfinite(images).all()


def anchors(page):
    """Return the anchors of the headings of a page, as GitHub and MyST generate them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_links_between_pages_have_targets(page):
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())):
        other = page.parent / target if target else page
        assert "://" in target or other.exists(), target
        if anchor and other.suffix == ".md" and other.name != "settings.md":  # whose headings are generated
            assert anchor in anchors(other), f"{target}#{anchor}"
