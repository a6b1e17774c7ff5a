"""Wrong and hostile command lines: each is refused in one line with the typed text, before any file is written."""

import os
import pathlib

import numpy as np
import pytest
from typed import DIGITS_HERE, ROOT

TOY_HERE = "--config=ROOT/configs/toy.py:debug"
CLASSES_HERE = "--config=ROOT/configs/digits_classifier.py:debug"
FOLDER = [DIGITS_HERE, "--config.data.name=image_folder", "--config.data.image_size=8", "--config.data.channels=1"]
LONG = "x" * 300
HUGE = "9" * 5000

CONFIG_FILES = {
    "number": "get_config = 3",
    "no_argument": "def get_config():\n    return None",
    "none": "def get_config(variant):\n    return None",
    "dict": "def get_config(variant):\n    return {}",
    "key_error": "def get_config(variant):\n    raise KeyError('k')",
    "endless": "def get_config(variant):\n    return get_config(variant)",
    "leaves": "import sys\nsys.exit(0)",
    "list": "from ml_collections import ConfigDict\ndef get_config(variant):\n    c = ConfigDict()\n    c.model = [1]\n"
    "    return c",
}
CHANGES = {  # statements on the config of digits
    "unhashable": "c.model.name = ['mlp']",
    "array": "import numpy; c.sde.sigma_max = numpy.ones(3)",
    "array_of_text": "import numpy; c.data.split = numpy.zeros(3)",
    "nan": "c.optimizer.learning_rate = float('nan')",
    "section": "c.unlock(); c.sampler = None; c.sampler = [1, 2]",
}


@pytest.fixture
def prepared(tmp_path):
    """Files and folders of the cases, in the folder TMP."""
    for name, text in CONFIG_FILES.items():
        (tmp_path / f"{name}.py").write_text(text + "\n")
    for name, change in CHANGES.items():
        text = "from configs import digits\n\n\ndef get_config(variant):\n    c = digits.get_config('debug')\n"
        text += f"    with c.ignore_type():\n        {change}\n    return c\n"
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    os.mkfifo(tmp_path / "images.npz")
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    np.savez(tmp_path / "equal.npz", images=np.full((8, 8, 8, 1), 7, np.uint8))
    (tmp_path / "file").write_text("")
    return tmp_path


FLAGS = [
    (["--checkpoint=²", "--mode=sample"], "--checkpoint=²: give the step of a checkpoint, or best"),
    ([f"--checkpoint={HUGE}", "--mode=sample"], "--checkpoint=999"),
    (["--profile=²:³"], "--profile=²:³: give the first and the last step"),
    ([f"--profile=1:{HUGE}"], ": give the first and the last step"),
    (["--seed=18446744073709551616"], "--seed=18446744073709551616: must be >= 0 and < "),
    (["--seed=1e3"], "--seed=1e3: expected an integer"),
    (
        ["--num_images=1000000000000000", "--mode=sample"],
        "--num_images=1000000000000000: must be >= 1 and <",
    ),
    (["--workdir="], "--workdir=: is empty"),
    (["--workdir=", "--mode=sample"], "--workdir=: is empty"),
    (["--output=", "--mode=sample"], "--output=: is empty"),
    (["--config="], "--config=: is empty"),
    ([f"--workdir=TMP/{LONG}"], ": File name too long"),
    (["--workdir=TMP/file"], "/file: is no directory"),
    (["--workdir=TMP/pipe.py"], "/pipe.py: is no directory"),
    (["--workdir=TMP/loop"], "/loop: Too many levels of symbolic links"),
    (["--workdir=TMP/caf\udce9"], "/caf\\udce9: has bytes that are not UTF-8"),
    (["--workdir=~nobodyofthisname/run"], "--workdir=~nobodyofthisname/run: there is no user ~nobodyofthisname"),
    (["--output=TMP/file", "--mode=sample"], "--output=TMP/file: is no directory"),
    ([f"--output=TMP/{LONG}", "--mode=sample"], ": File name too long"),
    (["--process_id=0", "--num_processes=1", "--coordinator_address=nonsense"], "nonsense: expected HOST:PORT"),
    (["--process_id=0", "--num_processes=1", "--coordinator_address=localhost:99999"], ":99999: expected HOST:PORT"),
    (
        ["--process_id=0", "--num_processes=1000000000000", "--coordinator_address=localhost:9999"],
        "--num_processes=1000000000000: must be >= 1 and < ",
    ),
]

