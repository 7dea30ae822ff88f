"""Validation of what users hand in: every message names the argument and what was received."""

from __future__ import annotations

from numbers import Integral, Real
from pathlib import Path

import torch
from torch import Tensor

LARGEST = 1e75  #: Larger features and targets are refused, since scores hold their fourth powers.
SMALLEST = 1e-75  #: Features and targets that are all smaller, but not all zero, are refused for the same reason.
_INTEGER_DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_features(features: Tensor, name: str = "features", *, read: bool = True) -> Tensor:
    """Check a matrix of features, one sample a row.

    Args:
        features: Shape ``(n, d)``, any floating dtype.
        name: Name of the argument for the message.
        read: Whether the values are looked at, for which a GPU has to be waited for.

    Returns:
        The same tensor, detached.

    Raises:
        ValueError: If it is no finite floating matrix with at least one row and one column, or holds values so large
            or small that their fourth powers overflow or vanish.

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.checks import check_features
        >>> check_features(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    if (
        not isinstance(features, Tensor)
        or features.ndim != 2
        or not features.is_floating_point()
        or _is_sparse(features)
    ):
        raise ValueError(f"Expected argument `{name}` to be a 2D floating point tensor, but got {_describe(features)}.")
    if features.numel() == 0:
        raise ValueError(f"Expected argument `{name}` to hold samples, but got shape {tuple(features.shape)}.")
    if read:
        _check_finite(features, name)
    return features.detach()


def check_labels(
    labels: Tensor, n: int, num_classes: int | None = None, name: str = "labels", *, read: bool = True
) -> Tensor:
    """Check class ids.

    Args:
        labels: Shape ``(n,)``, any integer dtype or bool, ids from 0; ids may have gaps.
        n: Number of samples that the other arguments have.
        num_classes: Ids must lie below it, where given.
        name: Name of the argument for the message.
        read: Whether the values are looked at, for which a GPU has to be waited for.

    Returns:
        The ids as int64.

    Raises:
        ValueError: If dtype, shape, length or range is wrong.
    """
    if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.dtype not in _INTEGER_DTYPES:
        several = isinstance(labels, Tensor) and labels.ndim == 2 and name == "labels"
        hint = ' (the attribute `task = "regression"` of the data or the module makes them targets)' if several else ""
        raise ValueError(f"Expected argument `{name}` to be a 1D integer tensor, but got {_describe(labels)}{hint}.")
    _check_length(labels, n, name)
    if not n or not read:
        return labels.detach().long()
    smallest, largest = map(int, torch.stack(labels.aminmax()).tolist())
    if smallest < 0:
        raise ValueError(f"Expected argument `{name}` to hold class ids from 0, but got {smallest}.")
    if num_classes is not None and largest >= num_classes:
        raise ValueError(f"Expected argument `{name}` to hold ids below num_classes={num_classes}, but got {largest}.")
    return labels.detach().long()


def check_targets(targets: Tensor, n: int, name: str = "targets", *, read: bool = True) -> Tensor:
    """Check regression targets and make them a matrix.

    Args:
        targets: Shape ``(n,)`` or ``(n, m)``, any real dtype.
        n: Number of samples that the other arguments have.
        name: Name of the argument for the message.
        read: Whether the values are looked at, for which a GPU has to be waited for.

    Returns:
        Shape ``(n, m)``, the same floating dtype; float64 for whole numbers.

    Raises:
        ValueError: If dtype, shape or length is wrong, or a value is not finite.
    """
    if not isinstance(targets, Tensor) or targets.ndim not in (1, 2) or targets.is_complex():
        raise ValueError(
            f"Expected argument `{name}` to be a 1D or 2D tensor of real numbers, but got {_describe(targets)}."
        )
    if not targets.is_floating_point():
        targets = targets.double()
    if targets.ndim == 2 and targets.shape[1] == 0:
        raise ValueError(f"Expected argument `{name}` to have columns, but got shape {tuple(targets.shape)}.")
    _check_length(targets, n, name)
    if read:
        _check_finite(targets, name)
    return targets.detach().reshape(n, -1)


def check_probabilities(source_probs: Tensor, n: int, name: str = "source_probs") -> Tensor:
    """Check rows of probabilities.

    Args:
        source_probs: Shape ``(n, k)``, any floating dtype, rows on the simplex (to the rounding of the dtype).
        n: Number of samples that the other arguments have.
        name: Name of the argument for the message.

    Returns:
        The same tensor, detached.

    Raises:
        ValueError: If dtype, shape or length is wrong, an entry is negative or a row does not sum to one.
    """
    source_probs = check_features(source_probs, name, read=False)
    _check_length(source_probs, n, name)
    wide = torch.promote_types(source_probs.dtype, torch.float32)
    sums = source_probs.sum(dim=1, dtype=wide)
    if not bool(sums.isfinite().all()):
        _check_finite(source_probs, name)
    if float(source_probs.min()) < 0:
        raise ValueError(f"Expected argument `{name}` to be non-negative, but got {float(source_probs.min())}.")
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 5e-2}.get(source_probs.dtype, 1e-3)
    if float((sums - 1).abs().max()) > tolerance:
        worst = float(sums[(sums - 1).abs().argmax()])
        raise ValueError(f"Expected argument `{name}` to have rows that sum to 1, but got a row that sums to {worst}.")
    return source_probs


def flatten_positions(features: Tensor, labels: Tensor, ignore_index: int | None = None) -> tuple[Tensor, Tensor]:
    """Turn token or pixel features with their labels into one sample a row.

    Args:
        features: Shape ``(n, d)``; tokens ``(b, t, d)``; or pixels ``(b, d, h, w)``.
        labels: Shape ``(n,)`` or ``(n, m)``; for tokens ``(b, t)``; for pixels ``(b, h, w)``.
        ignore_index: Positions with this label are left out.

    Returns:
        Features of shape ``(n, d)`` and labels of shape ``(n,)`` (or ``(n, m)``, left as they are).

    Raises:
        ValueError: If the shapes do not belong together.

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.checks import flatten_positions
        >>> x, y = flatten_positions(torch.zeros(2, 5, 3, 3), torch.zeros(2, 3, 3, dtype=torch.long))
        >>> x.shape, y.shape
        (torch.Size([18, 5]), torch.Size([18]))
    """
    if not isinstance(features, Tensor) or not isinstance(labels, Tensor):
        return features, labels  # the checks that follow name the culprit
    if features.ndim == 3 or features.ndim == 4:
        positions = shape_of_positions(features)
        if tuple(labels.shape) != positions:
            raise ValueError(
                f"Expected argument `labels` to have shape {positions} beside `features` of shape "
                f"{tuple(features.shape)}, but got {tuple(labels.shape)}."
            )
        features, labels = flatten_features(features), labels.flatten()
    if ignore_index is not None and labels.ndim == 1 and features.ndim == 2 and len(labels) == len(features):
        kept = labels != ignore_index
        features, labels = features[kept], labels[kept]
    return features, labels


def flatten_features(features: Tensor) -> Tensor:
    """Turn token or pixel features into one position a row; what else comes is left as it is.

    Args:
        features: Shape ``(n, d)``; tokens ``(b, t, d)``; or pixels ``(b, d, h, w)``.
    """
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        return features
    return features.flatten(0, 1) if features.ndim == 3 else features.movedim(1, -1).flatten(0, 2)


def shape_of_positions(features: Tensor) -> tuple[int, ...]:
    """Shape of what can have a label: ``(n,)``, of tokens ``(b, t)``, of pixels ``(b, h, w)``.

    Args:
        features: Shape ``(n, d)`` (or ``(n,)``); tokens ``(b, t, d)``; or pixels ``(b, d, h, w)``.
    """
    return tuple(features.shape[:2]) if features.ndim == 3 else (len(features), *features.shape[2:])


def check_in_interval(value: float, low: float, high: float, name: str) -> float:
    """Check that a number lies in ``[low, high]``.

    Raises:
        ValueError: If it does not, or is no number.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
        raise ValueError(f"Expected argument `{name}` to be a number in [{low}, {high}], but got {value!r}.")
    return float(value)


