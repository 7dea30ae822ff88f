"""Where features lie: entries of safetensors shards, each whole or not there, found by key and checked before use."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_transfer.cache.files import hash_file
from lightning_transfer.utilities.checks import check_one_of, check_path
from lightning_transfer.utilities.digest import digest
from lightning_transfer.utilities.files import lock_folder, read_json, write_atomically

FORMAT = 1  # of entries; part of every key
VARIABLE = "LIGHTNING_TRANSFER_CACHE"
EXACT = "exact"
HALF = "float16"
LOGITS = "logits"
_OFF = ("off", "0", "false", "no", "none")
_DEFAULT_SIZE = 20 * 2**30
_SHARD = 64 * 2**20  # bytes of values after which a shard is written
_MANIFEST = "entry.json"
_ANSWERS = "answers.safetensors"
_SHARD_NAME = re.compile(r"rank\d{1,6}-\d{1,9}\.safetensors")
_KEY = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}\.(?:lock|alive)")
_NUMBER = re.compile(r"[0-9a-f]{32}")
_PATIENCE = 60.0
_POLL = 0.5
_ABANDONED = 24 * 3600.0  # seconds after which an unfinished entry is taken for that of a dead process


@dataclass(frozen=True)
class Cached:
    """What lies in a cache, for a list of it.

    Attributes:
        path: Folder of the entry.
        about: What it was made of: backbone, data, split, precision, versions.
        num_samples: Number of samples.
        size: Bytes on disk.
        used: When it was last used, in seconds since the epoch.
    """

    path: Path
    about: Mapping[str, Any]
    num_samples: int
    size: int
    used: float


class FeatureCache:
    """A folder of features, and what is put there.

    Args:
        folder: Where features lie. By default ``$LIGHTNING_TRANSFER_CACHE``, else ``lightning_transfer`` in the user's
            cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``).
        dtype: ``"exact"`` keeps what the pass gave (float32; float64 of float64 networks). ``"float16"`` takes half the
            space; its error is measured, and rows that are scored from such features say it. Features that float16
            cannot hold are kept exact.
        max_bytes: Size beyond which what was not used for the longest time is deleted.

    Raises:
        ValueError: If an argument is something else.

    Example:
        >>> import tempfile
        >>> from lightning_transfer.cache import FeatureCache
        >>> cache = FeatureCache(tempfile.mkdtemp(), dtype="float16", max_bytes=2**30)
        >>> cache.size(), cache.entries()
        (0, [])
    """

    def __init__(
        self, folder: str | Path | None = None, *, dtype: str = EXACT, max_bytes: float = _DEFAULT_SIZE
    ) -> None:
        check_one_of(dtype, (EXACT, HALF), "dtype")
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, (int, float)) or not max_bytes > 0:
            raise ValueError(f"Expected argument `max_bytes` to be a positive number, but got {max_bytes!r}.")
        self.folder = default_folder() if folder is None else check_path(folder, "folder").expanduser().absolute()
        self.dtype = dtype
        self.max_bytes = max_bytes

    @classmethod
    def of(cls, cache: FeatureCache | bool | str | Path | None) -> FeatureCache | None:
        """Make a cache of what the argument ``cache`` of a screen may be.

        Args:
            cache: ``True`` for the default folder (none if ``$LIGHTNING_TRANSFER_CACHE`` is ``off``), a folder, a
                cache, or ``False`` for none.

        Raises:
            ValueError: If it is something else.
        """
        if isinstance(cache, FeatureCache):
            return cache
        if cache is None or cache is False or (cache is True and os.environ.get(VARIABLE, "").lower() in _OFF):
            return None
        if not isinstance(cache, (bool, str, Path)) or cache == "":
            raise ValueError(
                f"Expected argument `cache` to be True, False, a folder or a FeatureCache, but got {cache!r}."
            )
        try:
            return cls(None if cache is True else cache)
        except RuntimeError:  # a user without a home
            return None

    @property
    def table(self) -> Path:
        """Where hashes of files are remembered."""
        return self.folder / "files.sqlite"

    def find(self, key: str, tensors: Sequence[str]) -> Iterator[Entry]:
        """Whole entries of a key that hold all of some tensors; those that are damaged are deleted on the way.

        Args:
            key: 64 hexadecimal digits.
            tensors: Names of the tensors.
        """
        for folder in sorted(path for path in self._home(key).glob("*") if self._is_own(path)):
            if not _NUMBER.fullmatch(folder.name):
                continue
            try:
                entry = Entry.read(folder, key)
                if not set(tensors) <= set(entry.widths) or (entry.error > 0 and self.dtype != HALF):
                    continue
                entry.verify()
            except (FileNotFoundError, ValueError):
                _delete(folder)
            except OSError:
                continue  # of somebody else
            else:
                with suppress(OSError):
                    os.utime(folder / _MANIFEST)
                yield entry

    @contextmanager
    def turn(self, key: str, patience: float = _PATIENCE) -> Iterator[None]:
        """Wait until no other process works on an entry; then this one may, and others wait.

        Where locks cannot be had, or a process has shown no sign of life for a while, nothing is waited for.

        Args:
            key: Of the entry.
            patience: Seconds without a sign of life.
        """
        from filelock import FileLock, Timeout

        sign = self._sign(key)
        lock = FileLock(
            sign.with_suffix(".lock"), thread_local=False
        )  # a file of its own: waiting touches it in filelock < 3.31
        with suppress(OSError, NotImplementedError):  # the latter is what filelock says of a file system without locks
            sign.parent.mkdir(parents=True, exist_ok=True)
            start = time.time()
            while not lock.is_locked:
                with suppress(Timeout):
                    lock.acquire(timeout=0.0 if time.time() < start + 0.1 else _POLL)
                    sign.touch()
                    break
                touched = sign.stat().st_mtime if sign.exists() else start
                if time.time() - max(start, touched) > patience:
                    break
        try:
            yield
        finally:
            lock.release()

    def writer(self, key: str) -> EntryWriter:
        """Begin an entry.

        Raises:
            OSError: If the folder cannot be written.
        """
        pending = self.folder / "unfinished" / uuid.uuid4().hex
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        pending.parent.mkdir(exist_ok=True)
        pending.mkdir()
        return EntryWriter(pending, key, self.dtype, self._sign(key))

    def finish(
        self, writer: EntryWriter, about: Mapping[str, Any], answers: Mapping[str, Tensor], **values: Any
    ) -> bool:
        """Make an entry of what was written, and delete what is too much.

        Args:
            writer: After the pass.
            about: What the entry is about, as plain JSON values.
            answers: What the backbone gave on trial.
            values: ``num_samples``, ``seconds`` and ``notes`` of the pass.

        Returns:
            Whether there is an entry now; not if a process could not write its part.

        Raises:
            OSError: If it cannot be written.
        """
        manifest = writer.collect(values["num_samples"])
        if manifest is None:
            return False
        _save({name: tensor.contiguous() for name, tensor in answers.items()}, writer.folder / _ANSWERS)
        manifest |= {
            "answers": hash_file(writer.folder / _ANSWERS),
            "about": dict(about),
            "created": time.time(),
            **values,
        }
        write_atomically(writer.folder / _MANIFEST, _encode(manifest))
        home = self._home(writer.key)
        with lock_folder(self.folder, _PATIENCE):
            for folder in home.glob("*"):
                with suppress(OSError, ValueError):
                    earlier = Entry.read(folder, writer.key)
                    covered = set(earlier.widths) <= set(manifest["widths"]) and earlier.error >= manifest["error"]
                    if covered and answers_agree(answers, earlier.answers()):
                        _delete(folder)  # what it holds is in the new one too
            home.mkdir(parents=True, exist_ok=True)
            os.replace(writer.folder, home / writer.folder.name)
            self._evict()
        return True

    def entries(self) -> list[Cached]:
        """What lies there, the last used first."""
        found = []
        for path in self._entries():
            with suppress(OSError, ValueError):
                entry = Entry.read(path, path.parent.name)
                found.append(Cached(path, entry.about, entry.num_samples, _size_of(path), _used(path)))
        return sorted(found, key=lambda cached: -cached.used)

    def size(self) -> int:
        """Bytes of all that lies there, unfinished entries among it."""
        return sum(map(_size_of, (*self._entries(), *self._unfinished(), self.table)))

    def clear(self) -> int:
        """Delete everything that this class put into the folder, and nothing else.

        Returns:
            Bytes that were freed.

        Raises:
            OSError: If the folder cannot be written.
        """
        freed = self.size()
        if not self.folder.is_dir():
            return 0
        with lock_folder(self.folder):
            for path in (*self._entries(), *self._unfinished()):
                _delete(path)
            with suppress(OSError):
                self.table.unlink()
        return freed

    def _sign(self, key: str) -> Path:
        """The file that a process touches while it works on an entry."""
        return self.folder / "unfinished" / f"{key}.alive"

    def _home(self, key: str) -> Path:
        return self.folder / "features" / key[:2] / key

    def _entries(self) -> list[Path]:
        found = [path for path in self.folder.glob("features/??/*/*") if self._is_own(path)]
        return [path for path in found if _KEY.fullmatch(path.parent.name) and _NUMBER.fullmatch(path.name)]

    def _unfinished(self) -> list[Path]:
        """Folders of entries that processes work on, and the files of their turns."""
        found = self.folder.glob("unfinished/*")
        return [path for path in found if _UNFINISHED.fullmatch(path.name) and self._is_own(path)]

    def _is_own(self, path: Path) -> bool:
        """Whether a path lies where it says: no link leads out of the folder."""
        return path.resolve() == self.folder.resolve() / path.relative_to(self.folder)

    def _evict(self) -> None:
        """Delete what was not used for the longest time, beyond the limit, and what dead processes left."""
        for path in self._unfinished():
            with suppress(OSError):
                parts = (path, *path.iterdir()) if path.is_dir() else (path,)
                if time.time() - max(part.stat().st_mtime for part in parts) > _ABANDONED:
                    _delete(path)
        kept = [(_used(path), _size_of(path), path) for path in self._entries()]
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= self.max_bytes:
                return
            _delete(path)
            total -= size


class EntryWriter:
    """Writes what a pass gives, shard by shard; each process of the pass writes its own.

    What goes wrong ends the writing and not the pass.

    Args:
        folder: Where shards go; there already.
        key: Of the entry.
        dtype: See :class:`FeatureCache`.
        sign: A file that is touched with each batch.

    Attributes:
        columns: Which columns of the features are which tensor; by default all are ``features``.
    """

    def __init__(self, folder: Path, key: str, dtype: str, sign: Path) -> None:
        self.folder, self.key, self.dtype, self.sign = folder, key, dtype, sign
        self.columns: Mapping[str, slice] = {"features": slice(None)}
        self.rank = 0
        self.failure = ""
        self._pending: dict[str, list[Tensor]] = {}
        self._bytes = 0
        self._shards: list[dict[str, Any]] = []
        self._batches: list[list[int]] = []
        self._sums = {"error": 0.0, "size": 0.0}

    def start(self, rank: int, folder: str | Path) -> None:
        """Begin in a process of the pass.

        Args:
            rank: Number of this process.
            folder: That of the first process.
        """
        if Path(folder) != self.folder:
            self.discard()
        self.rank, self.folder = rank, Path(folder)

    def discard(self) -> None:
        """Delete what was written and not made an entry; that of the first process is its own matter."""
        if self.rank == 0:
            _delete(self.folder)

    def add(self, features: Tensor, logits: Tensor | None) -> None:
        """Take a batch.

        Args:
            features: Shape ``(b, d)``.
            logits: Shape ``(b, k)``, if there are some.
        """
        with suppress(OSError):
            os.utime(self.sign)
        if self.failure:
            return
        try:
            for name, columns in self.columns.items():
                self._keep(name, features[:, columns])
            if logits is not None:
                self._keep(LOGITS, logits)
            if not self._batches or self._batches[-1][0] != len(features):
                self._batches.append([len(features), 0])
            self._batches[-1][1] += 1
            if self._bytes >= _SHARD:
                self._write()
        except Exception as error:  # a full disk, features of another shape
            self._fail(error)

    def finish(self) -> None:
        """End in a process of the pass: leave behind what it has written."""
        if not self.failure:
            try:
                self._write()
                part = {"shards": self._shards, "batches": self._batches, **self._sums}
                write_atomically(self.folder / f"rank{self.rank}.json", json.dumps(part))
            except Exception as error:
                self._fail(error)

    def collect(self, num_samples: int) -> dict[str, Any] | None:
        """What the processes have written together; None if it is not everything.

        Args:
            num_samples: Samples of the pass.
        """
        if self.failure:
            return None
        parts: list[dict[str, Any]] = []
        while (path := self.folder / f"rank{len(parts)}.json").is_file():
            parts.append(read_json(path))
            path.unlink()
        shards = [shard for part in parts for shard in part["shards"]]
        if not shards or sum(shard["rows"] for shard in shards) != num_samples:
            return None
        widths = shards[0]["widths"]
        if any(shard["widths"] != widths for shard in shards):
            return None
        size = sum(part["size"] for part in parts)
        error = (sum(part["error"] for part in parts) / size) ** 0.5 if size else 0.0
        return {
            "format": FORMAT, "key": self.key, "widths": widths, "error": error,
            "ranks": [part["shards"] for part in parts],
            "batches": parts[0]["batches"] if len(parts) == 1 else [],
            "largest_batch": max(size for part in parts for size, _ in part["batches"]),
        }  # fmt: skip

    def _keep(self, name: str, values: Tensor) -> None:
        if values.ndim != 2:
            raise ValueError(f"expected a matrix, but got shape {tuple(values.shape)}")
        values = values.detach().cpu().contiguous()
        self._pending.setdefault(name, []).append(values.clone())
        self._bytes += values.numel() * values.element_size()

    def _write(self) -> None:
        if not self._pending:
            return
        tensors = {name: torch.cat(parts) for name, parts in self._pending.items()}
        widths = {name: values.shape[1] for name, values in tensors.items()}
        rows = {len(values) for values in tensors.values()}
        if len(rows) > 1:
            raise ValueError("expected features and logits of every sample")
        if self.dtype == HALF:
            tensors = {name: self._halve(values) for name, values in tensors.items()}
        name = f"rank{self.rank}-{len(self._shards)}.safetensors"
        _save(tensors, self.folder / name)
        self._shards.append(
            {"file": name, "rows": rows.pop(), "widths": widths, "hash": hash_file(self.folder / name)}
        )  # fmt: skip
        self._pending, self._bytes = {}, 0

    def _halve(self, values: Tensor) -> Tensor:
        """The values in float16, where it holds them, with the error that this makes added up."""
        halved = values.half()
        if not torch.equal(halved.isfinite(), values.isfinite()):
            return values
        known = values.double().nan_to_num(0.0, 0.0, 0.0)
        self._sums["error"] += float((halved.double().nan_to_num(0.0, 0.0, 0.0) - known).square().sum())
        self._sums["size"] += float(known.square().sum())
        return halved

    def _fail(self, error: BaseException) -> None:
        self.failure = " ".join(f"{type(error).__name__}: {error}".split())
        self._pending = {}


class Entry:
    """Features of one backbone of one set of samples, on disk; rows are read from mapped memory.

    Attributes:
        folder: Where it lies.
        widths: Width of each tensor by name.
        num_samples: Number of rows.
        seconds: Time of the pass that gave them.
        notes: What else was found in that pass.
        error: Relative error of features that were rounded to float16; 0 where they are exact.
        batches: Sizes of the batches of the pass; empty if it ran in several processes.
        largest_batch: Size of the largest of them.
        about: What it was made of.
        created: When, in seconds since the epoch.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.widths: dict[str, int] = dict(manifest["widths"])
        self.num_samples: int = manifest["num_samples"]
        self.seconds: float = manifest["seconds"]
        self.notes: dict[str, Any] = dict(manifest["notes"])
        self.error: float = manifest["error"]
        self.batches: list[int] = [size for size, times in manifest["batches"] for _ in range(times)]
        self.largest_batch: int = manifest["largest_batch"]
        self.about: dict[str, Any] = dict(manifest["about"])
        self.created: float = manifest["created"]
        self._answers_hash: str = manifest["answers"]
        self._ranks: list[list[dict[str, Any]]] = manifest["ranks"]
        self._open: dict[tuple[str, str], Tensor] = {}
        self._answers: dict[str, Tensor] = {}

    @classmethod
    def read(cls, folder: Path, key: str) -> Entry:
        """Read what an entry says of itself.

        Raises:
            ValueError: If that is damaged or of another key or format.
            FileNotFoundError: If there is none.
        """
        manifest = read_json(folder / _MANIFEST)
        try:
            if manifest.pop("checksum") != digest([], json.dumps(manifest, sort_keys=True)):
                raise ValueError("its checksum differs")
            if manifest["format"] != FORMAT or manifest["key"] != key or not _KEY.fullmatch(key):
                raise ValueError("it is of another format or key")
            names = [shard["file"] for shards in manifest["ranks"] for shard in shards]
            if not all(_SHARD_NAME.fullmatch(name) for name in names):
                raise ValueError("it names files that are none of its own")
            _check_numbers(manifest)
            return cls(folder, manifest)
        except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise ValueError(f"Expected `{folder}` to hold an entry of features, but got: {error!r}.") from error

    def verify(self) -> None:
        """Compare every file with its hash, and map it: then it may be deleted while its rows are read.

        Raises:
            ValueError: If one is damaged.
            OSError: If one cannot be read.
        """
        shards = [shard for shards in self._ranks for shard in shards]
        hashes = {shard["file"]: shard["hash"] for shard in shards}
        for name, expected in {**hashes, _ANSWERS: self._answers_hash}.items():
            path = self.folder / name
            if not stat.S_ISREG(path.lstat().st_mode) or hash_file(path) != expected:
                raise ValueError(f"Expected `{path}` to be as it was written, but its content differs.")
        for shard in shards:
            for tensor, width in self.widths.items():
                values = self._values(shard["file"], tensor)
                if values.shape != (shard["rows"], width) or not values.is_floating_point():
                    raise ValueError(f"Expected `{self.folder / shard['file']}` to hold what its entry says.")
        self.answers()

    def answers(self) -> dict[str, Tensor]:
        """What the backbone gave on trial."""
        if not self._answers:
            from safetensors.torch import load_file

            with _as_bad_file(self.folder / _ANSWERS):
                self._answers = load_file(self.folder / _ANSWERS)
        return self._answers

    def rows(self, name: str, places: Tensor) -> Tensor:
        """Rows of a tensor, in float32 where they were rounded.

        Args:
            name: Of the tensor.
            places: Numbers of samples, int64 ``(b,)``.
        """
        parts = []
        found = []
        for rank, shards in enumerate(self._ranks):
            own = (places % len(self._ranks) == rank).nonzero()[:, 0]
            inside = places[own] // len(self._ranks)
            start = 0
            for shard in shards if len(own) else ():
                here = (inside >= start) & (inside < start + shard["rows"])
                if here.any():
                    parts.append(_exact(self._values(shard["file"], name)[inside[here] - start]))
                    found.append(own[here])
                start += shard["rows"]
        if len(parts) == 1 and len(found[0]) == len(places):
            return parts[0]
        order = torch.cat(found).argsort()
        return torch.cat(parts)[order]

    def _values(self, file: str, name: str) -> Tensor:
        from safetensors import safe_open

        if (file, name) not in self._open:
            with _as_bad_file(self.folder / file), safe_open(self.folder / file, framework="pt") as shard:
                self._open[file, name] = shard.get_tensor(name)
        return self._open[file, name]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_open": {}}  # another process maps the files itself


