"""Which files of a folder or zip file are images, what their classes are, and what is left out."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from score_sde_jax.data import DATASETS, finding
from score_sde_jax.errors import UserError

PNG = io.BytesIO()
Image.fromarray(np.full((4, 4, 3), 90, np.uint8)).save(PNG, "PNG")
PNG = PNG.getvalue()


def put(root, *names, content=PNG):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def packed(path, *names, **contents):
    """A zip file of images with these names, and of other contents."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), PNG)
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def found(root):
    files = finding.find(str(root))
    return [str(name) for name in files.names], dict(files.left_out)


def classes(root, **options):
    dataset = DATASETS["image_folder"](dir=str(root), image_size=4, labels=True, **options)
    return dataset.gather(np.arange(len(dataset)))[1].tolist(), dataset.about_classes


HIDDEN = ("._a.png", ".cache/a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png", "b/.DS_Store", "@eaDir/a.png")


def test_hidden_and_system_files_are_no_data(tmp_path):
    put(tmp_path, "a.png", "b/c.jpg", *HIDDEN)
    assert found(tmp_path) == (["a.png", "b/c.jpg"], {"hidden": 6})
    assert found(packed(tmp_path / "z.zip", "a.png", "b/c.jpg", *HIDDEN)) == (["a.png", "b/c.jpg"], {"hidden": 6})


def test_other_files_are_counted_by_suffix(tmp_path):
    put(tmp_path, "a.PNG", "b.jpeg", "IMG_1.HEIC", "IMG_2.heic", "notes.txt", "page.eps", "README")
    put(tmp_path, "0c5e3f")
    (tmp_path / "README").write_text("not an image")
    names, left_out = found(tmp_path)
    assert names == ["0c5e3f", "a.PNG", "b.jpeg"]  # a name without suffix is read by its content
    assert left_out == {".heic": 2, ".txt": 1, ".eps": 1, "without suffix": 1}
    names, again = found(packed(tmp_path / "z.zip", "0c5e3f", "b.jpeg", "IMG_1.HEIC", **{"README": b"text"}))
    assert names == ["0c5e3f", "b.jpeg"] and again == {".heic": 1, "without suffix": 1}


def test_a_folder_without_images_says_what_is_there(tmp_path):
    put(tmp_path, "IMG_1.HEIC", "IMG_2.HEIC")
    with pytest.raises(UserError, match=r"^--config\.data\.dir=.*: no image in it; left out: 2 \.heic$"):
        finding.find(str(tmp_path))


def test_every_real_folder_is_read_once(tmp_path):
    put(tmp_path, "z/1.png", "z/2.png", "3.png")
    for name in ("a", "b", "z/c"):
        os.symlink(tmp_path, tmp_path / name)
    os.symlink(tmp_path / "z", tmp_path / "d")
    os.symlink("nothing", tmp_path / "broken.png")
    names, left_out = found(tmp_path)
    assert names == ["3.png", "z/1.png", "z/2.png"]
    assert left_out == {"link to a folder that is read already or lies around this one": 4, "broken link": 1}
    put(elsewhere := tmp_path.parent / f"{tmp_path.name}-elsewhere", "4.png")
    os.symlink(elsewhere, tmp_path / "e")
    assert "e/4.png" in found(tmp_path)[0]


def test_pipes_and_devices_are_not_opened(tmp_path):
    put(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    os.symlink("/dev/zero", tmp_path / "c.png")
    assert found(tmp_path) == (["a.png"], {"pipe or device": 2})
    for special in (tmp_path / "b.png", "/dev/zero"):
        with pytest.raises(UserError, match=f"{special}: expected a folder or zip file of images, found a pipe or"):
            finding.find(str(special))


def test_names_of_other_systems_in_a_zip_file(tmp_path):
    archive = packed(tmp_path / "w.zip", "cats\\0.png", "cats\\1.png", "dogs\\0.png", "../up.png", "/root.png")
    assert found(archive)[0] == ["../up.png", "/root.png", "cats/0.png", "cats/1.png", "dogs/0.png"]
    assert not (tmp_path.parent / "up.png").exists()  # nothing is unpacked


def test_a_link_to_a_folder_around_is_not_followed(tmp_path):
    put(tmp_path, "data/1.png", "beside/2.png")
    os.symlink("..", tmp_path / "data" / "up")
    assert found(tmp_path / "data")[0] == ["1.png"]


def test_members_of_one_name_are_counted(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = packed(tmp_path / "same.zip", "same.png", "same.png", "same.png", "b.png")
    assert found(archive) == (["b.png", "same.png"], {"of a name that occurs twice": 2})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.png", "one image file; put it into a folder"),
        ("a.npy", r"an npy file; save it with np\.savez"),
        ("a.npz", "an npz file; use --config.data.name=npz"),
    ],
)
def test_a_file_that_is_no_archive_is_told_what_it_is(tmp_path, name, message):
    put(tmp_path, name)
    with pytest.raises(UserError, match=message):
        finding.find(str(tmp_path / name))
    if not name.endswith("png"):
        with pytest.raises(UserError, match=r"no image in it; .*; arrays need --config\.data\.name=npz$"):
            finding.find(str(tmp_path))


