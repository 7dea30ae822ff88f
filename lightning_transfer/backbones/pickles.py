"""What the pickle of a checkpoint may ask PyTorch's reader for: tensors of its own bytes, and plain containers.

``torch.load(weights_only=True)`` calls no foreign code, but what it does call can be asked for terabytes
(``bytearray(2**40)``, an empty tensor of any size, the set of a tensor without end) or for hours (the hash of tuples in
tuples in tuples). The instructions are therefore followed here first, without carrying any out.
"""

from __future__ import annotations

import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from lightning_transfer.utilities.files import check_folder_is_regular

_PICKLES_OF_OLD_FILES = 5  # magic number, version, machine, content, names of storages
_UNPACKED = 2**26  # bytes that small compressed members may come to
_REBUILT = frozenset(f"torch._utils._rebuild_{kind}" for kind in (
    "tensor", "tensor_v2", "tensor_v3", "parameter", "parameter_with_state", "qtensor", "sparse_tensor",
    "meta_tensor_no_storage",
))  # fmt: skip
_WEIGHTS = ("*model*.bin", "model*.pt", "model*.pth")  # in folders of models; beside them lie states of training


@dataclass(frozen=True)
class _Named:
    """A name of a module."""

    name: str


@dataclass(frozen=True)
class _Made:
    """What a call of a name gives."""

    name: str


@dataclass(frozen=True)
class _Text:
    """Text or bytes of a length."""

    length: int


@dataclass
class _Items:
    """A dict with so many entries."""

    count: int = 0


_MARK = object()
_ADAPTER = "adapter_config.json"


def check_checkpoint(file: IO[bytes], size: int) -> None:
    """Check a file of ``torch.save``; it is read from its beginning.

    Args:
        file: Opened; zip archive or in the format before 1.6.
        size: Of the file in bytes.

    Raises:
        ValueError: If reading it could take memory or time that its size does not justify, or it is no such file.
    """
    if file.read(4) != b"PK\3\4":
        file.seek(0)
        for _ in range(_PICKLES_OF_OLD_FILES):
            _follow(file, size)
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if not is_whole(archive, file, size):
            raise ValueError("it has something before, behind or between its members, so that readers may differ")
        if sum(member.file_size for member in members) > 2 * size + _UNPACKED:
            raise ValueError("its members claim to be much larger than the file")
        if len({member.filename.lower() for member in members}) < len(members):
            raise ValueError("it holds a member twice")
        for member in members:
            if member.filename.endswith(".pkl"):
                with archive.open(member) as inside:
                    _follow(inside, size)


def check_folder(folder: str | Path) -> None:
    """Check the checkpoints in a folder of a model, which its library is going to read.

    Args:
        folder: The folder; names of the hub pass.

    Raises:
        ValueError: As :func:`check_checkpoint`; the message names the file.
    """
    check_folder_is_regular(Path(folder))
    for path in (*Path(folder).glob(_ADAPTER), *Path(folder).glob(f"*/{_ADAPTER}")):
        raise ValueError(
            f"Expected `{folder}` to hold whole weights, but `{path}` names those of another model: let peft merge the "
            "adapter (`merge_and_unload`) and save the model."
        )
    for pattern in _WEIGHTS:
        for path in sorted((*Path(folder).glob(pattern), *Path(folder).glob(f"*/{pattern}"))):
            if path.is_file():
                check_file(path)


def check_file(path: Path) -> None:
    """Check a checkpoint that a library is going to read.

    Args:
        path: The file.

    Raises:
        ValueError: As :func:`check_checkpoint`, or if it is a pipe or a device; the message names the file.
    """
    if not path.is_file():
        raise ValueError(f"Expected `{path}` to be a checkpoint file.")
    with path.open("rb") as file:
        try:
            check_checkpoint(file, path.stat().st_size)
        except Exception as error:
            raise ValueError(
                f"Expected `{path}` to be a checkpoint of tensors and plain containers, but {error}."
            ) from error


def is_whole(archive: zipfile.ZipFile, file: IO[bytes], size: int) -> bool:
    """Whether an archive begins and ends with its file, so that all readers find the same members.

    Args:
        archive: The archive.
        file: What it was opened from.
        size: Of the file in bytes.
    """
    file.seek(0)
    begins = file.read(4) == b"PK\3\4"
    file.seek(-22, 2)
    end = file.read()
    placed = archive.start_dir == int.from_bytes(end[16:20], "little") or size >= 2**32
    return begins and end[:4] == b"PK\5\6" and end[20:] == b"\0\0" and placed


def _follow(file: IO[bytes], size: int) -> None:
    """Follow a pickle to its end, with stand-ins for what it makes."""
    machine = _Machine(size)
    for instruction, argument, _ in pickletools.genops(file):
        if instruction.name == "STOP":
            return
        machine.step(instruction.name, argument)