OVERRIDES = [
    ("train.steps={[]:1}", "--config.train.steps={[]:1}: expected an integer"),
    ("train.steps={{}}", "--config.train.steps={{}}: expected an integer"),
    ("train.steps=" + "-" * 20_000 + "1", ": expected an integer"),
    (f"train.steps={HUGE}", "--config.train.steps="),
    ("seed=-1", "--config.seed=-1: must be >= 0 and < 4,294,967,296"),
    ("optimizer.learning_rate=-1.0", "--config.optimizer.learning_rate=-1.0: must be >= 0"),
    ("optimizer.learning_rate=1e999", "--config.optimizer.learning_rate=1e999: must be >= 0"),
    ("optimizer.learning_rate=inf", "--config.optimizer.learning_rate=inf: must be >= 0"),
    ("task.fraction=nan", "--config.task.fraction: "),
    ("train=5", "--config.train=5: train is a section; set one of its keys, such as train.steps"),
    ("sde=5", "--config.sde=5: sde is a section; set one of its keys, such as sde.name"),
    ("train.batch_size=7,8", "--config.train.batch_size=7,8: expected an integer"),
    ("model.widths=[]", "--config.model.widths=[]: must have at least one item"),
    ("data.image_size=16x24", "--config.data.image_size=16x24: expected an integer or numbers such as 1,2"),
    ("model.num_classes=3", "--config.model.num_classes=3: digits has 10 classes"),
    ("optimizer.beta1=1.0", "--config.optimizer.beta1=1.0: must be >= 0 and < 1"),
    ("optimizer.gradient_clip=0.0", "--config.optimizer.gradient_clip=0.0: must be >= 1e-18"),
    ("optimizer.warmup_steps=" + "1" + "0" * 30, "--config.optimizer.warmup_steps=1000"),
    ("sde.t_max=0.0", "--config.sde.t_max=0.0: must be >= 1e-18"),
    ("sde.t_min=2.0", "--config.sde: t_min must be >= 0 and < t_max=1.0, got 2.0"),
    ("sde.sigma_max=1e99", "--config.sde.sigma_max=1e99: must be"),
    ("sde.t_max=1e9", "--config.sde.name=ve with t_min=0.0, t_max=1000000000.0"),
    ("model.bottleneck=0", "--config.model.bottleneck=0: must be >= 1"),
    ("model.bottleneck=1000000000000", "--config.model.bottleneck=1000000000000: must be >= 1 and < 65,536"),
    ("model.widths=(0,)", "--config.model.widths=(0,): must be >= 1"),
    ("model.widths=()", "--config.model.widths=(): must have at least one item"),
    ("model.num_blocks=-1", "--config.model.num_blocks=-1: must be >= 1"),
    ("data.value_range=(1e99,2e99)", "--config.data.value_range=(1e99,2e99): must be"),
    ("data.value_range=(1,0)", "the first value must be < the second"),
    ("train.batch_size=1000000000000", "--config.train.batch_size=1000000000000: must be >= 1 and < "),
    ("sampler.temperature=1e999", "--config.sampler.temperature=1e999: must be"),
    ("sampler.corrector.num_steps=" + "1" + "0" * 30, "--config.sampler.corrector.num_steps=1000"),
]

FILES = [
    ("/nothing.py", "/nothing.py: no such file or packaged config"),
    ("xyz", "--config=xyz: no such file or packaged config; the packaged configs are in "),
    (".", "--config=.: no such file or packaged config"),
    (LONG, "File name too long"),
    ("x/" * 2500, "File name too long"),
    ("~nobodyofthisname/c.py", "there is no user ~nobodyofthisname"),
    ("TMP/folder.py", "/folder.py: expected a Python file, found a folder"),
    ("TMP/pipe.py", "/pipe.py: expected a Python file, found a pipe or device"),
    ("TMP/number.py", "number.py: the file defines no function get_config(variant)"),
    ("TMP/no_argument.py", "get_config failed (TypeError"),
    ("TMP/none.py", "get_config must return an ml_collections.ConfigDict, not NoneType"),
    ("TMP/dict.py", "get_config must return an ml_collections.ConfigDict, not dict"),
    ("TMP/key_error.py", "get_config failed (KeyError"),
    ("TMP/endless.py", "get_config failed (RecursionError"),
    ("TMP/leaves.py", "leaves.py: SystemExit"),
    ("TMP/list.py", "--config."),
    ("TMP/unhashable.py", "--config.model.name=['mlp']: choose one of ncsn,"),
    ("TMP/array.py", "expected a number or auto"),
    ("TMP/array_of_text.py", "--config.data.split=[0. 0. 0.]: expected a string"),
    ("TMP/nan.py", "--config.optimizer.learning_rate=nan: must be"),
    ("TMP/section.py", "--config"),
]

