"""What a batch of anybody's data holds, and what follows from logits."""

from __future__ import annotations

import warnings
from collections import UserDict
from types import SimpleNamespace

import pytest
import torch
from torchmetrics import Metric

from lightning_transfer.inputs import (
    INPUTS,
    SOURCE_INPUTS,
    batch_size,
    derive_source_inputs,
    describe_batch,
    first_samples,
    keys_of,
    match_labels,
    needs_of,
    split_batch,
    split_sample,
    task_of,
    wanted_labels,
)
from lightning_transfer.metrics import Energy, LogME

X, Y = torch.zeros(2, 3), torch.tensor([0, 1])
TEXT = ["one", "two"]


@pytest.mark.parametrize(
    ("batch", "inputs", "named"),
    [
        ({"inputs": X, "labels": Y}, X, {"labels": Y}),
        ({"x": X, "target": Y.float()}, X, {"targets": Y.float()}),
        (UserDict({"image": X, "class": Y}), X, {"labels": Y}),
        ((X, Y, "more"), X, {"labels": Y}),
        ((X, {"boxes": X, "category": Y}), X, {"labels": Y}),
        ((X, Y, torch.rand(2)), X, {"labels": Y}),  # weights of samples
        ([X], X, {}),
        (X, X, {}),
        (TEXT, TEXT, {}),
        ((TEXT, Y), TEXT, {"labels": Y}),
        ((X, Y.bool()), X, {"labels": Y}),
        ((X, Y.to(torch.uint8)), X, {"labels": Y}),
    ],
)
def test_batches_of_several_kinds(batch, inputs, named):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, values = split_batch(batch)
    assert found is inputs
    assert values.keys() == named.keys()
    assert all(values[name].equal(named[name]) and values[name].dtype == named[name].dtype for name in named)


@pytest.mark.parametrize("key", ["img", "input_values", "pixel_values", "jpg", "image"])
def test_names_of_inputs(key):
    assert split_batch({"id": Y, key: X})[0] is X


@pytest.mark.parametrize("key", ["class", "category", "fine_label", "label_ids", "mask", "cls", "y"])
def test_names_of_labels(key):
    assert split_batch({"image": X, key: Y})[1]["labels"].equal(Y)


def test_tokens_stay_together():
    batch = {"input_ids": Y, "attention_mask": Y, "mask": Y, "labels": Y, "id": TEXT}
    tokens, named = split_batch(batch)
    assert (set(tokens), set(named)) == ({"input_ids", "attention_mask", "mask"}, {"labels"})
    assert split_batch({"input_ids": Y, "mask": Y})[1] == {}
    batch = {"input_ids": Y, "kind": Y, "patient": Y}
    tokens, named = split_batch(batch, label_key="kind", group_key="patient")
    assert (set(tokens), set(named)) == ({"input_ids"}, {"labels", "groups"})
    tokens, label = split_sample(batch, label_key="kind", group_key="patient")
    assert (set(tokens), label is Y) == ({"input_ids"}, True)


def test_keys_say_where_things_are():
    batch = {"sound": X, "label": Y, "species": Y + 5}
    inputs, named = split_batch(batch, input_key="sound", label_key="species")
    assert inputs is X
    assert named["labels"].tolist() == [5, 6]
    inputs, named = split_batch((Y, X, Y + 5), input_key=1, label_key=-1)
    assert inputs is X
    assert named["labels"].tolist() == [5, 6]
    assert split_batch((X, {"a": Y, "species": Y + 5}), label_key="species")[1]["labels"].tolist() == [5, 6]
    assert batch_size({"sound": X}, input_key="sound") == 2


@pytest.mark.parametrize(
    ("batch", "keys", "message"),
    [
        ({"sound": X, "kind": Y}, {}, r"inputs under one of the keys.*'kind', 'sound'.*`input_key`"),
        ({"sound": X, "kind": Y}, {"input_key": "noise"}, r"`input_key`.*'kind', 'sound'.*'noise'"),
        ({"x": X, "kind": Y}, {"label_key": "labels"}, r"`label_key`.*'kind', 'x'.*'labels'"),
        ((X, {"kind": Y}), {"label_key": "species"}, r"2 entries and the keys \['kind'\].*'species'"),
        ((X, Y), {"label_key": 2}, r"`label_key`.*2 entries.*2"),
        (X, {"label_key": 1}, r"`label_key`.*one Tensor"),
        (3, {}, "Expected a batch to be .*int"),
        ([], {}, "Expected a batch to be .*list"),
    ],
)
def test_what_is_not_found_is_said_with_what_there_is(batch, keys, message):
    with pytest.raises(ValueError, match=message):
        split_batch(batch, **keys)


