"""WebDataset shards: tar files in which the files of a sample share a name."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_transfer.data.images import open_rgb
from lightning_transfer.data.samples import Found, LazyInputs, SampleModule
from lightning_transfer.utilities.files import check_regular

_PICTURES = ("jpg", "jpeg", "png", "webp", "ppm", "pgm", "pnm", "bmp", "gif", "tif", "tiff", "jp2", "avif")
_LABELS = ("cls", "txt", "json")
_LARGEST_LABEL = 2**20  # bytes of a file that holds a label or a text
_LARGEST_EXTENSION = 2**13  # bytes of a header that only extends the next one
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MOST_SHARDS = 10**5
_SHOWN = 8


class _Header(tarfile.TarInfo):
    """Refuses headers over which Python's reader would go back in the file for ever, or search for hours."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENSIONS and header.size > _LARGEST_EXTENSION:
            raise ValueError(f"a header claims {header.size} bytes")
        return header

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "size" and value < 0:  # by a header, or by an extension of the one before
            raise ValueError(f"a header claims {value} bytes")
        super().__setattr__(name, value)


@dataclass(frozen=True)
class Member:
    """Where a file lies in a shard."""

    shard: Path
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Its content."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class Shards(SampleModule):
    """WebDataset shards on this machine: files of one sample share their name up to the first dot.

    Inputs are pictures (``.jpg``, ``.png``, ...) or, without them, texts (``.txt``). Labels are ``.cls`` (a class id or
    name), ``.txt`` beside pictures, or an entry of ``.json``. The shards are looked through once, and samples are then
    read from their places. Only uncompressed tar files are read: no addresses, no ``pipe:``, no links, and of the files
    in them no pickles or tensors.

    Args:
        path: A shard, a folder of ``.tar`` files, a pattern such as ``"data/train-*.tar"`` or
            ``"data/train-{000..007}.tar"``, or a list of these.
        val: Shards of validation samples; without them they are drawn.
        test: Shards of test samples; without them (and ``val``) they are drawn.
        input_key: Ending of the files of inputs, such as ``"png"``, where several would do.
        label_key: Ending of the files of labels, such as ``"cls"``; ``"json.species"`` is an entry of a ``.json`` file.
        group_key: Ending of the files, or entry of a ``.json`` file, that say which samples belong together.
        task: ``"classification"``, ``"multilabel"`` or ``"regression"``; by default what the labels look like.
        class_names: Names by class id.
        val_fraction: Share of the training samples for validation where it is drawn.
        test_fraction: Share of the training samples for the test where it is drawn.
        on_error: What a sample does that cannot be read: ``"raise"`` when its turn comes, or ``"skip"``.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If there are no such files, one is no uncompressed tar file, or samples lack inputs or labels (on
            reading).
    """

    default_name = "shards"

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        val: str | Path | Sequence[str | Path] | None = None,
        test: str | Path | Sequence[str | Path] | None = None,
        input_key: str | None = None,
        label_key: str | None = None,
        task: str | None = None,
        class_names: Sequence[str] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        on_error: str = "raise",
        group_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            input_key=input_key,
            label_key=label_key,
            group_key=group_key,
            task=task,
            class_names=class_names,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            on_error=on_error,
            **kwargs,
        )
        given = {"train": path, "val": val, "test": test}
        self.paths = {split: part for split, part in given.items() if part is not None}

    def read(self, remarks: list[str]) -> Found:
        """Look through the shards for samples, and read their labels."""
        found = Found()
        for split, part in self.paths.items():
            samples = list_samples(find_shards(part))
            input_end, label_end = self._endings(samples)
            read = _read_text if _kind(input_end) == "txt" else _open
            lazy = LazyInputs([sample[input_end] for sample in samples], read)
            labels = [_read_label(sample, label_end) for sample in samples]
            groups = None if self.groups is None else [_read_group(sample, str(self.groups)) for sample in samples]
            self.keep_readable(found, lazy, labels, split, remarks, groups=groups)
        return found

    def _endings(self, samples: Sequence[Mapping[str, Member]]) -> tuple[str, str]:
        """Endings of the files that every sample has as input and as label."""
        common = set.intersection(*(set(sample) for sample in samples))
        pictures = [end for end in _PICTURES if end in common]
        input_end = self.keys["input_key"] or (pictures[0] if len(pictures) == 1 else None if pictures else "txt")
        label_end = self.keys["label_key"] or next((end for end in _LABELS if end in common and end != input_end), None)
        for argument, end in (("input_key", input_end), ("label_key", label_end)):
            if end is None or _file_of(str(end), common)[0] not in common:
                raise ValueError(
                    f"Expected every sample of {self.name} to have one file of pictures or text and one of labels, but "
                    f"all have {sorted(common)[:_SHOWN]}; argument `{argument}` says which."
                )
        if (
            _kind(str(input_end)) not in (*_PICTURES, "txt")
            or _kind(_file_of(str(label_end), common)[0]) not in _LABELS
        ):
            raise ValueError(
                f"Expected pictures {_PICTURES} or `txt` as inputs and one of {_LABELS} as labels, but got "
                f"{input_end!r} and {label_end!r}."
            )
        return _file_of(str(input_end), common)[0], str(label_end)


