"""Samples that belong together, such as those of one patient or document: ids of groups, and how groups are divided."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.utilities.checks import shape_of_positions

_MIX = ((30, -4658895280553007687), (27, -7723592293110705685))  # of a 64-bit finaliser
_TOO_LARGE = 2**63  # whole numbers from here on are taken for text
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def read_groups(values: Any, n: int | None = None, name: str = "groups") -> Tensor:
    """Make ids of what tells groups apart.

    Args:
        values: One value a sample: whole numbers from 0, or text; a tensor, an array, a column or a list.
        n: Number of samples, where it is known.
        name: What the values are called in messages.

    Returns:
        Shape ``(n,)``, int64: whole numbers below 2^63 as they are, 63 bits of a hash for larger ones and for text, so
        that the same text has the same id in every batch and process.

    Raises:
        ValueError: If values are missing (None, NaN, negative numbers, empty text), of another kind, or not as many as
            samples.

    Example:
        >>> from lightning_transfer.utilities.groups import read_groups
        >>> read_groups([7, 7, 3])
        tensor([7, 7, 3])
        >>> ids = read_groups(["ann", "bob", "ann"])
        >>> bool(ids[0] == ids[2]), bool(ids[0] == ids[1])
        (True, False)
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    if isinstance(values, np.ma.MaskedArray):
        values = values.tolist()  # None for what is masked
    if isinstance(values, (str, bytes, Mapping, AbstractSet)) or not hasattr(values, "__len__"):
        raise ValueError(f"Expected `{name}` to hold one id a sample, but got {values!r:.100}.")
    try:
        entries = np.asarray(values if isinstance(values, np.ndarray) else list(values))
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"Expected `{name}` to hold one id a sample, but got {values!r:.100}.") from error
    if entries.ndim != 1 and entries.shape[1:] != (1,):
        raise ValueError(f"Expected `{name}` to hold one id a sample, but got shape {entries.shape}.")
    if entries.ndim == 2:
        entries = values = entries.reshape(-1)
    if n is not None and len(entries) != n:
        raise ValueError(f"Expected `{name}` to hold one id for each of {n} samples, but got {len(entries)}.")
    if entries.dtype.kind in "bi" or (entries.dtype.kind == "u" and not bool((entries >= _TOO_LARGE).any())):
        entries = entries.astype(np.int64)
        missing = int((entries < 0).sum())
    else:
        originals = values.tolist() if isinstance(values, np.ndarray) else list(values)
        missing = sum(map(_is_missing, originals))
        if not missing:
            entries = np.array([_id_of(value, name) for value in originals], dtype=np.int64)
    if missing:
        raise ValueError(f"Expected `{name}` to name the group of every sample, but got {missing} without one.")
    return torch.from_numpy(entries)


def _is_missing(value: Any) -> bool:
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, (int, float, np.number)):
        return bool(value != value or value < 0)
    return isinstance(value, str) and not value.strip()


def _id_of(value: Any, name: str) -> int:
    if isinstance(value, (int, float, np.number)) and value < math.inf and int(value) == value:
        return int(value) if value < _TOO_LARGE else _id_of(str(int(value)), name)
    if isinstance(value, Tensor) and value.ndim == 0 and value.dtype in _INTEGERS and int(value) >= 0:
        return int(value)
    if isinstance(value, str):
        return int.from_bytes(hashlib.blake2b(value.encode(errors="surrogatepass"), digest_size=8).digest(), "big") >> 1
    raise ValueError(f"Expected `{name}` to hold whole numbers or text, but got {value!r:.100}.")


