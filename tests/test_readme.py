"""The README: its program runs as written, and its configs and links exist."""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROSE = re.sub(r"```.*?```", "", README, flags=re.DOTALL)


@pytest.mark.usefixtures("quick_compilation")
def test_program_of_the_readme_trains_and_samples():
    """Three lengths and the width are cut; every other line runs as written."""
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    cuts = {
        ", 1000):": ", 20):",
        "widths=(64,)": "widths=(16,)",
        "num_steps=10": "num_steps=1",
        "levels=24": "levels=4",
    }
    for text, less in cuts.items():
        assert program.count(text) == 1
        program = program.replace(text, less)
    names = {}
    exec(compile(program, "README.md", "exec"), names)
    keys, x0 = jax.random.split(jax.random.key(3), 256), names["images"][:256]
    untrained = names["network"].init(jax.random.key(0), x0[:1], names["Condition"](jnp.zeros(1)))
    before, after = (float(names["loss_fn"](params, keys, x0)) for params in (untrained, names["params"]))
    assert after < 0.95 * before
    digits = names["digits"]
    assert digits.shape == (64, 8, 8, 1) and jnp.isfinite(digits).all() and jnp.std(digits, axis=0).min() > 0.01


@pytest.mark.parametrize("name", sorted(set(re.findall(r"--config=(\S+?)(?:\.py)?(?=[\s`])", README))))
def test_config_of_the_readme_exists(name):
    assert (ROOT / "configs" / f"{name.removeprefix('configs/')}.py").is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?://|#)([^)#]+)", PROSE))))
def test_link_of_the_readme_leads_to_a_file(target):
    assert (ROOT / target).exists()
