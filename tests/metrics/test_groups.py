"""Samples that belong together: no score and no interval divides them, however they come."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from _helpers import feed, load_estimators, make_inputs, rows
from scipy.stats import t as student
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from lightning_transfer.functional import h_score, knn_accuracy, leep, negative_conditional_entropy
from lightning_transfer.metrics import LEEP, NCE, Energy, HScore, KNNAccuracy, RankMe, RidgeProbe
from lightning_transfer.metrics.jackknife import jackknife_interval
from lightning_transfer.utilities.groups import parts_of

ESTIMATORS = load_estimators()
every = pytest.mark.parametrize("row", ESTIMATORS, ids=lambda row: row.name)
PARTS = 5


def grouped(row, seed=0, n=110):
    """Inputs of an estimator in 22 groups, of one to eleven samples."""
    inputs = row.make(seed, n=n)
    n, generator = len(inputs[row.inputs[0]]), torch.Generator().manual_seed(seed + 1)
    return {**inputs, "groups": 3 * torch.randint(22, (n,), generator=generator)}


def small(row):
    return row.new_metric(**({"jackknife_groups": PARTS} if row.new_metric().jackknife else {"num_resamples": 4}))


@every
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_intervals_do_not_depend_on_batches_or_order(row):
    inputs = grouped(row)
    order = torch.randperm(len(inputs["groups"]), generator=torch.Generator().manual_seed(5))
    shuffled = rows(inputs, order)
    first, second, third = (feed(small(row), *how) for how in ((inputs,), (inputs, [1, 50, 7]), (shuffled, [33])))
    expected = first.compute_with_interval()
    for other in (second.compute_with_interval(), third.compute_with_interval()):
        assert other.value == pytest.approx(expected.value, rel=1e-6, abs=1e-9)
        assert other.standard_error == pytest.approx(expected.standard_error, rel=1e-4, abs=1e-7)


@every
def test_merged_halves_equal_the_whole(row):
    inputs = grouped(row)
    first, second = feed(small(row), rows(inputs, slice(0, 37))), feed(small(row), rows(inputs, slice(37, None)))
    first.merge_state(second)
    assert float(first.compute()) == pytest.approx(float(feed(small(row), inputs).compute()), rel=1e-7, abs=1e-9)


@every
def test_groups_come_with_every_batch_or_with_none(row):
    inputs = grouped(row)
    plain = {name: values for name, values in inputs.items() if name != "groups"}
    for before, after in ((inputs, plain), (plain, inputs)):
        metric = feed(small(row), before)
        value = float(metric.compute())
        with pytest.raises(ValueError, match="`groups` with every batch or with none"):
            metric.update(**after)
        metric._computed = None
        assert float(metric.compute()) == pytest.approx(value, rel=1e-12)
        metric.reset()
        metric.update(**after)


@every
def test_wrong_groups_change_nothing(row):
    inputs = grouped(row)
    metric = small(row)
    for wrong in (inputs["groups"][:-1], inputs["groups"].double(), inputs["groups"] - 1000):
        with pytest.raises(ValueError, match="`groups`"):
            metric.update(**{**inputs, "groups": wrong})
    feed(metric, {name: values for name, values in inputs.items() if name != "groups"})
    assert math.isfinite(float(metric.compute()))


@every
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_group_has_no_interval(row):
    inputs = grouped(row)
    metric = feed(small(row), {**inputs, "groups": torch.zeros_like(inputs["groups"])})
    with pytest.raises(ValueError, match=r"`groups` to (hold|fill) at least 2"):
        metric.compute_with_interval()


def leave_parts_out(function, inputs, parts):
    """Value, standard error and bias by the jackknife with parts of different sizes, sample by sample in NumPy."""
    part = parts_of(inputs["groups"], parts).numpy()
    plain = {name: values for name, values in inputs.items() if name != "groups"}
    n, value = len(part), float(function(**plain))
    sizes = np.array([(part == j).sum() for j in range(parts)])
    without = np.array([float(function(**rows(plain, torch.from_numpy(part != j)))) for j in range(parts)])
    pseudo = n / sizes * value - (n / sizes - 1) * without
    centre = parts * value - ((1 - sizes / n) * without).sum()
    variance = ((pseudo - centre) ** 2 / (n / sizes - 1)).mean()
    return value, math.sqrt(variance), value - centre


@pytest.mark.parametrize(
    ("metric", "function", "needs", "parts"),
    [
        (HScore(jackknife_groups=PARTS), h_score, HScore.requires, PARTS),
        (NCE(jackknife_groups=PARTS), negative_conditional_entropy, NCE.requires, PARTS),
        (LEEP(), leep, LEEP.requires, 16),
    ],
    ids=["h_score", "nce", "leep"],
)
@pytest.mark.parametrize("n", [110, 2200])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_jackknife_leaves_whole_groups_out(metric, function, needs, parts, n):
    inputs = {**make_inputs(n=n), "groups": torch.randint(22, (n,), generator=torch.Generator().manual_seed(1))}
    inputs = {name: inputs[name] for name in (*needs, "groups")}
    interval = feed(metric.clone(), inputs, [60]).compute_with_interval(0.9)
    value, error, bias = leave_parts_out(function, inputs, parts)
    assert interval.value == pytest.approx(value, rel=1e-9)
    assert interval.standard_error == pytest.approx(error, rel=1e-6)
    assert interval.bias == pytest.approx(bias, rel=1e-6, abs=1e-9)
    assert interval.upper == pytest.approx(value - bias + student.ppf(0.95, parts - 1) * error, rel=1e-6)


def test_equal_parts_are_the_usual_jackknife():
    values = torch.tensor([1.0, 4.0, 2.0, 7.0], dtype=torch.float64)
    without = [(values.sum() - value).log() for value in values]
    plain = jackknife_interval(2.0, without, 0.9)
    sized = jackknife_interval(2.0, without, 0.9, [3, 3, 3, 3])
    for name in ("standard_error", "bias", "lower", "upper"):
        assert getattr(sized, name) == pytest.approx(getattr(plain, name))


@pytest.mark.parametrize("k", [1, 3])
def test_the_bootstrap_draws_whole_groups(k):
    inputs = grouped(next(row for row in ESTIMATORS if row.name == "transrate"))
    metric = feed(KNNAccuracy(k=k, num_resamples=300), inputs)
    interval = metric.compute_with_interval()
    predicted = cross_val_predict(
        KNeighborsClassifier(k), inputs["features"], inputs["labels"], groups=inputs["groups"], cv=LeaveOneGroupOut()
    )
    right = predicted == inputs["labels"].numpy()
    assert interval.value == pytest.approx(right.mean())
    members = [right[inputs["groups"].numpy() == group] for group in inputs["groups"].unique()]
    generator = np.random.default_rng(0)
    draws = [
        np.concatenate([members[i] for i in generator.integers(len(members), size=len(members))]).mean()
        for _ in range(2000)
    ]
    assert interval.standard_error == pytest.approx(np.std(draws), rel=0.15)


SEES_COPIES = (  # scores that a number of samples is part of, nearest neighbours in other places, and samples drawn
    "nce_miller_madow", "knn_accuracy_5", "knn_accuracy_cosine", "h_score_shrunk", "logme", "parc", "ncti", "pactran",
)  # fmt: skip


@pytest.mark.parametrize(
    "row", [row for row in ESTIMATORS if not row.name.startswith(SEES_COPIES)], ids=lambda row: row.name
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_copies_in_groups_have_the_interval_of_the_samples(row):
    inputs = row.make(0)
    n = len(inputs[row.inputs[0]])
    one, five = (
        feed(small(row), {**rows(inputs, chosen), "groups": chosen}, [])
        for chosen in (torch.arange(n), torch.arange(n).repeat_interleave(5))
    )
    one, five = one.compute_with_interval(), five.compute_with_interval()
    assert five.value == pytest.approx(one.value, rel=1e-6, abs=1e-9)
    assert five.standard_error == pytest.approx(one.standard_error, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    "metric", [KNNAccuracy(), RidgeProbe(regularization=1e-2, num_resamples=2)], ids=["knn_accuracy", "ridge_probe"]
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_copies_flatter_neither_score_nor_interval(metric):
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 30, generator=generator), torch.arange(40) % 2
    copies = {"features": features.repeat(5, 1), "labels": labels.repeat(5), "groups": torch.arange(40).repeat(5)}
    copies["features"] += 1e-3 * torch.randn(200, 30, generator=generator)
    alone = feed(metric.clone(), {"features": features, "labels": labels}).compute_with_interval()
    together = feed(metric.clone(), copies).compute_with_interval()
    apart = feed(metric.clone(), {name: copies[name] for name in ("features", "labels")}).compute_with_interval()
    if not isinstance(metric, RidgeProbe):  # whose resamples of single samples hold copies, too
        assert together.standard_error == pytest.approx(alone.standard_error, rel=0.5)
    assert together.value == pytest.approx(alone.value, abs=0.08)
    assert apart.value > alone.value + 0.2


def test_a_bounded_sample_keeps_the_groups_of_its_samples():
    generator = torch.Generator().manual_seed(0)
    features = torch.arange(600, dtype=torch.float64)[:, None] + torch.zeros(600, 2, dtype=torch.float64)
    features[300:] = features[:300]  # equal samples in another group
    groups = torch.arange(600) // 10
    order = torch.randperm(600, generator=generator)
    metric = KNNAccuracy(keep_samples=50)
    inputs = {"features": features, "labels": torch.arange(600) % 2, "groups": groups}
    feed(metric, rows(inputs, order), [100, 100, 100])
    kept, ids = metric._kept(), metric._kept_groups()
    assert len(ids) == 50
    places = kept["features"][:, 0].long()
    assert bool(((groups[places] == ids) | (groups[places + 300] == ids)).all())
    again = feed(KNNAccuracy(keep_samples=50), inputs, [7, 400])
    assert again._kept_groups().tolist() == ids.tolist()


@pytest.mark.ddp
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_processes_give_what_one_gives(tmp_path):
    torch.multiprocessing.spawn(_worker, args=(str(tmp_path),), nprocs=2, join=True)
    one = _intervals(lambda n: torch.ones(n, dtype=torch.bool))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found == pytest.approx(one, rel=1e-6, abs=1e-9)


def _intervals(share):
    found = {}
    for row in (row for row in ESTIMATORS if row.name in ("logme", "nce", "leep", "knn_accuracy", "ridge_probe")):
        inputs = grouped(row)
        metric = feed(small(row), rows(inputs, share(110)), [13])
        found[row.name] = metric.compute_with_interval().standard_error
    return found


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(_intervals(lambda n: (torch.arange(n) % 3 == 0) == (rank == 0)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_tokens_have_the_group_of_their_document():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(12, 6, 4, generator=generator), torch.randint(2, (12, 6), generator=generator)
    labels[0, :2] = torch.tensor([0, 1])
    documents = torch.arange(12) // 2
    metric = KNNAccuracy(ignore_index=-100)
    labels[3, 2:] = -100
    metric.update(features, labels, groups=documents)
    kept = labels.flatten() != -100
    flat = {"features": features.flatten(0, 1)[kept], "labels": labels.flatten()[kept]}
    expected = knn_accuracy(**flat, groups=documents.repeat_interleave(6)[kept])
    assert float(metric.compute()) == pytest.approx(float(expected))
    assert float(knn_accuracy(features, labels, ignore_index=-100, groups=documents)) == pytest.approx(float(expected))


@pytest.mark.parametrize("metric", [KNNAccuracy, RidgeProbe])
def test_a_class_of_one_group_is_said(metric):
    features, labels = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    whole = metric()
    whole.update(features, labels, groups=torch.where(labels == 2, 9, torch.arange(12)))
    with pytest.warns(UserWarning, match="1 of 3 classes lie in one group each, so their samples are never right"):
        assert float(whole.compute()) <= 8 / 12
    divided = metric()
    divided.update(features, labels, groups=torch.arange(12) // 6)
    assert not [message for message in divided.health().messages if "one group" in message]


@every
@pytest.mark.parametrize("keep_samples", [None, 30])
def test_samples_with_groups_are_not_merged_with_others(row, keep_samples):
    inputs = grouped(row)
    plain = {name: values for name, values in inputs.items() if name != "groups"}
    options = {} if row.new_metric().jackknife else {"keep_samples": keep_samples}
    for ours, theirs in ((inputs, plain), (plain, inputs)):
        with pytest.raises(ValueError, match="`groups` with every batch or with none"):
            feed(row.new_metric(**options), ours).merge_state(feed(row.new_metric(**options), theirs))


@pytest.mark.parametrize("metric", [Energy, RankMe])
def test_positions_without_labels_have_the_group_of_their_sample(metric):
    tokens = torch.randn(12, 6, 4, generator=torch.Generator().manual_seed(0))
    documents = torch.arange(12) // 2
    first, second = metric(), metric()
    first.update(tokens, groups=documents)
    second.update(tokens.flatten(0, 1), groups=documents.repeat_interleave(6))
    assert first.compute_with_interval() == second.compute_with_interval()
