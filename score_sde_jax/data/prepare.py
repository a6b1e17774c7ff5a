"""Convert downloaded archives to TFDS data, without TensorFlow and without network access.

    python -m score_sde_jax.data.prepare --dataset=celeb_a --archives=DIR --data_dir=DIR

`tfds.data_source(name, data_dir=DIR, download=False)` opens the result. Its pixels are those of the archives, in the
order of the archives (CelebA: sorted by file name). The data is written to a temporary directory, which is renamed when
it is complete; after a killed run the next one starts over.
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
from score_sde_jax.errors import RunError, UserError

REPORT_SECONDS = 5.0


def prepare(
    dataset: str,
    archives: Path,
    data_dir: Path,
    num_shards: int = 1,
    allow_unverified: bool = False,
) -> None:
    """Write the TFDS data of a dataset, unless it exists.

    Args:
        dataset: name of an entry of `ARCHIVES`.
        archives: directory of the downloaded archives.
        data_dir: directory of TFDS data.
        num_shards: files per split, >= 1.
        allow_unverified: whether an archive with another size or SHA-256 than TFDS records is only a warning.

    Raises:
        UserError: an archive is missing, corrupted or unverified, or `num_shards` is out of range.
        OSError: the data cannot be written.
    """
    import tensorflow_datasets as tfds

    if num_shards < 1:
        raise UserError(f"--num_shards={num_shards}: must be >= 1")
    builder = tfds.builder(dataset, data_dir=data_dir.expanduser(), file_format="array_record")
    target = Path(builder.data_dir)
    if (target / "dataset_info.json").exists():
        print(f"{dataset}: already prepared in {target}, nothing to do")
        return
    if target.exists():
        raise UserError(f"{target}: exists without dataset_info.json; remove it and run the command again")
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
    """Compare size and SHA-256 of each archive with those that TFDS records."""
    records = {info.filename: (url, info) for url, info in url_infos.items()}
    for name in ARCHIVES[dataset].files:
        path, (url, info) = archives / name, records[name]
        if not path.is_file():
            raise UserError(f"{path}: missing; download it from {url} to {archives}")
        print(f"checking {path}", flush=True)
        if path.stat().st_size == info.size and _sha256(path) == info.checksum:
            continue
        mismatch = f"{path}: size or SHA-256 differs from the {name} that TFDS records"
        if not allow_unverified:
            raise UserError(f"{mismatch}; download it again, or add --allow_unverified")
        print(f"warning: {mismatch}", file=sys.stderr, flush=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _all_or_nothing(target: Path) -> Iterator[Path]:
    """Yield an empty directory, which is renamed to `target` if the block ends without an error."""
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
    """Lock the directory against other runs; the operating system releases the lock when the process ends."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(f"{directory}: another run is writing to it; wait for its end") from error
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
    """Write the array_record shards of a split and return its `SplitInfo`."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from etils import epath

    if count < num_shards:
        raise UserError(f"--num_shards={num_shards}: must be <= {count}, the number of examples in split {split}")
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(directory),
        dataset_name=builder.name,
        split=split,
        filetype_suffix="array_record",
    )
    lengths = [count // num_shards + (i < count % num_shards) for i in range(num_shards)]
    examples, features, num_bytes = _with_progress(examples, count, split), builder.info.features, 0
    for i, length in enumerate(lengths):
        path = template.sharded_filepath(shard_index=i, num_shards=num_shards)
        writer = ArrayRecordWriter(os.fspath(path), "group_size:1")  # one example per group, for random access
        for _ in range(length):
            record = features.serialize_example(features.encode_example(next(examples)))
            writer.write(record)
            num_bytes += len(record)
        writer.close()
    return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template)


def _with_progress(examples: Iterator[Any], count: int, split: str) -> Iterator[Any]:
    """Yield the examples, and print their number and the remaining time every few seconds."""
    start = last = time.monotonic()
    for done, example in enumerate(examples, 1):
        now = time.monotonic()
        if now - last > REPORT_SECONDS or done == count:
            left = (now - start) / done * (count - done)
            print(f"{split}: {done:,} of {count:,}, {left:.0f} s left", flush=True)
            last = now
        yield example


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: command-line arguments; by default those of the process.

    Returns:
        0 if the data exists, 2 for a wrong flag or archive, 1 if the data cannot be written.
    """
    parser = argparse.ArgumentParser(prog="python -m score_sde_jax.data.prepare")
    parser.add_argument("--dataset", required=True, choices=sorted(ARCHIVES))
    parser.add_argument("--archives", required=True, type=Path, help="directory of the downloaded archives")
    parser.add_argument("--data_dir", required=True, type=Path, help="directory of TFDS data")
    parser.add_argument("--num_shards", type=int, default=1, help="files per split")
    parser.add_argument("--allow_unverified", action="store_true", help="only warn if a checksum differs")
    try:
        prepare(**vars(parser.parse_args(arguments)))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status if isinstance(error, UserError) else RunError.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
