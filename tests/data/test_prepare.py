"""The prepare command: its data against the archives, read by TFDS, and its errors."""

import os
import re
import signal
import subprocess
import sys
import time
import types

import made_up
import numpy as np
import pytest
import tensorflow_datasets as tfds
from patience import time_limit

from score_sde_jax.data import prepare


def run(name, archives, data_dir, *more):
    """Run the command in this process and return its exit status."""
    return prepare.main([f"--dataset={name}", f"--archives={archives}", f"--data_dir={data_dir}", *more])


def official(name, data_dir, split, **options):
    """Return the data source that TFDS opens."""
    return tfds.data_source(name, split=split, data_dir=data_dir, download=False, **options)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_tfds_reads_the_content_of_the_archives(name, archives, data_dir):
    for split, (images, labels) in archives[name][1].items():
        source = official(name, data_dir, split)
        assert len(source) == len(images)
        assert np.array_equal([example["image"] for example in source], images)
        assert [example["label"] for example in source] == labels.tolist()
    assert "tensorflow" not in sys.modules


def test_tfds_knows_the_names_and_ids_of_cifar10(data_dir):
    source = official("cifar10", data_dir, "test")
    assert source.dataset_info.features["label"].names == made_up.CIFAR10_NAMES.split()
    assert source[3]["id"] == b"test_00003"


def test_tfds_reads_all_of_celeb_a(archives, data_dir):
    names = made_up.ATTRIBUTES.split()
    for split, rows in archives["celeb_a"][1].items():
        raw = official("celeb_a", data_dir, split, decoders={"image": tfds.decode.SkipDecoding()})
        assert len(raw) == len(rows)
        for example, row in zip(raw, rows, strict=True):
            assert example["image"] == row["jpeg"]
            assert [example["attributes"][key] for key in names] == [value > 0 for value in row["attributes"]]
            landmarks = [example["landmarks"][key] for key in made_up.LANDMARKS.split()]
            assert landmarks == row["landmarks"]
            assert example["identity"]["Identity_No"] == row["identity"]


def test_shards(data_dir):
    files = sorted(path.name for path in (data_dir / "celeb_a").glob("*/*train*"))
    assert files == [f"celeb_a-train.array_record-0000{i}-of-00002" for i in range(2)]


def test_prepare_existing_data_changes_nothing(archives, data_dir, capsys):
    before = sorted((path, path.stat().st_mtime_ns) for path in data_dir.rglob("*"))
    assert run("mnist", archives["mnist"][0], data_dir) == 0
    assert "already prepared" in capsys.readouterr().out
    assert sorted((path, path.stat().st_mtime_ns) for path in data_dir.rglob("*")) == before


def test_checksums(tmp_path, monkeypatch, capsys):
    made_up.write_mnist(tmp_path)
    record = {
        f"http://example.org/{path.name}": types.SimpleNamespace(
            size=path.stat().st_size, checksum=prepare._sha256(path), filename=path.name
        )
        for path in tmp_path.iterdir()
    }
    monkeypatch.setattr(tfds.builder_cls("mnist"), "url_infos", record)
    assert run("mnist", tmp_path, tmp_path / "good") == 0

    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(labels.read_bytes())
    content[4] ^= 1  # the time stamp of gzip: same size, same labels
    labels.write_bytes(content)
    assert run("mnist", tmp_path, tmp_path / "bad") == 2
    assert f"error: {labels}: size or SHA-256 differs" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()
    assert run("mnist", tmp_path, tmp_path / "bad", "--allow_unverified") == 0
    assert f"warning: {labels}: size or SHA-256 differs" in capsys.readouterr().err
    assert len(official("mnist", tmp_path / "bad", "test")) == 20


def test_the_official_checksums_are_the_ones_compared(archives, tmp_path, capsys):
    assert run("cifar10", archives["cifar10"][0], tmp_path) == 2
    assert "cifar-10-binary.tar.gz: size or SHA-256 differs" in capsys.readouterr().err


def test_a_missing_archive_is_named_with_its_address(archives, tmp_path, capsys):
    for path in archives["celeb_a"][0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "list_attr_celeba.txt").unlink()
    assert run("celeb_a", tmp_path, tmp_path / "out", "--allow_unverified") == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(f"error: {tmp_path}/list_attr_celeba.txt: missing; download it from htt")
    assert not (tmp_path / "out").exists()


def edit_text(name, old, new):
    """Return a function that replaces text in a file of a directory."""

    def edit(directory):
        text = (directory / name).read_text()
        assert old in text
        (directory / name).write_text(text.replace(old, new, 1))

    return edit


