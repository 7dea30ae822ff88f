"""Counts of classes, and what is refused as class ids."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.functional import counts
from lightning_transfer.functional.counts import (
    add_joint_,
    all_ignored,
    check_attributes,
    check_label_columns,
    check_sample_columns,
    compact_ids,
    conditional_entropy,
    count_joint,
    is_multilabel,
    refuse_ignored_columns,
)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999), st.integers(1, 60), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4))
def test_joint_counts_are_those_of_a_loop(seed, n, m, source_classes, classes):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(source_classes, (n,), generator=generator)
    columns = torch.randint(classes, (n, m), generator=generator)
    expected = torch.zeros(m, source_classes, classes, dtype=torch.long)
    for row in range(n):
        for column in range(m):
            expected[column, source[row], columns[row, column]] += 1
    joint = count_joint(source, columns, source_classes, classes)
    assert torch.equal(joint, expected)
    assert torch.equal(add_joint_(joint.clone(), source, columns), 2 * expected)
    parts = torch.arange(len(source)) % 3
    dealt = add_joint_(joint.new_zeros(3, *joint.shape), source, columns, parts)
    for part in range(3):
        assert torch.equal(dealt[part], add_joint_(0 * joint, source[parts == part], columns[parts == part]))
    shares = joint[0].double() / n
    given_source = shares.sum(1, keepdim=True)
    plain = -torch.special.xlogy(shares, torch.where(shares > 0, shares / given_source, 1)).sum()
    torch.testing.assert_close(conditional_entropy(joint)[0], plain, rtol=0, atol=1e-12)


def test_entropy_of_a_source_that_knows_the_class_is_exactly_nothing():
    joint = torch.diag(torch.tensor([10**9, 3, 7]))
    assert float(conditional_entropy(joint)) == 0.0
    assert float(conditional_entropy(joint, miller_madow=True)) == 0.0
    flat = torch.tensor([[5, 5], [5, 5]])
    corrected = conditional_entropy(flat, miller_madow=True)
    assert float(corrected - conditional_entropy(flat)) == pytest.approx((4 - 2) / 40)


def test_a_table_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(counts, "MAX_CELLS", 11)
    source, columns = torch.tensor([0, 1]), torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match="got ids up to 3 in 1 columns beside 3 source classes"):
        count_joint(source, columns, 3, 4)


def test_ids_are_renumbered_in_their_order():
    ids, count = compact_ids(torch.tensor([[9, 2], [2, 5]]))
    assert (ids.tolist(), count) == ([[2, 0], [0, 1]], 3)


@pytest.mark.parametrize(("labels", "message"), [
    (torch.tensor([0, -1]), "labels"),
    (torch.tensor([0.5, 1.0]), "labels"),
    (torch.zeros(0, dtype=torch.long), "to hold samples"),
    (torch.zeros(2, 0, dtype=torch.long), "labels"),
    ([0, 1], "labels"),
])  # fmt: skip
def test_what_is_no_column_of_ids(labels, message):
    with pytest.raises(ValueError, match=message):
        check_label_columns(labels)


def test_columns():
    assert check_label_columns(torch.tensor([[0.0, 1.0], [1.0, 1.0]])).dtype == torch.long
    assert check_sample_columns(torch.tensor([4, 0]), 2).shape == (2, 1)
    with pytest.raises(ValueError, match="to have 3 rows like the other inputs, but got 2"):
        check_sample_columns(torch.tensor([4, 0]), 3)


@pytest.mark.parametrize(("labels", "minimum", "message"), [
    (torch.tensor([0, 1]), 1, r"a 2D tensor of zeros and ones, but got shape \(2,\)"),
    (torch.tensor([[0, 2], [1, 1]]), 1, "zeros and ones"),
    (torch.tensor([[0], [1]]), 2, "2 or more columns of zeros and ones"),
    ([[0, 1]], 1, "but got list"),
    (torch.tensor([[0, 1]]), 1, "2 rows like the other inputs, but got 1"),
])  # fmt: skip
def test_what_is_no_set_of_attributes(labels, minimum, message):
    with pytest.raises(ValueError, match=message):
        check_attributes(labels, 2, minimum)


def test_ignored_positions():
    assert all_ignored(torch.tensor([9, 9]), 9)
    assert not all_ignored(torch.tensor([9, 1]), 9)
    assert not all_ignored(torch.tensor([9]), None)
    assert not all_ignored(torch.zeros(0, dtype=torch.long), 9)
    refuse_ignored_columns(torch.zeros(2, 3), None)
    with pytest.raises(ValueError, match=r"one label a position beside `ignore_index`, but got shape \(2, 3\)"):
        refuse_ignored_columns(torch.zeros(2, 3), 0)


def test_labels_beside_tokens_are_one_a_token():
    assert is_multilabel(torch.zeros(4, 2), torch.zeros(4, 3))
    assert not is_multilabel(torch.zeros(4, 5, 2), torch.zeros(4, 5))
    assert not is_multilabel(torch.zeros(4, 2), torch.zeros(4))
