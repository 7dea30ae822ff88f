"""Names of contents: equal for equal contents, other for every single change."""

import hashlib

import numpy as np
import pytest
import torch

from lightning_transfer.utilities.digest import SHORT, combine_digests, digest

VALUES = torch.arange(12, dtype=torch.float32).reshape(3, 4)


def test_is_sha256_of_texts_headers_and_bytes():
    content = b"a\0b" + b"\0torch.float32(3, 4)" + np.arange(12, dtype=np.float32).tobytes()
    assert digest([VALUES], "a", "b") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "same",
    [VALUES.t().contiguous().t(), torch.nn.Parameter(VALUES), torch.stack([VALUES, VALUES], -1)[..., 0]],
)
def test_layout_in_memory_and_gradients_do_not_count(same):
    assert digest([same]) == digest([VALUES])


def test_parts_of_a_larger_tensor_are_read_as_their_copies():
    for part in (VALUES[:, 1], VALUES[0, ::2], VALUES[0, ::2][:1], VALUES[0, 2:2], VALUES[:1, 0]):
        assert digest([part]) == digest([torch.tensor(part.tolist())])


def test_every_change_gives_another_name():
    flipped = VALUES.clone()
    flipped[2, 3] = torch.nextafter(flipped[2, 3], torch.tensor(99.0))
    names = [
        digest([VALUES]),
        digest([flipped]),
        digest([VALUES.t()]),
        digest([VALUES.double()]),
        digest([VALUES.view(torch.int32)]),
        digest([VALUES], "x"),
        digest([VALUES, VALUES]),
        digest(list(VALUES)),
        digest([VALUES.flip(0)]),
        digest([]),
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.complex64])
def test_all_dtypes_and_scalars_are_read(dtype):
    one, zero = torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype)
    assert digest([one]) != digest([zero])
    assert digest([one.reshape(1)]) != digest([one])


def test_of_tensors_without_dense_values_shape_and_dtype_count():
    assert digest([torch.empty(2, 3, device="meta")]) != digest([torch.empty(3, 2, device="meta")])
    sparse = VALUES.to_sparse()
    assert digest([sparse]) == digest([2 * sparse]) != digest([sparse.double()])


def test_combined_name_hangs_on_the_order_and_the_first_digits_alone():
    parts = [digest([VALUES]), digest([VALUES.double()])]
    whole = combine_digests(parts)
    assert len(whole) == 64
    assert combine_digests([part[:SHORT] for part in parts]) == whole
    assert combine_digests(parts[::-1]) != whole
    assert combine_digests([parts[0][:-SHORT] + "0" * SHORT, parts[1]]) == whole
    other = ("1" if parts[0][0] == "0" else "0") + parts[0][1:]
    assert combine_digests([other, parts[1]]) != whole
