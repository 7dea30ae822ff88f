"""Short names for the content of tensors: equal content, equal name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

SHORT = 16  # hexadecimal digits that tell the parts of one thing apart


def digest(tensors: Iterable[Tensor], *texts: str) -> str:
    """Hash tensors, with their shapes and dtypes, and texts.

    Args:
        tensors: Of any dtype, shape and device. Of those without dense values (sparse, quantised, meta) only dtype and
            shape count.
        texts: What else tells two contents apart.

    Returns:
        64 hexadecimal digits (SHA-256).

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.digest import digest
        >>> digest([torch.ones(2)]) == digest([torch.ones(2)]), digest([torch.ones(2)]) == digest([torch.ones(2, 1)])
        (True, False)
    """
    total = hashlib.sha256("\0".join(texts).encode())
    for tensor in tensors:
        total.update(f"\0{tensor.dtype}{tuple(tensor.shape)}".encode())
        if tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_meta):
            values = tensor.detach().cpu().flatten()
            values = values if values.stride(0) == 1 else values.clone(memory_format=torch.contiguous_format)
            total.update(values.view(torch.uint8).numpy().data)
    return total.hexdigest()


def combine_digests(digests: Sequence[str]) -> str:
    """One name for several contents, by the first digits of the digest of each.

    Args:
        digests: Of the parts, in their order.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256("\0".join(part[:SHORT] for part in digests).encode()).hexdigest()