def find_shards(given: str | Path | Sequence[str | Path]) -> list[Path]:
    """Find the tar files that a path, folder or pattern means.

    Args:
        given: See :class:`Shards`.

    Raises:
        ValueError: If there are none, or an address is given.
    """
    if not isinstance(given, (str, Path)):
        return [path for part in given for path in find_shards(part)]
    text = str(given)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:(//|[^\\/])", text) and not Path(text).exists():
        raise ValueError(f"Expected argument `path` to name tar files on this machine, but got {text!r}.")
    shards: list[Path] = []
    for expanded in _expand(text):
        path = Path(expanded)
        if path.is_dir():
            shards += sorted(path.glob("*.tar"))
        elif path.is_file():
            shards.append(path)
        elif "*" in path.name or "?" in path.name:
            shards += sorted(path.parent.glob(path.name))
    if not shards:
        raise ValueError(f"Expected argument `path` to name tar files or a folder of them, but got {text!r}.")
    return shards


def _expand(text: str) -> list[str]:
    """All names that a range in braces stands for."""
    match = re.search(r"\{(\d{1,9})\.\.(\d{1,9})\}", text)
    if match is None:
        return [text]
    first, last = match.groups()
    rest = _expand(text[match.end() :])
    if not 0 <= int(last) - int(first) < _MOST_SHARDS // len(rest):
        raise ValueError(f"Expected ranges of at most {_MOST_SHARDS} shards, but got {text!r}.")
    numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    return [text[: match.start()] + number + end for number in numbers for end in rest]


def list_samples(shards: Sequence[Path]) -> list[dict[str, Member]]:
    """Look through shards for samples.

    Args:
        shards: Tar files.

    Returns:
        A dict for every sample, in order: from the ending of a file, in small letters, to where it lies.

    Raises:
        ValueError: If a file is no uncompressed tar file, or a sample has two files with one ending.
    """
    samples: dict[tuple[Path, str], dict[str, Member]] = {}
    for shard in shards:
        _look_through(shard, samples)
    if not samples:
        raise ValueError(f"Expected {shards[0]} to hold samples, but got none.")
    return list(samples.values())


def _look_through(shard: Path, samples: dict[tuple[Path, str], dict[str, Member]]) -> None:
    try:
        check_regular(shard)
        size = shard.stat().st_size
        with tarfile.open(shard, "r:", tarinfo=_Header) as archive:
            for info in archive:
                _take(samples, shard, info, size)
    except Exception as error:  # damaged archives raise anything
        if isinstance(error, ValueError) and str(shard) in str(error):
            raise
        raise ValueError(f"Expected {shard} to be an uncompressed tar file, but got: {error}") from error


def _take(samples: dict[tuple[Path, str], dict[str, Member]], shard: Path, info: tarfile.TarInfo, size: int) -> None:
    folder, _, base = info.name.rpartition("/")
    stem, dot, end = base.partition(".")
    if not info.isreg() or info.issparse() or not (stem and dot) or "__MACOSX" in folder:
        return
    if info.offset_data + info.size > size:
        raise ValueError(f"Expected {shard} to hold {info.name} whole, but it ends before.")
    entries = samples.setdefault((shard, f"{folder}/{stem}"), {})
    if end.lower() in entries:
        raise ValueError(f"Expected {shard} to hold one {end} file for {stem!r}, but got several.")
    entries[end.lower()] = Member(shard, info.name, info.offset_data, info.size)


def _file_of(key: str, ends: Collection[str]) -> tuple[str, str]:
    """The ending of the files that a key means, and the entry in them: ``"json.species"``, but also ``"seg.png"``."""
    file, _, entry = (key, "", "") if key in ends else key.partition(".")
    return file, entry


def _kind(end: str) -> str:
    """What a file is, by the last part of its ending."""
    return end.rpartition(".")[2]


def _open(member: Member) -> Any:
    return open_rgb(member.read(), name=f"{member.name} in {member.shard}")


def _read_text(member: Member) -> str:
    if member.size > _LARGEST_LABEL:
        raise ValueError(f"Expected {member.name} in {member.shard} to be short text, but got {member.size} bytes.")
    try:
        return member.read().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"Expected {member.name} in {member.shard} to be text, but got: {error}") from error


def _read_group(sample: Mapping[str, Member], end: str) -> Any:
    if _file_of(end, sample)[0] not in sample:
        raise ValueError(f"Expected every sample to have a file {end!r} (`group_key`), but one has {sorted(sample)}.")
    return _read_label(sample, end)


def _read_label(sample: Mapping[str, Member], end: str) -> Any:
    end, entry = _file_of(end, sample)
    text = _read_text(sample[end]).strip()
    if _kind(end) == "json":
        try:
            content = json.loads(text)
            value = content[entry] if entry else content
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            where = f"{sample[end].name} in {sample[end].shard}"
            raise ValueError(f"Expected {where} to hold an entry {entry!r}, but got: {error!r:.200}") from error
        if isinstance(value, Mapping):
            names = ", ".join(f"{end}.{name}" for name in list(value)[:_SHOWN])
            raise ValueError(f"Expected a key for one entry of {sample[end].name} ({names}), but got {end!r}.")
        return value
    return int(text) if _kind(end) == "cls" and re.fullmatch(r"-?\d{1,18}", text) else text
