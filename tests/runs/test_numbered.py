"""Sets of samples in shards: existing shards stay unchanged, and reading returns all samples."""

import collections
import json

import numpy as np
import pytest

from score_sde_jax.data import DATASETS
from score_sde_jax.errors import UserError
from score_sde_jax.runs import batch_sampler, numbered, pictures
from score_sde_jax.runs.numbered import NFE, SampleSet, batches
from score_sde_jax.runs.records import write_atomically

WHAT = {"seed": 1}


def rows(first, num):
    """Images and labels of these numbers."""
    numbers = np.arange(first, first + num)
    images = np.broadcast_to(numbers[:, None, None, None], (num, 4, 4, 1)).astype(np.uint8)
    return images, {"labels": numbers.astype(np.int32)}


def saved(directory, *lengths):
    """Save a set in parts of these lengths, each by another process."""
    first = 0
    for length in lengths:
        samples = SampleSet(directory, WHAT, shape=(4, 4, 1))
        assert len(samples) == first
        samples.append(*rows(first, length))
        samples.save({NFE: 3.0})
        first += length
    return SampleSet(directory, WHAT, shape=(4, 4, 1))


def test_a_save_writes_what_is_new_and_touches_nothing_else(tmp_path):
    samples = saved(tmp_path, 3, 5)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*.npz")}
    assert set(before) == {"images.npz", "images-000000003.npz"} and len(samples) == 8
    more = saved_again(tmp_path, 8, 1)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("*.npz")}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"images-000000008.npz"} and len(more) == 9


def saved_again(directory, first, num):
    samples = SampleSet(directory, WHAT, shape=(4, 4, 1))
    samples.append(*rows(first, num))
    samples.save({})
    return SampleSet(directory, WHAT, shape=(4, 4, 1))


@pytest.mark.parametrize("lengths", [(9,), (3, 5, 1), (1, 1, 7)])
def test_the_shards_together_are_the_set(tmp_path, lengths):
    samples = saved(tmp_path, *lengths)
    want, extras = rows(0, 9)
    np.testing.assert_array_equal(samples.column("images"), want)
    np.testing.assert_array_equal(samples.column("labels"), extras["labels"])
    for num in (1, 4, 9, 20):
        head = samples.head(num)
        np.testing.assert_array_equal(head["images"], want[:num])
        np.testing.assert_array_equal(head["labels"], extras["labels"][:num])
    samples.save_files()
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [f"{i:06d}.png" for i in range(9)]
    data = DATASETS["npz"](dir=str(tmp_path))  # as a dataset with labels
    np.testing.assert_array_equal(data.gather(np.arange(9))[0], want)
    np.testing.assert_array_equal(data.gather(np.arange(9))[1], extras["labels"])


def test_an_archive_of_an_earlier_version_is_the_first_shard(tmp_path):
    images, extras = rows(0, 5)
    np.savez_compressed(tmp_path / "images.npz", images=images, **extras)
    (tmp_path / "samples.json").write_text(json.dumps({"description": WHAT, "num_images": 5}))
    samples = saved_again(tmp_path, 5, 2)
    np.testing.assert_array_equal(samples.column("images"), rows(0, 7)[0])


def test_shards_count_and_not_the_record(tmp_path):
    """A kill between a shard and its record loses nothing."""
    saved(tmp_path, 3, 5)
    record = json.loads((tmp_path / "samples.json").read_text())
    (tmp_path / "samples.json").write_text(json.dumps(record | {"num_images": 3}))
    assert len(SampleSet(tmp_path, WHAT, shape=(4, 4, 1))) == 8


def test_another_description_is_refused(tmp_path):
    saved(tmp_path, 3)
    with pytest.raises(UserError, match="holds samples of another seed, sampler or checkpoint"):
        SampleSet(tmp_path, {"seed": 2}, shape=(4, 4, 1))


def test_more_than_ten_shards_stay_in_order(tmp_path):
    samples = saved(tmp_path, *[1] * 12)
    np.testing.assert_array_equal(samples.column("labels"), np.arange(12))


def test_batches_go_on_where_a_set_stops(tmp_path):
    samples, asked = saved(tmp_path, 3), []
    for first, length in batches(samples, 10, 4, lambda line: None, "sample"):
        asked.append((first, length))
        samples.append(*rows(first, length))
    assert asked == [(3, 4), (7, 3)] and len(samples) == 10


def test_who_writes_nothing_keeps_nothing(tmp_path):
    samples = SampleSet(tmp_path, WHAT, shape=(4, 4, 1))
    samples.append(*rows(0, 4))
    samples.forget()
    assert len(samples) == 4 and list(samples.blocks()) == [] and list(tmp_path.iterdir()) == []


class Stub:
    """A sampler of numbered images, whose numbers of evaluations differ."""

    COUNTS = np.array([4, 6, 8, 20, 30, 40, 50, 7])
    are_images, batch_size, picture = True, 3, staticmethod(pictures.grid)

    def __init__(self, inputs=None):
        self.inputs = inputs

    def draw(self, params, key, first):
        images, extras = rows(first, 3)
        nfe = np.resize(self.COUNTS, first + 3)[first:]
        return batch_sampler.SampleBatch(images, images[None], nfe, extras, np.ones(3, bool))


def draw(directory, total, inputs=None):
    """Generate a set up to `total` images, as another process does."""
    samples = SampleSet(directory, WHAT, shape=(4, 4, 1))
    samples.begin()
    batch_sampler.draw_set(samples, Stub(inputs), None, 0, total, {"command": "again"}, lambda line: None)


