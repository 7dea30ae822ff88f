"""Groups from a screen's target to its scores, whatever holds the data."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from _screens import Linear
from torch.utils.data import DataLoader, TensorDataset

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import BundledTable, Digits, Samples, Table
from lightning_transfer.extraction import extract
from lightning_transfer.metrics import HScore, KNNAccuracy
from lightning_transfer.screening import relate, screen
from lightning_transfer.screening.race import Race

SCORES = ["h_score", "knn_accuracy", "nce"]


def patients(n, count=13):
    return torch.randint(count, (n,), generator=torch.Generator().manual_seed(3)).tolist()


def expected_of(data, groups):
    """Scores and errors of the features, without a screen."""
    found = extract(Linear(6, 5), data, keep=("features", "labels"))
    kept = {**found.kept, "groups": torch.tensor(groups)}
    metrics = {"knn_accuracy": KNNAccuracy(), "h_score": HScore(jackknife_groups=16)}
    for metric in metrics.values():
        metric.update(**kept)
    return {name: metric.compute_with_interval() for name, metric in metrics.items()}


@pytest.fixture
def digits_160():
    return Digits(max_samples=160)


def assert_as_expected(board, expected):
    for name, interval in expected.items():
        assert board["linear"].score(name) == pytest.approx(interval.value)
        assert board["linear"].standard_errors[name] == pytest.approx(interval.standard_error)


def test_ids_of_the_scored_split(digits_160, tmp_path):
    groups = patients(160)
    expected = expected_of(digits_160, groups)
    board = screen(Linear(6, 5), digits_160, SCORES, groups=groups, error_bars=True, cache=tmp_path)
    assert_as_expected(board, expected)
    assert board.info["grouped"] is True
    again = screen(Linear(6, 5), digits_160, SCORES, groups=groups, error_bars=True, cache=tmp_path)
    assert again["linear"].cached
    assert again["linear"].scores == board["linear"].scores
    other = screen(Linear(6, 5), digits_160, SCORES, error_bars=True, cache=tmp_path)
    assert other["linear"].cached  # groups are no part of what features are kept by
    assert other["linear"].score("knn_accuracy") != board["linear"].score("knn_accuracy")
    assert other["linear"].score("h_score") == board["linear"].score("h_score")


def test_text_names_groups_as_well_as_numbers(digits_160):
    groups = patients(160)
    named = screen(Linear(), digits_160, "knn_accuracy", groups=np.array([f"patient {i}" for i in groups]))
    assert named["linear"].scores == screen(Linear(), digits_160, "knn_accuracy", groups=groups)["linear"].scores


@pytest.mark.parametrize("kind", ["samples", "loader", "tuples", "dict of splits"])
def test_a_key_of_samples_or_batches(digits_160, kind):
    groups = patients(160)
    expected = expected_of(digits_160, groups)
    dataset = digits_160.train_dataset
    rows = [{**dataset[i], "patient": f"p{group}"} for i, group in enumerate(groups)]
    key = "patient"
    if kind == "samples":
        data = Samples(rows)
    elif kind == "loader":
        data = DataLoader(rows, batch_size=50)
    elif kind == "dict of splits":
        data = {"train": rows}
    else:
        inputs = torch.stack([row["inputs"] for row in rows])
        labels = torch.stack([row["labels"] for row in rows])
        data, key = DataLoader(TensorDataset(inputs, torch.tensor(groups), labels), batch_size=33), 1
    board = screen(Linear(6, 5), data, ["knn_accuracy"], groups=key)
    assert board["linear"].score("knn_accuracy") == pytest.approx(expected["knn_accuracy"].value)


def test_features_that_were_computed_elsewhere():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 4, generator=generator), torch.arange(60) % 2
    groups = torch.arange(60) // 3
    board = screen({"a": features}, labels, ["knn_accuracy"], groups=groups)
    metric = KNNAccuracy()
    metric.update(features, labels, groups=groups)
    assert board["a"].score("knn_accuracy") == pytest.approx(float(metric.compute()))


def test_a_column_of_a_table(tmp_path):
    frame, _ = BundledTable("iris")._frame()
    frame = frame.assign(patient=[f"p{i}" for i in patients(len(frame), 30)])
    frame.to_csv(tmp_path / "iris.csv", index=False)
    data = Table(tmp_path / "iris.csv", label="target", groups="patient")
    assert data.input_shape == (4,)
    splits = [set(part.groups.tolist()) for part in (data.train_dataset, data.val_dataset, data.test_dataset)]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 30
    assert 0.5 < len(data.train_dataset) / 150 < 0.9
    frame.loc[3, "patient"] = None
    frame.to_csv(tmp_path / "gap.csv", index=False)
    with pytest.raises(ValueError, match=r"column 'patient' .* to have no gaps"):
        _ = Table(tmp_path / "gap.csv", label="target", groups="patient").train_dataset
    plain = Table(tmp_path / "iris.csv", label="target", features=["petal length (cm)", "petal width (cm)"])
    assert plain.with_groups("patient").train_dataset.groups.unique().numel() > 2
    assert plain.fingerprint("train") != plain.with_groups("patient").fingerprint("train")


def test_the_bound_learns_and_evaluates_on_different_groups(digits_160, tmp_path):
    from lightning_transfer.functional import task_relatedness

    target, reference = (patients(160), patients(160, 20))
    data, other = digits_160.with_groups(target), Digits(max_samples=160, seed=1).with_groups(reference)
    options = {"rounds": 1, "baselines": 0}
    board = screen(Linear(), data, "logme", reference=other, relatedness=options, cache=False)
    kept = [extract(Linear(), side, keep=("features", "labels", "groups")).kept for side in (other, data)]
    arguments = [kept[0]["features"], kept[0]["labels"], kept[1]["features"], kept[1]["labels"]]
    grouped = {"reference_groups": kept[0]["groups"], "target_groups": kept[1]["groups"]}
    expected = task_relatedness(*arguments, **grouped, **options).bound
    assert board["linear"].score("task_relatedness") == pytest.approx(expected)
    assert expected != pytest.approx(task_relatedness(*arguments, **options).bound)
    assert relate(Linear(), other, data, cache=False, **options).bound == pytest.approx(expected)
    held_out = relate(Linear(), other, data, evaluation_split="val", cache=False, confidence=0.9, **options)
    assert held_out.evaluated_on == "evaluation data"
    assert held_out.population_bound is not None


def test_portions_of_a_race_are_where_groups_end():
    ends = [7, 30, 41, 60, 90, 100]
    race = Race(4, 100, 0.5, ends=ends)
    sizes = []
    while portion := race.next_portion(4 if race.round == 0 else 2):
        sizes.append(portion)
        race.account(4 if race.round == 0 else 2, portion)
    assert set(race.portions) | set(sizes) <= set(ends)
    assert race.spent <= race.budget


def test_a_race_divides_no_group(digits_160, monkeypatch):
    groups = patients(160, 20)
    seen = []
    portion = Digits.portion
    monkeypatch.setattr(Digits, "portion", lambda self, *part: (seen.append(part[1]), portion(self, *part))[1])
    zoo = {f"net{width}": Linear(width) for width in (1, 2, 8, 16)}
    board = screen(zoo, digits_160, ["logme", "knn_accuracy"], race=0.6, groups=groups)
    assert len(seen) > 1
    sets = [set(torch.tensor(groups)[indices].tolist()) for indices in seen]
    assert sum(map(len, sets)) == len(set.union(*sets))
    assert board.info["grouped"] is True
    assert board.info["race"]["forward_passes"] <= 0.6 * 4 * 160


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([0, 1], "one id for each of 160 samples, but got 2"),
        ([1] * 160, "at least 2 groups, but got 1"),
        ([None, *range(159)], "the group of every sample, but got 1 without one"),
        ("patient", "has no columns to read them from, but got 'patient'"),
    ],
)
def test_wrong_groups_are_refused_before_a_backbone_runs(digits_160, groups, message):
    with pytest.raises(ValueError, match=message):
        screen(Linear(), digits_160, groups=groups)


def test_ids_do_not_go_with_a_loader_of_unknown_order(digits_160):
    loader = digits_160.predict_dataloader()
    with pytest.raises(ValueError, match="the key of the groups in batches of a loader"):
        screen(Linear(), loader, groups=[0, 1])
    with pytest.raises(ValueError, match="`with_groups` takes ids"):
        _ = Samples((torch.eye(4), [0, 1, 0, 1]), group_key="patient").train_dataset


def test_a_missing_key_names_the_keys_that_there_are(digits_160):
    rows = [digits_160.train_dataset[i] for i in range(20)]
    with pytest.raises(ValueError, match=r"`group_key` to say where .* \['inputs', 'labels'\], but got 'patient'"):
        screen(Linear(), Samples(rows), groups="patient")


def test_near_duplicates_name_the_remedy():
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    data, groups = (features.repeat(2, 1), (torch.arange(40) % 2).repeat(2)), torch.arange(40).repeat(2)
    zoo = {name: ModuleBackbone(torch.nn.Linear(8, 5), input_shape=(8,), head=None) for name in ("a", "b")}
    alone = screen(zoo, data, ["knn_accuracy", "logme"], cache=False)
    assert any("`groups` says so" in line for line in alone.headline())
    assert any("`groups` keeps samples that belong together" in note for note in alone.info["notes"])
    together = screen(zoo, data, ["knn_accuracy", "logme"], groups=groups, cache=False)
    assert not any("independent" in line for line in together.headline())
    assert "notes" not in together.info


def test_resume_takes_no_rows_of_other_groups(digits_160, tmp_path):
    screen(Linear(), digits_160, "knn_accuracy", groups=patients(160), output_dir=tmp_path)
    assert json.loads((tmp_path / "leaderboard.json").read_text())["info"]["grouped"] is True
    with pytest.raises(ValueError, match="resume"):
        screen(Linear(), digits_160, "knn_accuracy", resume=tmp_path)