def test_damaged_zip_files_are_refused(tmp_path):
    whole = packed(tmp_path / "whole.zip", *(f"{i}.png" for i in range(20))).read_bytes()
    cases = {
        "cut.zip": (whole[: len(whole) // 2], "an incomplete or damaged zip file"),
        "text.zip": (b"hello", "expected a folder or zip file of images"),
        "empty.zip": (b"", "expected a folder or zip file of images"),
        "promise.zip": (b"x" * 200 + b"PK\5\6" + bytes(4) + b"\3\0\3\0" + b"\x40\0\0\0" + b"\x20\0\0\0" + bytes(2), ""),
        "images.npz": (b"PK\3\4", "an npz file; use --config.data.name=npz"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"^--config\.data\.dir=.*{name}: .*{reason}"):
            finding.find(str(tmp_path / name))


def test_a_member_that_declares_to_be_large_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "MAX_FILE_BYTES", 1000)
    archive = packed(tmp_path / "bomb.zip", "a.png", **{"b.png": bytes(2000)})
    names, left_out = found(archive)
    assert names == ["a.png"] and sum(left_out.values()) == 1 and "larger than" in next(iter(left_out))
    labeled = packed(tmp_path / "labels.zip", "a.png", **{"dataset.json": b" " * 2000})
    assert found(labeled)[0] == ["a.png"]  # not read unless the labels are asked for
    with pytest.raises(UserError, match=r"dataset\.json in it is larger than"):
        classes(labeled)


def test_every_cut_of_a_zip_file_is_refused_or_read_whole(tmp_path):
    whole = packed(tmp_path / "whole.zip", "a.png", "b.png").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.zip").write_bytes(whole[:length])
        with pytest.raises(UserError):
            finding.find(str(tmp_path / "cut.zip"))


# ------------------------------------------------------------------------- classes


def test_one_folder_around_the_class_folders_is_passed_over(tmp_path):
    inside = ("cats/1.png", "cats/deep/2.png", "dogs/3.png")
    assert classes(put(tmp_path / "plain", *inside)) == ([0, 0, 1], "cats 2, dogs 1")
    wrapped = [f"pets/{name}" for name in inside]
    assert classes(put(tmp_path / "wrapped", *wrapped)) == ([0, 0, 1], "cats 2, dogs 1")
    assert classes(packed(tmp_path / "pets.zip", *wrapped, "__MACOSX/pets/x.png"))[0] == [0, 0, 1]
    assert classes(put(tmp_path / "hidden", *inside, ".thumbnails/1.png"))[1] == "cats 2, dogs 1"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train/cats/1.png", "test/cats/1.png"],
            r"has the folders test and train, which are splits; to read one of them, give --config.data.dir=.*/train$",
        ),
        (["a/Train/1.png", "a/Val/1.png"], r"has the folders Train and Val, which are splits.*/a/Train$"),
        (["cats/1.png", "cats/2.png"], "has one class folder, cats; at least two classes are needed"),
        (["cats/1.png", "2.png"], "2.png is in no class folder"),
        (
            ["cat_1.png", "dog_1.png"],
            r"cat_1\.png is in no class folder; move .* or give --config\.data\.labels=file_names for classes in names",
        ),
    ],
)
def test_folders_that_are_no_classes_are_refused(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        classes(put(tmp_path, *names))


def test_labels_of_stylegan_and_edm(tmp_path):
    names = ["00000/img0.png", "00000/img1.png", "00001/img2.png"]
    labels = json.dumps({"labels": [[name, label] for name, label in zip(names, (2, 0, 2), strict=True)]})
    put(put(tmp_path, *names), "dataset.json", content=labels.encode())
    assert classes(tmp_path) == ([2, 0, 2], "0 1, 1 0, 2 2") and found(tmp_path)[1] == {}
    assert classes(packed(tmp_path / "edm.zip", *names, **{"dataset.json": labels}))[0] == [2, 0, 2]
    put(tmp_path, "dataset.json", content=json.dumps({"labels": dict(zip(names, (1, 1, 0), strict=True))}).encode())
    assert classes(tmp_path)[0] == [1, 1, 0]
    put(tmp_path, "dataset.json", content=b'{"labels": null}')
    assert classes(tmp_path)[0] == [0, 0, 1]  # by folder


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"labels": 3}',
        b'{"labels": [["00000/img0.png", -1]]}',
        b'{"labels": [["00000/img0.png", 1.5]]}',
        b'{"labels": [["other.png", 1]]}',
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, content):
    put(put(tmp_path, "00000/img0.png"), "dataset.json", content=content)
    with pytest.raises(UserError, match=r"dataset\.json: not the labels of StyleGAN and EDM"):
        classes(tmp_path)