DATA = [
    ([*FOLDER, "--config.data.dir=~nobodyofthisname/images"], "there is no user ~nobodyofthisname"),
    ([*FOLDER, f"--config.data.dir=TMP/{LONG}"], "File name too long"),
    ([*FOLDER, "--config.data.dir=TMP/pipe.py"], "found a pipe or device"),
    ([*FOLDER, "--config.data.dir=TMP/equal.npz"], "an npz file; use --config.data.name=npz"),
    ([DIGITS_HERE, "--config.data.name=npz", "--config.data.dir=TMP/images.npz"], "found a pipe or device"),
    (
        [DIGITS_HERE, "--config.data.name=npz", "--config.data.dir=TMP/equal.npz", "--config.sde.sigma_max=auto"],
        "--config.sde.sigma_max=auto: the largest distance between two of the 8 images of npz is 0",
    ),
    (["--config=ROOT/configs/celeba.py:debug", "--config.data.image_size=-1"], "image_size=-1: must be >= 1 and <"),
    (["--config=ROOT/configs/celeba.py:debug", "--config.data.channels=-1"], "channels=-1: expected one of 1, 3"),
    ([CLASSES_HERE, "--config.model.multiplier=0"], "--config.model.multiplier=0: must be >= 1"),
    ([CLASSES_HERE, "--config.model.num_classes=0"], "--config.model.num_classes=0: must be >= 1"),
    ([TOY_HERE, "--config.model.name=small_unet"], "--config.model.name=small_unet: is for images, not for points"),
    (
        [TOY_HERE, "--config.sde.name=ddpm", "--config.sde.num_levels=1000000000000"],
        "--config.sde.num_levels=1000000000000: must be >= 2 and <",
    ),
]


def refused(run, tmp_path, arguments, part):
    before = sorted(tmp_path.rglob("*"))
    part = part.replace("TMP", str(tmp_path)).replace("ROOT", str(ROOT))
    code, err, out = run(*arguments)
    assert code == 2 and out == "", (err, out)
    assert err.startswith("error: ") and err.count("\n") == 1 and part in err and len(err) < 2100, err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("arguments", "part"), FLAGS, ids=lambda value: str(value)[:60])
def test_careless_flag(run, prepared, tmp_path, arguments, part):
    config = [] if arguments[0].startswith("--config=") else [DIGITS_HERE]
    refused(run, tmp_path, [*config, *arguments], part)


@pytest.mark.parametrize(("override", "part"), OVERRIDES, ids=lambda value: value[:60])
def test_careless_override(run, tmp_path, override, part):
    refused(run, tmp_path, [DIGITS_HERE, f"--config.{override}"], part)


@pytest.mark.parametrize(("file", "part"), FILES, ids=lambda value: value[:60])
def test_careless_config_file(run, prepared, tmp_path, file, part):
    refused(run, tmp_path, [f"--config={file}", "--mode=info"], part)


@pytest.mark.parametrize(("arguments", "part"), DATA, ids=lambda value: str(value)[-60:])
def test_careless_data(run, prepared, tmp_path, arguments, part):
    refused(run, tmp_path, [*arguments, "--mode=train"], part)


def test_a_frozen_config_is_a_config(run, tmp_path):
    (tmp_path / "frozen.py").write_text(
        "from configs import digits\nfrom ml_collections import FrozenConfigDict\n\n\n"
        "def get_config(variant):\n    return FrozenConfigDict(digits.get_config('debug'))\n"
    )
    code, err, out = run(f"--config={tmp_path / 'frozen.py'}", "--mode=info")
    assert (code, err) == (None, "") and "parameters: " in out


def test_a_home_directory_is_expanded(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    code, err, _ = run(DIGITS_HERE, "--mode=sample", "--workdir=~/run")
    assert code == 2 and f"--workdir={tmp_path / 'run'}: holds no checkpoint" in err
    assert not pathlib.Path("~").exists()
