from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_transfer.data import Digits, Samples, TransferDataModule, TransferDataset
from lightning_transfer.data.base import LoadedData, draw_splits


class Vectors(TransferDataModule):
    """Numbered samples: the input of sample i is [i]."""

    default_name = "vectors"

    def __init__(self, truth, task="classification", names=("a", "b", "c", "d"), val_fraction=0.25, **kwargs):
        super().__init__(**kwargs)
        self.truth, self._task, self._names, self.val_fraction = torch.as_tensor(truth), task, names, val_fraction
        self.loads = 0

    def load(self):
        self.loads += 1
        key = "targets" if self._task == "regression" else "labels"
        inputs = torch.arange(len(self.truth), dtype=torch.float32)[:, None]
        dataset = TransferDataset(inputs, self.truth, key)
        return LoadedData(self._task, draw_splits({"train": dataset}, self.seed, self.val_fraction, 0.25), self._names)


FOUR_CLASSES = [0, 1, 2, 3] * 20


def numbers(dataset):
    return [int(sample["inputs"]) for sample in dataset]


def epoch(loader):
    return torch.cat([batch["inputs"][:, 0] for batch in loader]).int().tolist()


def test_data_are_read_once():
    data = Vectors(FOUR_CLASSES)
    data.prepare_data()
    data.setup("fit")
    before = numbers(data.train_dataset)
    data.prepare_data()
    data.setup("predict")
    assert data.loads == 1
    assert numbers(data.train_dataset) == before
    assert (data.task, data.num_classes, data.class_names, data.target_names) == (
        "classification",
        4,
        ("a", "b", "c", "d"),
        (),
    )
    assert (data.name, data.input_shape) == ("vectors", (1,))


def test_seed_decides_splits_and_training_order():
    first, again, other = (Vectors(FOUR_CLASSES, seed=seed, batch_size=7) for seed in (3, 3, 4))
    assert numbers(first.val_dataset) == numbers(again.val_dataset) != numbers(other.val_dataset)
    loader = first.train_dataloader()
    one, two = epoch(loader), epoch(loader)
    assert sorted(one) == sorted(two) == numbers(first.train_dataset)
    assert one != two != sorted(two)
    assert epoch(again.train_dataloader()) == one
    assert epoch(first.predict_dataloader()) == numbers(first.train_dataset)
    assert epoch(first.split_dataloader("val")) == epoch(first.val_dataloader()) == numbers(first.val_dataset)
    assert epoch(first.test_dataloader()) == numbers(first.test_dataset)


def test_training_leaves_out_a_last_batch_of_one():
    splits = {"val_fraction": 0, "test_fraction": 0}
    samples = torch.randn(9, 2), torch.arange(9) % 3
    sizes = {}
    for size in (4, 1, 9, 16):
        data = Samples(samples, batch_size=size, **splits)
        data.setup()
        sizes[size] = [[len(batch["labels"]) for batch in loader] for loader in
                       (data.train_dataloader(), data.predict_dataloader())]  # fmt: skip
    assert sizes[4] == [[4, 4], [4, 4, 1]]
    assert sizes[1] == [[1] * 9] * 2
    assert sizes[9] == sizes[16] == [[9]] * 2


def test_global_random_state_is_left_alone():
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    data = Vectors(FOUR_CLASSES, max_samples=20)
    for loader in (data.train_dataloader(), data.predict_dataloader(), data.val_dataloader()):
        epoch(loader)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()


def test_classes_by_id_and_name_are_renumbered_in_the_given_order():
    everything, data = Vectors(FOUR_CLASSES), Vectors(FOUR_CLASSES, classes=["d", 1])
    assert data.class_names == ("d", "b")
    assert data.num_classes == 2
    for split in ("train_dataset", "val_dataset", "test_dataset"):
        kept = [i for i in numbers(getattr(everything, split)) if i % 4 in (1, 3)]
        assert numbers(getattr(data, split)) == kept
        assert getattr(data, split).truth.tolist() == [0 if i % 4 == 3 else 1 for i in kept]


