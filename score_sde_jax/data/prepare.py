"""Turn downloaded archives into TFDS data, without TensorFlow and without a network.

python -m score_sde_jax.data.prepare --dataset=celeb_a --archives=DIR --data_dir=DIR

The result is what `tfds.data_source(name, data_dir=DIR, download=False)` opens, images bit for bit
those of the archives, in the archives' order. It is written beside its place and renamed when it is
whole: a killed run leaves nothing that looks like data, and the next run starts over.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from score_sde_jax.data.archives import ARCHIVES
from score_sde_jax.errors import UserError

REPORT_SECONDS = 5.0


def prepare(
    dataset: str,
    archives: Path,
    data_dir: Path,
    num_shards: int = 1,
    allow_unverified: bool = False,
) -> None:
    """Write the TFDS data of a data set of ARCHIVES into `data_dir`, or say that they are there.

    Raises UserError for archives that are missing, damaged or not those that TFDS knows
    (`allow_unverified` makes that a warning), and OSError where it cannot write.
    """
    import tensorflow_datasets as tfds

    if num_shards < 1:
        raise UserError(f"--num_shards={num_shards}: at least 1 is needed")
    builder = tfds.builder(dataset, data_dir=data_dir.expanduser(), file_format="array_record")
    target = Path(builder.data_dir)
    if (target / "dataset_info.json").exists():
        print(f"{dataset}: already prepared in {target}, nothing to do")
        return
    if target.exists():
        raise UserError(f"{target}: exists without dataset_info.json; remove it and start again")
    archives = archives.expanduser()
    _check_files(dataset, archives, builder.url_infos, allow_unverified)
    with _all_or_nothing(target) as directory:
        splits = ARCHIVES[dataset].read(archives, builder.info.features)
        infos = [
            _write_split(builder, directory, split, count, examples, num_shards)
            for split, (count, examples) in splits.items()
        ]
        builder.info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD, override=True)
        builder.info.set_splits(tfds.core.splits.SplitDict(infos))
        builder.info.write_to_directory(directory)
    print(f"{dataset}: prepared in {target}")


def _check_files(dataset: str, archives: Path, url_infos: Any, allow_unverified: bool) -> None:
    """Compare size and SHA-256 of each archive with TFDS's record of it."""
    known = {info.filename: (url, info) for url, info in url_infos.items()}
    for name in ARCHIVES[dataset].files:
        path, (url, info) = archives / name, known[name]
        if not path.is_file():
            raise UserError(f"{path}: missing; download it from {url} and put it into {archives}")
        print(f"checking {path}", flush=True)
        if path.stat().st_size == info.size and _sha256(path) == info.checksum:
            continue
        mismatch = f"{path}: differs in size or SHA-256 from the {name} that TFDS knows"
        if not allow_unverified:
            raise UserError(f"{mismatch}; download it again, or add --allow_unverified")
        print(f"warning: {mismatch}", file=sys.stderr, flush=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _all_or_nothing(target: Path) -> Iterator[Path]:
    """An empty directory that takes the name `target` when the block ends without an error."""
    partial = target.parent / f"incomplete.{target.name}"
    partial.mkdir(parents=True, exist_ok=True)
    with _locked(partial):
        for leftover in partial.iterdir():
            leftover.unlink()
        try:
            yield partial
        except Exception:
            shutil.rmtree(partial)
            raise
        partial.rename(target)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory against other runs; the lock of a killed run is free again."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(f"{directory}: another run is at work on it") from error
    finally:
        os.close(descriptor)


def _write_split(
    builder: Any,
    directory: Path,
    split: str,
    count: int,
    examples: Iterator[dict[str, Any]],
    num_shards: int,
) -> Any:
    """Write the array_record shards of a split and return its TFDS SplitInfo."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from etils import epath

    if count < num_shards:
        raise UserError(f"--num_shards={num_shards}: {split} has only {count} examples")
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(directory),
        dataset_name=builder.name,
        split=split,
        filetype_suffix="array_record",
    )
    lengths = [count // num_shards + (i < count % num_shards) for i in range(num_shards)]
    examples, features, num_bytes = _reported(examples, count, split), builder.info.features, 0
    for i, length in enumerate(lengths):
        path = template.sharded_filepath(shard_index=i, num_shards=num_shards)
        writer = ArrayRecordWriter(os.fspath(path), "group_size:1")  # random access by example
        for _ in range(length):
            record = features.serialize_example(features.encode_example(next(examples)))
            writer.write(record)
            num_bytes += len(record)
        writer.close()
    return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template)


def _reported(examples: Iterator[Any], count: int, what: str) -> Iterator[Any]:
    """The same examples; prints every few seconds how many are done and the time left."""
    start = last = time.monotonic()
    for done, example in enumerate(examples, 1):
        now = time.monotonic()
        if now - last > REPORT_SECONDS or done == count:
            left = (now - start) / done * (count - done)
            print(f"{what}: {done:,} of {count:,}, {left:.0f} s left", flush=True)
            last = now
        yield example


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; exit status 0, 1 for what the user can mend, 2 for wrong flags."""
    parser = argparse.ArgumentParser(prog="python -m score_sde_jax.data.prepare")
    parser.add_argument("--dataset", required=True, choices=sorted(ARCHIVES))
    parser.add_argument("--archives", required=True, type=Path, help="where the downloads lie")
    parser.add_argument("--data_dir", required=True, type=Path, help="where TFDS data go")
    parser.add_argument("--num_shards", type=int, default=1, help="files per split")
    parser.add_argument("--allow_unverified", action="store_true", help="only warn where a checksum differs")
    try:
        prepare(**vars(parser.parse_args(arguments)))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