def test_data_may_have_keys_of_their_own():
    data = SimpleNamespace(label_key="species")
    assert keys_of(data) == {"input_key": None, "label_key": "species"}
    assert keys_of(data, 0, 1) == {"input_key": 0, "label_key": 1}
    assert keys_of(data, 0, 1, own_first=True) == {"input_key": 0, "label_key": "species"}


@pytest.mark.parametrize("batch", [(X, torch.tensor([7, 8]), Y), (X, torch.rand(2, 3), Y)])
def test_an_entry_that_may_be_an_index_is_warned_of(batch):
    with pytest.warns(UserWarning, match="`label_key`"):
        split_batch(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert split_batch(batch, label_key=2)[1]["labels"] is Y


def test_labels_go_by_the_name_that_the_task_calls_for():
    attributes = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    labels = match_labels({"targets": attributes}, "labels")["labels"]
    assert labels.tolist() == [[0, 1], [1, 1]]
    assert labels.dtype == torch.int64
    targets = match_labels({"labels": torch.tensor([2**40 + 1])}, "targets")["targets"]
    assert targets.tolist() == [float(2**40 + 1)]
    assert match_labels({"labels": Y}, None)["labels"] is Y
    assert match_labels({}, "labels") == {}
    for values in (0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="whole numbers"):
            match_labels({"targets": torch.tensor([values])}, "labels")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["classification"], "classification"),
        (["multiclass"], "classification"),
        (["Binary"], "classification"),
        (["single_label_classification"], "classification"),
        (["multi-label"], "multilabel"),
        (["multi_label_classification"], "multilabel"),
        (["regression"], "regression"),
        ([None, "regression"], "regression"),
        (["mrpc", "regression"], "regression"),
        ([], "classification"),
    ],
)
def test_words_for_kinds_of_task(words, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert task_of(None, *(SimpleNamespace(task=word) for word in words)) == kind


def test_other_words_are_said():
    with pytest.warns(UserWarning, match="'mrpc'.*taken for classification"):
        assert task_of(SimpleNamespace(task="mrpc")) == "classification"


def test_source_inputs_follow_from_the_logits():
    logits = torch.tensor([[0.0, 1.0, 3.0]])
    derived = derive_source_inputs(logits)
    assert tuple(derived) == SOURCE_INPUTS == INPUTS[3:]
    assert derived["source_outputs"] is logits
    assert derived["source_labels"].tolist() == [2]
    assert float(derived["source_probs"].sum()) == pytest.approx(1)
    assert set(derive_source_inputs(logits, ["source_labels", "features"])) == {"source_labels"}


def test_needs_of_metrics():
    class Foreign(Metric):
        def update(self, features, labels, source_probs=None):
            pass

        def compute(self):
            pass

    assert set(needs_of(Foreign())) == {"features", "labels"}
    assert set(needs_of(Energy())) == {"source_outputs"}
    assert wanted_labels(needs_of(Foreign())) == "labels"
    assert wanted_labels(needs_of(LogME(task="regression"))) == "targets"
    assert wanted_labels(["labels", "targets"]) is wanted_labels(["features"]) is None


def test_first_samples():
    batch = {"image": X, "names": TEXT, "scale": torch.tensor(2.0), "fold": "a", "more": (Y, {"y": Y})}
    first = first_samples(batch, 1, 2)
    assert len(first["image"]) == len(first["names"]) == len(first["more"][0]) == len(first["more"][1]["y"]) == 1
    assert (first["scale"], first["fold"]) == (2.0, "a")


def test_describe_batch():
    assert describe_batch({"b": X, "a": Y}) == "the keys ['a', 'b']"
    assert describe_batch((X, Y)) == "2 entries"
    assert describe_batch(X) == "one Tensor"


def test_the_old_home_still_opens():
    import lightning_transfer.batches as old
    from lightning_transfer.passes import ScoringPass

    with pytest.warns(FutureWarning, match=r"lightning_transfer\.passes\.ScoringPass"):
        assert old.ScoringPass is ScoringPass
    with pytest.warns(FutureWarning, match=r"lightning_transfer\.inputs\.split_batch"):
        assert old.split_batch is split_batch
    with pytest.raises(AttributeError, match="nothing"):
        old.nothing  # noqa: B018