def _check_numbers(manifest: Mapping[str, Any]) -> None:
    """Refuse an entry whose numbers do not fit each other: everything that is read from them later is bounded then.

    Raises:
        ValueError: If they do not; other exceptions if they are of other types.
    """
    count, widths, ranks = manifest["num_samples"], dict(manifest["widths"]), manifest["ranks"]
    whole = [count, manifest["largest_batch"], *widths.values()]
    whole += [number for run in manifest["batches"] for number in run]
    whole += [shard["rows"] for shards in ranks for shard in shards]
    real = [manifest["seconds"], manifest["error"], manifest["created"]]
    held = [sum(shard["rows"] for shard in shards) for shards in ranks]
    if not (
        all(type(number) is int and 0 < number < 2**62 for number in whole)
        and all(type(number) in (int, float) and 0 <= number < math.inf for number in real)
        and all(isinstance(manifest[name], dict) for name in ("notes", "about"))
        and all(shard["widths"] == widths and isinstance(shard["hash"], str) for shards in ranks for shard in shards)
        and ranks
        and held == [len(range(rank, count, len(ranks))) for rank in range(len(ranks))]
        and manifest["largest_batch"] <= count
        and (not manifest["batches"] or sum(size * times for size, times in manifest["batches"]) == count)
    ):
        raise ValueError("its numbers do not fit each other")