def truncate(name, share):
    """Return a function that truncates a file of a directory."""

    def edit(directory):
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content[: int(share * len(content))])

    return edit


def corrupt_a_jpeg(directory):
    path = directory / "img_align_celeba.zip"
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("mnist", truncate("train-images-idx3-ubyte.gz", 0.5), "train-images.*not readable"),
        ("cifar10", truncate("cifar-10-binary.tar.gz", 0.5), "cifar-10-binary.*not a readable tar"),
        ("celeb_a", truncate("img_align_celeba.zip", 0.5), "img_align_celeba.zip: not a readable"),
        ("celeb_a", corrupt_a_jpeg, "img_align_celeba.zip: .*jpg is corrupted"),
        (
            "celeb_a",
            edit_text("identity_CelebA.txt", "000003.jpg", "3.jpg"),
            "000003.jpg is not in",
        ),
        (
            "celeb_a",
            edit_text("list_attr_celeba.txt", "Bald", "Hairy"),
            "attr.*line 2 does not name",
        ),
        (
            "celeb_a",
            edit_text("list_attr_celeba.txt", " -1", ""),
            r"list_attr_celeba.txt: line \d+ is",
        ),
        (
            "celeb_a",
            edit_text("list_eval_partition.txt", "g 0", "g zero"),
            r"partition.txt: line \d+",
        ),
    ],
)
def test_corrupted_archives(name, edit, message, archives, tmp_path, capfd):
    for path in archives[name][0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    edit(tmp_path)
    assert run(name, tmp_path, tmp_path / "out", "--allow_unverified") == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "warning" not in line]
    assert re.search(f"error: .*{message}", line), line
    assert not list((tmp_path / "out" / name).iterdir())


def test_num_shards_out_of_range_is_refused(archives, tmp_path, capsys):
    flags = ("--allow_unverified", "--num_shards=30")
    assert run("cifar10", archives["cifar10"][0], tmp_path, *flags) == 2
    assert "error: --num_shards=30: must be <= 10, the number of examples in split test" in capsys.readouterr().err
    assert run("cifar10", archives["cifar10"][0], tmp_path, "--num_shards=0") == 2


def test_wrong_flags():
    for flags in ([], ["--dataset=imagenet", "--archives=a", "--data_dir=b"]):
        with pytest.raises(SystemExit) as exit:
            prepare.main(flags)
        assert exit.value.code == 2


SLOW_PREPARE = """
import sys, time
from score_sde_jax.data import archives, prepare
png, images = archives._png, []
def slow_png(image):
    images.append(image)
    time.sleep(3600 if len(images) == 45 else 0)
    return png(image)
archives._png = slow_png
sys.exit(prepare.main(sys.argv[1:]))
"""


def test_a_killed_run_leaves_no_data_and_the_next_starts_over(archives, tmp_path, capsys):
    directory, content = archives["cifar10"]
    flags = ["--dataset=cifar10", f"--archives={directory}", f"--data_dir={tmp_path}"]
    command = [sys.executable, "-c", SLOW_PREPARE, *flags, "--allow_unverified"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = tmp_path / "cifar10" / "incomplete.3.0.2"
    deadline = time.monotonic() + time_limit(30)
    while not (partial.is_dir() and list(partial.iterdir())):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)

    assert run("cifar10", directory, tmp_path, "--allow_unverified") == 2
    assert "another run is writing to it" in capsys.readouterr().err
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    assert list(partial.iterdir())
    with pytest.raises(Exception, match="cifar10"):
        official("cifar10", tmp_path, "train")
    assert run("cifar10", directory, tmp_path, "--allow_unverified") == 0
    assert [path.name for path in (tmp_path / "cifar10").iterdir()] == ["3.0.2"]
    source = official("cifar10", tmp_path, "train")
    assert np.array_equal([example["image"] for example in source], content["train"][0])


def test_the_command_is_quiet_and_shows_progress(archives, tmp_path):
    directory, _ = archives["celeb_a"]
    flags = ["--dataset=celeb_a", f"--archives={directory}", f"--data_dir={tmp_path}"]
    command = [sys.executable, "-m", "score_sde_jax.data.prepare", *flags, "--allow_unverified"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(line.startswith("warning: ") for line in result.stderr.splitlines())
    assert "train: 24 of 24, 0 s left" in result.stdout
    assert result.stdout.splitlines()[-1] == f"celeb_a: prepared in {tmp_path}/celeb_a/2.1.0"