def check_groups(
    groups: Any,
    positions: Sequence[int],
    labels: Tensor | None = None,
    ignore_index: int | None = None,
    name: str = "groups",
) -> Tensor:
    """Check the ids of groups of one batch.

    Args:
        groups: Shape ``(n,)``, any integer dtype, ids from 0; or one id a position.
        positions: ``(n,)``, or the shape of the labels of tokens or pixels, whose positions have the group of their
            sample.
        labels: Labels of the positions, where there are some.
        ignore_index: Positions with this label are left out.
        name: Name of the argument for messages.

    Returns:
        One id a position that is kept, int64.

    Raises:
        ValueError: If dtype, shape or length is wrong, or an id is negative.
    """
    if not isinstance(groups, Tensor) or groups.dtype not in _INTEGERS:
        got = f"dtype {groups.dtype}" if isinstance(groups, Tensor) else type(groups).__name__
        raise ValueError(f"Expected argument `{name}` to be an integer tensor of ids, but got {got}.")
    shape = tuple(positions)
    if groups.ndim == 1 and len(shape) > 1 and len(groups) == shape[0]:
        groups = groups.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    if tuple(groups.shape) != shape:
        raise ValueError(
            f"Expected argument `{name}` to have one id a sample, shape {shape[:1]}, but got {tuple(groups.shape)}."
        )
    ids: Tensor = groups.detach().flatten().long()
    if ignore_index is not None and isinstance(labels, Tensor) and tuple(labels.shape) == shape:
        ids = ids[(labels != ignore_index).flatten().to(ids.device)]
    if len(ids) and int(ids.min()) < 0:
        raise ValueError(f"Expected argument `{name}` to hold ids from 0, but got {int(ids.min())}.")
    return ids


def groups_of_positions(
    groups: Tensor | None, features: Tensor, labels: Tensor | None, ignore_index: int | None = None
) -> Tensor | None:
    """Ids of the groups of what :func:`~lightning_transfer.utilities.checks.flatten_positions` leaves of some samples.

    Args:
        groups: Shape ``(n,)``, or None.
        features: As for that function.
        labels: As for that function; None where there are none.
        ignore_index: As for that function.

    Returns:
        One id a row, or None.

    Raises:
        ValueError: If ids are malformed, see :func:`check_groups`.
    """
    if groups is None or not isinstance(features, Tensor) or not features.ndim:
        return None
    return check_groups(groups, shape_of_positions(features), labels, ignore_index).to(features.device)


def number_groups(groups: Tensor, name: str = "groups") -> tuple[Tensor, int]:
    """Number groups from 0 in the order of their ids.

    Args:
        groups: Ids, shape ``(n,)``.
        name: Name of the argument for messages.

    Returns:
        Numbers, shape ``(n,)``, int64, and how many groups there are.

    Raises:
        ValueError: If there is one group only, so that nothing can be left out.
    """
    ids, numbers = groups.unique(return_inverse=True)
    if len(ids) < 2:
        raise ValueError(f"Expected argument `{name}` to hold at least 2 groups, but got {len(ids)}.")
    return numbers, len(ids)


def rows_of_groups(numbers: Tensor) -> list[Tensor]:
    """Row numbers of each group, in the order of the rows.

    Args:
        numbers: Groups numbered from 0 without gaps, shape ``(n,)``.
    """
    return list(numbers.argsort(stable=True).split(torch.bincount(numbers).tolist()))


def parts_of(groups: Tensor, parts: int) -> Tensor:
    """Deal groups out into parts, by their ids alone: whatever the order, the batches or the ranks.

    Ids are dealt out in turn, from a start that a hash of their leading digits moves: groups numbered from 0 without
    gaps come out evenly, and ids that are multiples of something are spread too.

    Args:
        groups: Ids from 0, shape ``(n,)``, int64.
        parts: How many parts there are.

    Returns:
        Shape ``(n,)``, int64, below ``parts``.

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.groups import parts_of
        >>> parts_of(torch.arange(8), 4).bincount()
        tensor([2, 2, 2, 2])
    """
    return (groups + _mixed(groups // parts) % parts) % parts


def turns(start: int, n: int, parts: int, device: torch.device | str = "cpu") -> Tensor:
    """Deal samples out into parts: of so many in a row each part gets one, in an order that a hash of places draws.

    Data in which classes alternate have all classes in each part then.

    Args:
        start: Place of the first sample.
        n: Number of samples.
        parts: How many parts there are.
        device: Where the result is made.

    Returns:
        Shape ``(n,)``, int64, below ``parts``.

    Example:
        >>> from lightning_transfer.utilities.groups import turns
        >>> turns(0, 8, 4).bincount(), turns(0, 8, 4)[3:].equal(turns(3, 5, 4))
        (tensor([2, 2, 2, 2]), True)
    """
    first = start // parts * parts
    places = torch.arange(first, -(-(start + n) // parts) * parts, device=device)
    return _mixed(places).reshape(-1, parts).argsort(1).flatten()[start - first :][:n]


def _mixed(numbers: Tensor) -> Tensor:
    for shift, factor in _MIX:
        numbers = (numbers ^ (numbers >> shift)) * factor
    return numbers ^ (numbers >> 32)