def test_two_halves_share_no_sample():
    halves = [Vectors(FOUR_CLASSES, classes=classes) for classes in ([0, 1], [2, 3])]
    seen = [
        {i for dataset in (half.train_dataset, half.val_dataset, half.test_dataset) for i in numbers(dataset)}
        for half in halves
    ]
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 80


@pytest.mark.parametrize("size", [4, 5, 13, 39])
def test_subsample_is_stratified_and_nested(size):
    full, part, more = (Vectors(FOUR_CLASSES, max_samples=m) for m in (None, size, size + 1))
    counts = part.train_dataset.truth.bincount(minlength=4)
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1
    assert set(numbers(part.train_dataset)) < set(numbers(more.train_dataset)) <= set(numbers(full.train_dataset))
    assert numbers(part.val_dataset) == numbers(full.val_dataset)
    assert len(Vectors(FOUR_CLASSES, max_samples=10_000).train_dataset) == 40


def test_several_labels_a_sample():
    labels = (torch.arange(40)[:, None] >> torch.arange(3)) & 1
    data = Vectors(labels, "multilabel", ("x", "y", "z"), classes=["z", "x"], max_samples=8)
    assert (data.task, data.class_names, len(data.train_dataset)) == ("multilabel", ("z", "x"), 8)
    for sample in data.train_dataset:
        i = int(sample["inputs"])
        assert sample["labels"].tolist() == [i >> 2 & 1, i & 1]


def test_regression():
    data = Vectors(torch.rand(20, 2), "regression", ("u", "v"), max_samples=5)
    batch = next(iter(data.predict_dataloader()))
    assert set(batch) == {"inputs", "targets"}
    assert batch["targets"].shape == (5, 2)
    assert (data.task, data.num_classes, data.class_names, data.target_names) == ("regression", None, (), ("u", "v"))
    with pytest.raises(ValueError, match="`classes` to be None for regression"):
        Vectors(torch.rand(20, 2), "regression", ("u", "v"), classes=[0, 1]).setup()