def test_the_nfe_of_a_set_is_the_mean_over_all_its_images(tmp_path):
    """The images need different numbers of evaluations, in several batches and two processes."""
    for total in (4, 8):
        draw(tmp_path, total)
        record = json.loads((tmp_path / "samples.json").read_text())
        assert record[NFE] == pytest.approx(Stub.COUNTS[:total].mean(), abs=0.1)
        assert (record["num_images"], record["command"]) == (total, "again")
    assert len(SampleSet(tmp_path, WHAT, shape=(4, 4, 1))) == 8


class KilledError(BaseException):
    """A kill -9 of the process."""


@pytest.mark.parametrize("shown", [4, 64])  # further images change the grid or not
def test_draw_set_killed_at_any_write_ends_as_if_it_was_not(shown, tmp_path, monkeypatch):
    """A call that is killed before its n-th write and repeated has the files of an uninterrupted call."""

    class Inputs:
        def extras(self, indices, images, key):
            return {}

        def pictures(self, images, extras):
            return {"observed.png": pictures.Rows(images[:shown])}

    monkeypatch.setattr(Stub, "COUNTS", np.full(8, 4))  # the mean NFE is saved with one digit after the point
    monkeypatch.setattr(batch_sampler, "SAVE_SECONDS", 0.0)  # after every batch
    monkeypatch.setattr(batch_sampler, "SHOWN", shown)
    monkeypatch.setattr(pictures, "render", lambda picture: pictures.grid(picture.images))
    monkeypatch.setattr(pictures, "Rows", collections.namedtuple("Rows", "images"), raising=False)

    def drawn(directory, killed_at):
        """Generate 4 images, then 8, with a kill before one write; return the files after each call."""
        writes, calls = 0, []

        def write(path, data):
            nonlocal writes
            writes += 1
            if writes == killed_at:
                raise KilledError
            write_atomically(path, data)

        for module in (numbered, pictures):
            monkeypatch.setattr(module, "write_atomically", write)
        for total in (4, 8):
            try:
                draw(directory, total, Inputs())
            except KilledError:
                draw(directory, total, Inputs())
            shards = {"images": SampleSet(directory, WHAT, shape=(4, 4, 1)).column("images").tobytes()}
            files = (path for path in directory.iterdir() if path.suffix != ".npz")
            calls.append(shards | {path.name: path.read_bytes() for path in files})
        return writes, calls

    writes, expected = drawn(tmp_path / "whole", None)
    assert writes > 10 and {"grid.png", "observed.png", "annealing.gif", "samples.json"} < set(expected[-1])
    for killed_at in range(1, writes + 1):
        _, calls = drawn(tmp_path / str(killed_at), killed_at)
        assert calls == expected, killed_at


@pytest.mark.parametrize("missing", [[0], [1], [2], [0, 2], [1, 2]])
def test_images_of_a_missing_shard_are_drawn_again(tmp_path, missing):
    """Shards have 2, 1, 4 and 1 images: new images fill the gaps, and no number occurs twice."""
    saved(tmp_path / "whole", 2, 1, 4, 1)
    saved(tmp_path, 2, 1, 4, 1)
    paths = [tmp_path / f"images{name}.npz" for name in ("", "-000000002", "-000000003", "-000000007")]
    kept = {path: path.read_bytes() for i, path in enumerate(paths) if i not in missing}
    for i in missing:
        paths[i].unlink()
    draw(tmp_path, 10)
    samples = SampleSet(tmp_path, WHAT, shape=(4, 4, 1))
    np.testing.assert_array_equal(samples.column("labels"), np.arange(10))
    np.testing.assert_array_equal(samples.column("images"), rows(0, 10)[0])
    assert {path: path.read_bytes() for path in kept} == kept and samples.gaps(10) == []
    samples.save_files()
    assert len(list((tmp_path / "images").iterdir())) == 10


def test_gaps_of_a_set(tmp_path):
    saved(tmp_path, 2, 1, 4, 1)
    (tmp_path / "images.npz").unlink()
    (tmp_path / "images-000000003.npz").unlink()
    samples = SampleSet(tmp_path, WHAT, shape=(4, 4, 1))
    assert len(samples) == 2
    for total, gaps in {
        1: [(0, 1)],
        2: [(0, 2)],
        3: [(0, 2)],
        5: [(0, 2), (3, 5)],
        9: [(0, 2), (3, 7), (8, 9)],
    }.items():
        assert samples.gaps(total) == gaps and samples.gap(total) == gaps[0]


def test_shards_that_repeat_images_are_damaged(tmp_path):
    """Two programs that write at the same time leave such shards."""
    saved(tmp_path, 4, 2)
    (tmp_path / "images-000000003.npz").write_bytes((tmp_path / "images-000000004.npz").read_bytes())
    with pytest.raises(numbered.DamagedSetError, match=r"images-000000003\.npz: repeats images of the file before it"):
        SampleSet(tmp_path, WHAT, shape=(4, 4, 1))
    (tmp_path / "images-000000003.npz").unlink()
    (tmp_path / "samples.json").unlink()
    with pytest.raises(numbered.DamagedSetError, match=r"samples\.json: is missing, but there are samples"):
        SampleSet(tmp_path, WHAT, shape=(4, 4, 1))