@contextmanager
def _as_bad_file(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise ValueError(f"Expected `{path}` to hold tensors, but got: {error}.") from error
    except RuntimeError as error:  # as torch calls a file that cannot be mapped, or was deleted meanwhile
        path.lstat()
        raise OSError(f"`{path}` cannot be mapped: {error}") from error


def answers_agree(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two networks gave the same on trial, up to what rounding may do."""
    return set(one) == set(other) and all(_agree(values, other[name]) for name, values in one.items())


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or not one.is_floating_point():
        return False
    scale = float(one.double().abs().nan_to_num(0.0, posinf=0.0).max()) if one.numel() else 0.0
    tolerance = min(64 * torch.finfo(one.dtype).eps, 0.02) * scale
    return torch.allclose(one.double(), other.double(), rtol=0.0, atol=tolerance, equal_nan=True)


def default_folder() -> Path:
    """Where features lie if nothing is said."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen and chosen.lower() not in _OFF:
        return Path(chosen).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path("~/.cache").expanduser()) / "lightning_transfer"


def _used(entry: Path) -> float:
    """When an entry was last used, in seconds since the epoch; long ago where it is none."""
    try:
        return (entry / _MANIFEST).stat().st_mtime
    except OSError:
        return 0.0


def _exact(values: Tensor) -> Tensor:
    return values.float() if values.dtype == torch.float16 else values


def _encode(manifest: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(dict(manifest)))
    return json.dumps(plain | {"checksum": digest([], json.dumps(plain, sort_keys=True))}, indent=1)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:  # as it calls a full disk
        raise OSError(f"`{path.name}`: {error}") from error


def _delete(path: Path) -> None:
    """Delete a file, or a folder: first what makes it an entry, so that half of one is none."""
    is_folder = path.is_dir() and not path.is_symlink()
    with suppress(OSError):
        (path / _MANIFEST if is_folder else path).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _size_of(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_size
    return total
