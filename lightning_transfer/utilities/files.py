"""Files of this package: written as a whole or not at all, under names that stay in their folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning_transfer.utilities.errors import Failure
from lightning_transfer.utilities.notice import warn_user
from lightning_transfer.utilities.text import plain

LONGEST_NAME = 120  # bytes, which leaves room for endings
_LARGEST_TEXT = 256 * 2**20  # bytes
_DEEPEST_JSON = 100
_NESTS = (dict, list)
_UNSAFE = re.compile(r"[^\w.+=,@ ()-]")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|(com|lpt)[\d¹²³])(\.|$)")


def safe_name(text: Any, fallback: str = "unnamed") -> str:
    """Make one component of a path out of any text: letters, digits and a few signs stay.

    Args:
        text: What the file or folder is about.
        fallback: The name for a text of which nothing is left.

    Returns:
        A name without separators, control characters, dots or hyphens in front, or names that Windows reserves. If the
        text had to be changed, digits of its hash are added, so that two texts keep two names.

    Example:
        >>> from lightning_transfer.utilities.files import safe_name
        >>> safe_name("photo_patches"), safe_name("../../x"), safe_name("timm/resnet18")
        ('photo_patches', '_.._x-9cdf6a50', 'timm_resnet18-8fe6c3e7')
    """
    text = str(text)
    name = _UNSAFE.sub("_", plain(text)).strip(". ").lstrip("-. ") or fallback
    if _RESERVED.match(name):
        name = f"_{name}"
    if name == text and len(name.encode()) <= LONGEST_NAME:
        return name
    name = name.encode()[: LONGEST_NAME - 9].decode(errors="ignore").rstrip(". ")
    return f"{name}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace a file as a whole: readers, a killed process and a lost machine leave the old or the new content.

    Args:
        path: Its folder is made if it is not there.
        content: The new content; text is written as UTF-8.

    Raises:
        OSError: If it cannot be written; the old file is untouched then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:LONGEST_NAME]}.{uuid.uuid4().hex[:12]}")
    try:
        with open(temporary, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def check_regular(path: Path) -> None:
    """Refuse what only looks like a file: a pipe, on which a reader would wait, a socket or a device.

    Args:
        path: A file or folder, links followed.

    Raises:
        ValueError: If it is something else.
        OSError: If it is not there.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"Expected `{path}` to be a file, but it is a pipe, a socket or a device.")


def check_folder_is_regular(folder: Path) -> None:
    """Refuse a folder that holds a pipe, a socket or a device, before a library reads what is in it.

    Args:
        folder: It and the folders in it are looked at; what is no folder passes.

    Raises:
        ValueError: As :func:`check_regular`.
    """
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        with suppress(OSError):  # links to nothing
            check_regular(path)


def check_writable(folder: Path) -> None:
    """Try whether files can be made in a folder.

    Args:
        folder: Made if it is not there.

    Raises:
        OSError: If it cannot be made or written, or there is no room.
    """
    probe = folder / f".{uuid.uuid4().hex[:12]}"
    write_atomically(probe, bytes(2**16))
    probe.unlink()


def parse_json(content: bytes, *, finite: bool = False) -> Any:
    """Read JSON of somebody else: what is read can be written again, and its numbers can be computed with.

    Args:
        content: The text.
        finite: Whether NaN and numbers beyond float64 are refused too.

    Raises:
        ValueError: If it is no JSON, has integers of more than 63 bits, or nests deeper than any result.
        RecursionError: If it nests much deeper.
    """
    real = _finite if finite else None
    data = json.loads(content, parse_int=_integer, parse_float=real, parse_constant=real)
    layer, depth = [data], 0
    while layer:
        if depth > _DEEPEST_JSON:
            raise ValueError(f"it nests deeper than {_DEEPEST_JSON}")
        inner = (value.values() if isinstance(value, dict) else value for value in layer if isinstance(value, _NESTS))
        layer, depth = [value for values in inner for value in values], depth + 1
    return data


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError(f"numbers of 63 bits are the largest, not {text[:20]}...")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"numbers are finite, not {text[:20]}")
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file of this package.

    Args:
        path: The file.

    Raises:
        ValueError: If it is no JSON; the message names the file.
        FileNotFoundError: If there is no such file.
    """
    content = _read_whole(path)
    try:
        return parse_json(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected `{path}` to be a JSON file, but got: {plain(error) or 'too deep a nesting'}."
        ) from error


def read_text(path: Path) -> str:
    """Read a text file of this package.

    Args:
        path: The file, in UTF-8.

    Raises:
        ValueError: If it is no text; the message names the file.
        FileNotFoundError: If there is no such file.
    """
    try:
        return _read_whole(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"Expected `{path}` to be text in UTF-8, but got: {error}.") from error


def _read_whole(path: Path) -> bytes:
    if not path.is_file():  # neither a pipe that nobody fills nor a device without an end
        raise FileNotFoundError(f"There is no file `{path}`.")
    if (size := path.stat().st_size) > _LARGEST_TEXT:
        raise ValueError(f"Expected `{path}` to be a file of at most {_LARGEST_TEXT} bytes, but got {size}.")
    return path.read_bytes()


@contextmanager
def lock_folder(folder: Path, timeout: float = 600.0) -> Iterator[None]:
    """Keep other processes and threads of this package from changing what a folder holds.

    Args:
        folder: Made if it is not there. The file ``.lock`` in it stays.
        timeout: Seconds to wait for the others.

    Raises:
        OSError: If the folder cannot be written, or (``TimeoutError``) the others do not end.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=timeout, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise TimeoutError(f"Another process has held `{folder / '.lock'}` for {timeout:g} s.") from error
    try:
        yield
    finally:
        lock.release()


def is_first_process() -> bool:
    """Whether this is the one of the processes that share a run which writes and prints what all of them have."""
    group = sys.modules.get("torch.distributed")  # whoever has not imported it is in no group
    if group is not None and group.is_available() and group.is_initialized():
        return bool(group.get_rank() == 0)
    return os.environ.get("LOCAL_RANK", "0") == "0"  # started by a strategy, whose processes have not met yet


def try_to_write(what: str, where: str | Path, write: Callable[[], Any]) -> bool:
    """Write a result; where that fails (a full disk, a folder that is read only, a figure) a line says so.

    Only the first of the processes that share a run writes.

    Args:
        what: What is written, as the line begins.
        where: The folder.
        write: Writes.

    Returns:
        Whether nothing went wrong.
    """
    try:
        if is_first_process():
            write()
    except Exception as error:
        warn_user(f"{what} is not written to `{where}`: {Failure.of(error)}")
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make the new entry itself last, where folders can be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