def check_positive_int(value: int, name: str, minimum: int = 1) -> int:
    """Check that a number is an integer (NumPy's too) of at least ``minimum``, and make it one of Python's.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(f"Expected argument `{name}` to be an integer of at least {minimum}, but got {value!r}.")
    return int(value)


def check_seed(value: int, name: str = "seed", bits: int = 63) -> int:
    """Check that a number is a seed that all generators take.

    Args:
        value: The seed.
        name: Name of the argument for the message.
        bits: It must lie below ``2 ** bits``.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= value < 2**bits:
        raise ValueError(f"Expected argument `{name}` to be an integer from 0 to 2**{bits} - 1, but got {value!r}.")
    return int(value)


def check_path(value: str | Path, name: str) -> Path:
    """Check that a value names a file or folder, whether there is one or not.

    Raises:
        ValueError: If it is neither text nor a path, or empty.
    """
    if not isinstance(value, (str, Path)) or value == "":
        raise ValueError(f"Expected argument `{name}` to be a path, but got {value!r}.")
    return Path(value)


def check_one_of(value: str | None, allowed: tuple[str | None, ...], name: str) -> None:
    """Check that a choice is a known one.

    Raises:
        ValueError: If it is not.
    """
    if value not in allowed:
        raise ValueError(f"Expected argument `{name}` to be one of {allowed}, but got {value!r}.")


def _check_finite(values: Tensor, name: str) -> None:
    if values.dtype == torch.float64:
        low, high = values.aminmax() if values.numel() else (values.sum(), values.sum())
        largest = max(-float(low), float(high))
        if 0 < largest < SMALLEST:
            raise ValueError(f"Expected argument `{name}` to be at least {SMALLEST:g} in size, but got {largest:g}.")
        if low >= -LARGEST and high <= LARGEST:
            return
        if torch.isfinite(low) and torch.isfinite(high):
            raise ValueError(f"Expected argument `{name}` to be at most {LARGEST:g} in size, but got {largest:g}.")
    # the sum is finite only if every entry is, unless it overflows: the exact look is then worth its cost
    if not torch.isfinite(values.sum()) and not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise ValueError(f"Expected argument `{name}` to be finite, but got {bad} NaN or infinite values.")


def _check_length(values: Tensor, n: int, name: str) -> None:
    if len(values) != n:
        raise ValueError(f"Expected argument `{name}` to have {n} rows like the other inputs, but got {len(values)}.")


def _is_sparse(value: Tensor) -> bool:
    return value.layout is not torch.strided


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        sparse = "a sparse" if _is_sparse(value) else "a"
        return f"{sparse} tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    numbers = hasattr(value, "__array__") or (isinstance(value, (list, tuple)) and value and _is_number(value[0]))
    return f"{type(value).__name__}{' (torch.as_tensor makes a tensor of it)' if numbers else ''}"


def _is_number(value: object) -> bool:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return isinstance(value, (int, float))