def by_file_name(root):
    dataset = DATASETS["image_folder"](dir=str(root), image_size=4, labels="file_names")
    return dataset.class_names, dataset.gather(np.arange(len(dataset)))[1].tolist(), dataset.notes


def test_classes_in_the_names_of_files(tmp_path):
    names = [
        "bird (1)",
        "cat_0001",
        "deep/cat_0002",
        "dog-12",
        "dog-7",
        "fox12",
        "n01440764_10026",
        "3_0001",
        "red fox 2",
    ]
    put(tmp_path, *(f"{name}.png" for name in names))
    assert by_file_name(tmp_path)[:2] == (
        ["3", "bird", "cat", "dog", "fox", "n01440764", "red fox"],
        [0, 1, 2, 2, 3, 3, 4, 5, 6],  # of the sorted paths
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat_1", "0001"], r"0001\.png is not a name with a number at its end, such as cat_0001\.png"),
        (["cat_1", "dog"], r"dog\.png is not a name with a number at its end"),
        (["cat_1", "cat_2"], "has one class, cat; at least two classes are needed"),
    ],
)
def test_names_of_files_that_are_no_classes_are_refused(tmp_path, names, message):
    with pytest.raises(UserError, match=rf"^--config\.data\.labels=file_names: .*{message}"):
        by_file_name(put(tmp_path, *(f"{name}.png" for name in names)))


# ------------------------------------------------------------------------- folders that are in one set


def notes(root, **options):
    return [
        note for note in DATASETS["image_folder"](dir=str(root), image_size=4, **options).notes if "in one set" in note
    ]


PAIRS = ("images/1.jpg", "images/deep/2.jpg", "masks/1.png", "masks/deep/2.png")


def test_images_beside_masks_are_noted(tmp_path):
    (note,) = notes(put(tmp_path / "data", *PAIRS))
    assert note == (
        "note: the folders images and masks have files of the same names, and all are in one set; to read one of them, "
        f"give --config.data.dir={tmp_path / 'data' / 'images'}"
    )
    (note,) = notes(put(tmp_path / "more", "inputs/1.png", "targets/1.png", "other/2.png", "3.png"))
    assert "folders inputs and targets" in note
    (note,) = notes(packed(tmp_path / "z.zip", *(f"around/{name}" for name in PAIRS)))
    assert note.endswith(f"unpack the zip file, and give --config.data.dir={tmp_path / 'z' / 'around' / 'images'}")


def test_splits_beside_each_other_are_noted(tmp_path):
    put(tmp_path, "around/Val/cat_1.png", "around/Train/cat_2.png", "around/Train/dog_1.png", "around/other/dog_3.png")
    (note,) = notes(tmp_path)
    assert note == (
        "note: the splits Train and Val are in one set; to read one of them, give "
        f"--config.data.dir={tmp_path / 'around' / 'Train'}"
    )
    assert by_file_name(tmp_path)[2][0] == note


def test_folders_of_other_files_are_not_noted(tmp_path):
    assert not notes(put(tmp_path / "one", "train/1.png", "train/2.png"))
    assert not notes(put(tmp_path / "two", "a/1.png", "b/2.png", "3.png"))
    assert not notes(put(tmp_path / "classes", "a/1.png", "b/1.png"), labels=True)