def test_missing_splits():
    data = Vectors(FOUR_CLASSES, val_fraction=0.0)
    assert data.val_dataset is None
    assert data.val_dataloader() == []
    assert len(data.test_dataset) == 20
    with pytest.raises(ValueError, match="'val' has no samples"):
        data.split_dataloader("val")
    with pytest.raises(ValueError, match="`split` to be one of"):
        data.split_dataloader("valid")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` to be an integer of at least 1, but got 0"),
        ({"num_workers": -1}, "`num_workers`"),
        ({"seed": 0.5}, "`seed`"),
        ({"max_samples": 0}, "`max_samples`"),
        ({"classes": "a"}, "`classes` to be a list of ids or names, but got 'a'"),
        ({"classes": 3}, "`classes` to be a list"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Vectors(FOUR_CLASSES, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["a", "nope"]}, "ids below 4 or names among: a, b, c, d; but got 'nope'"),
        ({"classes": [0, 4]}, "but got 4"),
        ({"classes": [0, -1]}, "but got -1"),
        ({"classes": [True, 0]}, "but got True"),
        ({"classes": [0, "a"]}, "different classes"),
        ({"classes": []}, "different classes"),
        ({"classes": [2]}, r"at least two classes, but got \['c'\]"),
        ({"max_samples": 3}, "`max_samples` to be at least the number of classes \\(4\\), but got 3"),
        ({"val_fraction": 1.5}, "`val_fraction` to be a number in"),
        ({"val_fraction": 0.75}, "leave samples for training"),
    ],
)
def test_bad_choices_are_refused_on_reading(arguments, message):
    data = Vectors(FOUR_CLASSES, **arguments)
    for _ in range(2):  # a failure leaves nothing half done
        with pytest.raises(ValueError, match=message):
            data.setup()


def test_empty_and_single_class_data_are_refused():
    with pytest.raises(ValueError, match="training split of `vectors` to hold samples, but got none"):
        Vectors(torch.zeros(0, dtype=torch.long)).setup()
    with pytest.raises(ValueError, match=r"at least two classes, but got \['b'\]"):
        Vectors([1] * 10).setup()
    with pytest.raises(ValueError, match="to hold samples"):
        Vectors([0, 1] * 10, classes=["c", "d"]).setup()
    with pytest.raises(ValueError, match="as many `labels` as inputs"):
        TransferDataset(torch.zeros(3, 1), torch.zeros(2), "labels")


def test_pickle_before_and_after_reading():
    data = Digits(classes=[1, 7], max_samples=30)
    for copy in (pickle.loads(pickle.dumps(data)), pickle.loads(pickle.dumps((data.setup(), data)[1]))):
        assert copy.class_names == ("1", "7")
        assert torch.equal(copy.train_dataset.inputs, data.train_dataset.inputs)


def test_persistent_workers_give_the_same_batches():
    alone, helped = Vectors(FOUR_CLASSES, batch_size=8), Vectors(FOUR_CLASSES, batch_size=8, num_workers=2)
    loader, expected = helped.train_dataloader(), alone.train_dataloader()
    assert loader.persistent_workers
    for _ in range(2):
        assert epoch(loader) == epoch(expected)


class Counter(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 4)
        self.seen = {"fit": 0, "val": 0, "test": 0}

    def training_step(self, batch, _):
        self.seen["fit"] += len(batch["labels"])
        return torch.nn.functional.cross_entropy(self.layer(batch["inputs"]), batch["labels"])

    def validation_step(self, batch, _):
        self.seen["val"] += len(batch["labels"])

    def test_step(self, batch):
        self.seen["test"] += len(batch["labels"])

    def predict_step(self, batch, _):
        return batch["inputs"][:, 0]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-4)


def test_trainer_runs_every_stage(tmp_path):
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    module, data = Counter(), Vectors(FOUR_CLASSES, batch_size=16)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    assert module.seen == {"fit": 80, "val": 40, "test": 20}
    predicted = torch.cat(trainer.predict(module, datamodule=data))
    assert predicted.int().tolist() == numbers(data.train_dataset)


def test_with_groups_of_one_split_the_others_can_still_be_read():
    data = Vectors(FOUR_CLASSES)
    data.setup()
    ids = torch.arange(len(data.train_dataset)) // 4
    grouped = data.with_groups(ids)
    assert grouped.train_dataset.groups.unique().numel() == len(ids.unique())
    for split in ("train", "val", "test"):
        batch = next(iter(grouped.split_dataloader(split)))
        assert len(batch[grouped.group_key]) == len(batch["labels"])
    assert len(grouped.split_dataset("val").groups.unique()) == len(grouped.split_dataset("val"))
    again = grouped.with_groups(torch.arange(len(data.split_dataset("val"))) % 2, split="val")
    assert torch.equal(again.train_dataset.groups, grouped.train_dataset.groups)
    assert again.split_dataset("val").groups.unique().numel() == 2


def test_what_load_has_to_return():
    class Pair(TransferDataModule):
        def load(self):
            return torch.zeros(4, 2), torch.arange(4) % 2

    with pytest.raises(ValueError, match=r"`load` of Pair to return a LoadedData\(.*\), but got tuple"):
        Pair().setup()


def test_a_large_group_keeps_no_small_ones_out_of_the_splits():
    groups = torch.tensor([0] * 50 + list(range(1, 31)))
    for seed in range(8):
        dataset = TransferDataset(torch.zeros(80, 1), torch.arange(80) % 2, "labels", groups)
        splits = draw_splits({"train": dataset}, seed, 0.1, 0.2)
        assert {split: len(part) for split, part in splits.items()} == {"val": 8, "test": 16, "train": 56}
        apart = [set(part.groups.tolist()) for part in splits.values()]
        assert sum(map(len, apart)) == len(set.union(*apart)) == 31