class _Machine:
    """A stack of stand-ins: lengths of texts, numbers, lists and tuples as they are, names, and results of calls."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.made = 0  # bytes that calls give, beside tensors
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in _VALUES:
            self.stack.append(_VALUES[name](argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self.stack.append(tuple(self._pop(int(name[-1]))))
        elif name == "TUPLE":
            self.stack.append(tuple(self._pop_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._pop_mark()
            if not self.stack or not isinstance(self.stack[-1], list):
                raise ValueError("it appends to what is no list")
            self.stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            keys = (self._pop(2) if name == "SETITEM" else self._pop_mark())[::2]
            self._check_keys(keys)
            if self.stack and isinstance(self.stack[-1], _Items):
                self.stack[-1].count += len(keys)
        elif name in ("REDUCE", "NEWOBJ"):
            self._call(*self._pop(2))
        elif name == "BUILD":
            self._pop(1)
        elif name == "BINPERSID":
            self._storage(*self._pop(1))
        elif name != "PROTO":
            raise ValueError(f"it has the instruction {name}, which no checkpoint of tensors needs")

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count or any(item is _MARK for item in self.stack[-count:]):
            raise ValueError("its instructions take what is not there")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _pop_mark(self) -> list[Any]:
        last = next((i for i in reversed(range(len(self.stack))) if self.stack[i] is _MARK), None)
        if last is None:
            raise ValueError("its instructions take what is not there")
        items = self.stack[last + 1 :]
        del self.stack[last:]
        return items

    def _tuple(self, items: list[Any]) -> None:
        self.stack.append(tuple(items))

    def _check_keys(self, keys: list[Any]) -> None:
        for key in keys:
            if not (_is_plain(key) or (isinstance(key, tuple) and all(map(_is_plain, key)))):
                raise ValueError("it has keys that are no plain values")

    def _storage(self, described: Any) -> None:
        numbers = [part for part in described if isinstance(part, int)] if isinstance(described, tuple) else []
        if any(not 0 <= number <= 8 * self.size for number in numbers):
            raise ValueError("it claims tensors larger than the file")
        self.stack.append(_Made("storage"))

    def _call(self, called: Any, arguments: Any) -> None:
        name = called.name if isinstance(called, _Named) else ""
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        result: Any = _Made(name)
        if name == "torch._tensor._rebuild_from_type_v2":
            fine = bool(arguments) and isinstance(arguments[0], _Named) and arguments[0].name in _REBUILT
        elif name in _REBUILT or name in _trusted_by_user():
            fine = True
        else:
            fine = name in _CALLS and _CALLS[name](arguments)
        if not fine:
            raise ValueError(f"it calls {name or 'what is no name'} as no checkpoint of tensors needs to")
        if name == "builtins.set":
            self._check_keys([item for items in arguments for item in items])
        if name in ("_codecs.encode", "builtins.bytearray"):
            result = _Text(4 * max((text.length for text in arguments), default=0))
            self.made += result.length
        if name in ("builtins.set", "torch.Size", "collections.Counter"):
            self.made += 64 * sum(item.count if isinstance(item, _Items) else len(item) for item in arguments)
        if self.made > 64 * self.size + _UNPACKED:
            raise ValueError("it claims to hold much more than the file")
        self.stack.append(result)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, _Text, _Named))


def _all_plain(arguments: tuple[Any, ...]) -> bool:
    return all(map(_is_plain, arguments))


def _all_text(arguments: tuple[Any, ...]) -> bool:
    return all(isinstance(argument, _Text) for argument in arguments)


def _one_list(arguments: tuple[Any, ...]) -> bool:
    return not arguments or (len(arguments) == 1 and isinstance(arguments[0], list))


def _one_size(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) == 1 and isinstance(arguments[0], tuple) and _all_plain(arguments[0])


def _made_before(arguments: tuple[Any, ...]) -> bool:
    return all(isinstance(argument, (_Made, bool)) for argument in arguments)


def _one_dict(arguments: tuple[Any, ...]) -> bool:
    return not arguments or (len(arguments) == 1 and isinstance(arguments[0], _Items))


def _none(arguments: tuple[Any, ...]) -> bool:
    return not arguments


_CALLS: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    "collections.OrderedDict": _none,
    "collections.Counter": _one_dict,
    "torch.Size": _one_size,
    "torch.device": _all_plain,
    "torch.serialization._get_layout": _all_plain,
    "torch.nn.parameter.Parameter": _made_before,
    "_codecs.encode": _all_text,
    "builtins.bytearray": _all_text,
    "builtins.complex": _all_plain,
    "builtins.set": _one_list,
}


def _name(argument: str) -> _Named:
    module, _, name = argument.partition(" ")
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return _Named(f"{IMPORT_MAPPING.get(module, module)}.{name}")


_VALUES: dict[str, Callable[[Any], Any]] = {
    "GLOBAL": _name,
    "MARK": lambda _: _MARK,
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: _Items(),
    "BINUNICODE": lambda text: _Text(len(text)),
    "SHORT_BINSTRING": lambda text: _Text(len(text)),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1"), lambda number: number),
}


def _trusted_by_user() -> set[str]:
    """What was added by ``torch.serialization.add_safe_globals``."""
    trusted: list[Any] = torch.serialization.get_safe_globals()
    return {item[1] if isinstance(item, tuple) else f"{item.__module__}.{item.__qualname__}" for item in trusted}
