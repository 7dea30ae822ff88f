"""What every estimator owes its users, tested over the table of ``tests/_helpers.py``."""

from __future__ import annotations

import doctest
import math
import pickle

import pytest
import torch
from _helpers import feed, load_estimators, rows, run_two_processes
from torchmetrics import MetricCollection

ESTIMATORS = load_estimators()
every = pytest.mark.parametrize("row", ESTIMATORS, ids=lambda row: row.name)


def with_invariance(name):
    chosen = [row for row in ESTIMATORS if name in row.invariances]
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row.name)


def with_input(name):
    chosen = [row for row in ESTIMATORS if name in row.inputs]
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row.name)


def assert_close(value, expected, tolerance):
    assert abs(float(value) - float(expected)) <= tolerance * max(1.0, abs(float(expected)))


def states(metric):
    return {name: pickle.dumps(getattr(metric, name)) for name in metric._defaults}


# ---- values ----------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_function_is_a_finite_float64_scalar_in_its_range(row, seed):
    inputs = row.make(seed)
    value = row.score(inputs)
    low, high = row.bounds(inputs)
    assert value.shape == ()
    assert value.dtype == torch.float64
    assert math.isfinite(value)
    assert low - 1e-9 <= float(value) <= high + 1e-9


@every
@pytest.mark.parametrize("sizes", [[], [1, 1, 1], [64, 13], [32, 32, 32]], ids=["one", "singles", "uneven", "even"])
def test_metric_equals_function_however_batches_are_cut(row, sizes):
    inputs = row.make()
    assert_close(feed(row.new_metric(), inputs, sizes).compute(), row.score(inputs), row.tolerance)


@every
def test_order_of_samples_does_not_matter(row):
    inputs = row.make()
    n = len(inputs[row.inputs[0]])
    shuffled = rows(inputs, torch.randperm(n, generator=torch.Generator().manual_seed(3)))
    expected = row.score(inputs)
    assert_close(row.score(shuffled), expected, row.tolerance)
    assert_close(feed(row.new_metric(), shuffled, [50]).compute(), expected, row.tolerance)


@every
def test_merged_halves_equal_the_whole(row):
    inputs = row.make()
    n = len(inputs[row.inputs[0]])
    first = feed(row.new_metric(), rows(inputs, slice(0, 37)))
    second = feed(row.new_metric(), rows(inputs, slice(37, n)))
    first.merge_state(second)
    assert_close(first.compute(), row.score(inputs), row.tolerance)


@every
def test_states_made_in_inference_mode(row):
    inputs = row.make()
    with torch.inference_mode():
        metric = feed(row.new_metric(), inputs, [40])
        assert_close(metric.compute(), row.score(inputs), row.tolerance)
        metric.update(**inputs)
        twice = float(metric.compute())
    assert_close(feed(row.new_metric(), {name: torch.cat([x, x]) for name, x in inputs.items()}).compute(), twice, 1e-7)


@every
def test_states_keep_their_precision(row):
    inputs = row.make()
    n = len(inputs[row.inputs[0]])
    metric = MetricCollection({"score": row.new_metric()}).set_dtype(torch.float16)
    metric.half()
    metric.update(**rows(inputs, slice(0, n // 2)))
    metric.set_dtype(torch.float32)
    metric.update(**rows(inputs, slice(n // 2, n)))
    assert_close(metric.compute()["score"], row.score(inputs), row.tolerance)


@with_input("labels")
def test_numbering_of_classes_does_not_matter(row):
    inputs = row.make()
    expected = row.score(inputs)
    with_gaps, permuted = torch.tensor([3, 4, 11, 40]), torch.tensor([2, 0, 3, 1])
    for renumbering in [with_gaps] if row.class_order_matters else [with_gaps, permuted]:
        renumbered = {**inputs, "labels": renumbering[inputs["labels"]]}
        assert_close(row.score(renumbered), expected, row.tolerance)
        assert_close(feed(row.new_metric(), renumbered, [40]).compute(), expected, row.tolerance)


@with_input("labels")
def test_class_missing_from_the_data(row):
    inputs = row.make()
    kept = rows(inputs, inputs["labels"] != 1)
    dense = {**kept, "labels": torch.tensor([0, 9, 1, 2])[kept["labels"]]}
    assert_close(row.score(kept), row.score(dense), row.tolerance)
    assert_close(feed(row.new_metric(), kept, [40]).compute(), row.score(dense), row.tolerance)


def assert_metric_equals_function_in_range(row, inputs):
    value = row.score(inputs)
    low, high = row.bounds(inputs)
    assert math.isfinite(value)
    assert low - 1e-9 <= float(value) <= high + 1e-9
    options = {"keep_samples": None} if hasattr(row.new_metric(), "keep_samples") else {}
    assert_close(feed(row.new_metric(**options), inputs, [11, 700]).compute(), value, row.tolerance)


@every
def test_more_features_than_samples_and_a_class_with_one_sample(row):
    inputs = row.make(n=26, d=40)
    if "labels" in inputs:
        inputs["labels"] = torch.arange(len(inputs["labels"])) % 3
        inputs["labels"][7] = 3
    assert_metric_equals_function_in_range(row, inputs)


@with_input("labels")
def test_a_thousand_classes(row):
    assert_metric_equals_function_in_range(row, row.make(n=1500, classes=1000))


@with_input("labels")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_label_dtypes(row, dtype):
    inputs = row.make()
    expected = row.score(inputs)
    cast = {**inputs, "labels": inputs["labels"].to(dtype)}
    assert_close(row.score(cast), expected, row.tolerance)
    assert_close(feed(row.new_metric(), cast, [40]).compute(), expected, row.tolerance)


def assert_same_in_another_precision(row, inputs, dtype):
    cast = {name: x.to(dtype) if x.is_floating_point() else x for name, x in inputs.items()}
    same = {name: x.double() if x.is_floating_point() else x for name, x in cast.items()}
    if "source_probs" in same:
        same["source_probs"] /= same["source_probs"].sum(1, keepdim=True)
    expected = row.score(same)
    assert_close(row.score(cast), expected, row.dtype_tolerance)
    value = feed(row.new_metric(), cast, [40]).compute()
    assert value.dtype == torch.float64
    assert_close(value, expected, row.dtype_tolerance)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_feature_dtypes(row, dtype):
    assert_same_in_another_precision(row, row.make(), dtype)


@with_input("features")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_feature_dtypes_of_a_condition_of_ten_thousand_and_a_mean_of_ten_times_the_spread(row, dtype):
    inputs = row.make()
    features = (inputs["features"] - inputs["features"].mean(0)) / inputs["features"].std(0)
    d = features.shape[1]
    features = features * torch.logspace(0, -2, d, dtype=torch.float64) @ orthogonal(d)
    features = features + 10 * features.std()
    assert_same_in_another_precision(row, {**inputs, "features": features}, dtype)


def golden_pairs():
    found = [(row, case) for row in ESTIMATORS if row.golden for case in row.golden.cases()]
    return pytest.mark.parametrize(("row", "case"), found, ids=[f"{row.name}-{case}" for row, case in found])


@golden_pairs()
def test_golden_values(row, case):
    inputs = row.make_golden(case)
    row.golden.check(row.score(inputs), case)
    row.golden.check(feed(row.new_metric(), inputs).compute(), case)
    row.golden.check(feed(row.new_metric(), inputs, [1, 30, 64]).compute(), case)


# ---- invariances of the formula --------------------------------------------------------------------------------------


def transformed(row, change):
    inputs = row.make()
    return row.score({**inputs, "features": change(inputs["features"])}), row.score(inputs)


def orthogonal(d):
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(5)))[0]


@with_invariance("shift")
def test_shift(row):
    value, expected = transformed(row, lambda x: x + torch.linspace(-3, 4, x.shape[1], dtype=x.dtype))
    assert_close(value, expected, max(row.tolerance, 1e-8))


@with_invariance("scale")
def test_scale(row):
    value, expected = transformed(row, lambda x: 3.7 * x)
    assert_close(value, expected, max(row.tolerance, 1e-8))


@with_invariance("rotation")
def test_rotation(row):
    value, expected = transformed(row, lambda x: x @ orthogonal(x.shape[1]))
    assert_close(value, expected, max(row.tolerance, 1e-8))


@with_invariance("affine")
def test_affine(row):
    def change(x):
        stretch = torch.linspace(0.5, 2.0, x.shape[1], dtype=x.dtype)
        return (x @ orthogonal(x.shape[1])) * stretch + 1.5

    value, expected = transformed(row, change)
    assert_close(value, expected, max(row.tolerance, 1e-8))


@with_invariance("repeat")
def test_every_sample_twice(row):
    inputs = row.make()
    twice = {name: torch.cat([values, values]) for name, values in inputs.items()}
    assert_close(row.score(twice), row.score(inputs), max(row.tolerance, 1e-8))


# ---- bad input -------------------------------------------------------------------------------------------------------


def damage(row):
    """Bad versions of good inputs, with the name that the message has to hold."""
    inputs = row.make()
    for name, values in inputs.items():
        yield f"{name}: list", name, {**inputs, name: values.tolist()}
        yield f"{name}: 3 dimensions too many", name, {**inputs, name: values[(...,) + (None,) * 3]}
        if len(inputs) > 1:
            yield f"{name}: length", "", {**inputs, name: values[:-1]}
        if values.is_floating_point():
            for bad in (math.nan, math.inf, -math.inf):
                broken = values.clone()
                broken[5, 1] = bad
                yield f"{name}: {bad}", name, {**inputs, name: broken}
            if name != "targets":  # which may be whole numbers
                yield f"{name}: integer", name, {**inputs, name: values.long()}
        else:
            yield f"{name}: floating", name, {**inputs, name: values.double()}
            yield f"{name}: negative", name, {**inputs, name: values - 100}
    yield "empty", "", rows(inputs, slice(0, 0))


@every
def test_bad_input_is_refused_and_leaves_states_untouched(row):
    metric = feed(row.new_metric(), row.make(seed=4))
    value = metric.compute()  # moments that wait for a full chunk are added up now
    before = states(metric)
    for case, name, bad in damage(row):
        named = [f"`{name}`", "`labels`"] if row.reads_targets else [f"`{name}`"]
        if not (row.reads_targets and case == "labels: floating"):
            with pytest.raises(ValueError, match="Expected") as refusal:
                row.score(bad)
            assert any(n in str(refusal.value) for n in named) or not name, f"{case}: {refusal.value}"
        with pytest.raises(ValueError, match="Expected") as refusal:
            metric.update(**bad)
        assert f"`{name}`" in str(refusal.value) or not name, f"{case}: {refusal.value}"
        assert states(metric) == before, case
    assert float(metric.compute()) == float(value)


@with_input("labels")
def test_one_class_only(row):
    inputs = row.make()
    inputs = {**inputs, "labels": torch.full_like(inputs["labels"], 2)}
    metric = row.new_metric()
    if row.one_class == "refused":
        with pytest.raises(ValueError, match="`labels`"):
            row.score(inputs)
        with pytest.raises(ValueError, match="`labels`"):
            feed(metric, inputs).compute()
    else:
        assert math.isfinite(row.score(inputs))
        assert math.isfinite(feed(metric, inputs).compute())


@every
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_compute_without_data_is_refused(row):
    with pytest.raises(ValueError, match="with samples before `compute`"):
        row.new_metric().compute()


@every
def test_inputs_and_global_random_states_are_left_alone(row):
    inputs = row.make()
    copies = {name: values.clone() for name, values in inputs.items()}
    random_state = torch.get_rng_state()
    row.score(inputs)
    feed(row.new_metric(), inputs, [40]).compute()
    assert all(torch.equal(values, copies[name]) for name, values in inputs.items())
    assert torch.equal(torch.get_rng_state(), random_state)


# ---- life of a Metric ------------------------------------------------------------------------------------------------


@every
def test_clone_pickle_hash_reset(row):
    inputs = row.make()
    expected = row.score(inputs)
    metric = row.new_metric()
    hash(metric)
    feed(metric, rows(inputs, slice(0, 40)))
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric))):
        feed(copy, rows(inputs, slice(40, None)), [20])
        assert_close(copy.compute(), expected, row.tolerance)
    assert hash(metric) != hash(metric.clone())
    assert metric.state_dict() == {}
    metric.reset()
    assert_close(feed(metric, inputs, [30]).compute(), expected, row.tolerance)


@every
def test_forward_gives_the_batch_and_keeps_the_whole(row):
    inputs = row.make()
    metric = row.new_metric()
    half = len(inputs[row.inputs[0]]) // 2
    first, second = rows(inputs, slice(0, half)), rows(inputs, slice(half, None))
    assert_close(metric(**first), row.score(first), row.tolerance)
    assert_close(metric(**second), row.score(second), row.tolerance)
    assert_close(metric.compute(), row.score(inputs), row.tolerance)


@every
def test_attributes(row):
    metric = row.new_metric()
    assert metric.is_differentiable is False
    assert isinstance(metric.higher_is_better, bool)
    assert metric.full_state_update is False
    assert tuple(metric.requires) == tuple(row.inputs)
    with pytest.raises(ValueError, match="Unexpected keyword arguments"):
        row.new_metric(no_such_option=1)


@every
def test_interval_holds_the_value(row):
    inputs = row.make()
    options = {"jackknife_groups": 5} if hasattr(row.new_metric(), "jackknife_groups") else {}
    interval = feed(row.new_metric(**options), inputs, [25, 25, 25]).compute_with_interval(level=0.9)
    assert_close(interval.value, row.score(inputs), row.tolerance)
    assert interval.level == 0.9
    assert float(interval.standard_error) >= 0
    assert float(interval.lower) <= float(interval.value - interval.bias) + 1e-12
    assert float(interval.value - interval.bias) <= float(interval.upper) + 1e-12
    again = feed(row.new_metric(**options), inputs, [25, 25, 25]).compute_with_interval(level=0.9)
    assert float(again.standard_error) == float(interval.standard_error)


@every
def test_health_counts_the_samples(row):
    inputs = row.make()
    health = feed(row.new_metric(), inputs, [25]).health()
    assert health.num_samples == len(inputs[row.inputs[0]])
    if "labels" in row.inputs:
        assert health.num_classes == len(inputs["labels"].unique())
        assert health.smallest_class == int(torch.bincount(inputs["labels"]).min())
    assert all(isinstance(message, str) for message in health.messages)


@every
def test_plot(row):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    metric = feed(row.new_metric(), row.make())
    figure, _ = metric.plot()
    assert figure is not None
    plt.close(figure)


def test_all_in_one_collection():
    inputs = {name: values for row in ESTIMATORS for name, values in row.make().items() if row.prepare is None}
    chosen = [row for row in ESTIMATORS if row.prepare is None]
    collection = MetricCollection({row.name.replace(".", "_"): row.new_metric() for row in chosen})
    for start in range(0, 110, 40):
        collection.update(**rows(inputs, slice(start, start + 40)))
    for name, value in collection.compute().items():
        row = next(row for row in chosen if row.name.replace(".", "_") == name)
        assert_close(value, row.score(row.make()), row.tolerance)


# ---- documentation ---------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("kind", ["function", "metric"])
def test_documentation_has_an_example_that_runs(row, kind):
    thing = getattr(row, kind)
    thing = getattr(thing, "func", thing)  # the one behind a functools.partial
    assert "Example:" in thing.__doc__
    if kind == "function":
        assert "Raises:" in thing.__doc__
    finder = doctest.DocTestFinder(recurse=False)
    examples = [test for test in finder.find(thing, name=thing.__name__, globs={}) if test.examples]
    assert examples
    for test in examples:
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
        assert runner.run(test).failed == 0


# ---- two processes ---------------------------------------------------------------------------------------------------

SPLITS = [73, 110]  # samples of rank 0; in the second case rank 1 has none


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    return run_two_processes(SPLITS, str(tmp_path_factory.mktemp("two_processes")))


@pytest.mark.ddp
@every
@pytest.mark.parametrize("case", range(len(SPLITS)), ids=["uneven", "one rank empty"])
def test_two_processes_equal_one(row, case, two_processes):
    inputs = row.make()
    first = rows(inputs, slice(0, 30))
    continued = {name: torch.cat([values, first[name], first[name]]) for name, values in inputs.items()}
    for rank in range(2):
        assert_close(two_processes[rank][row.name, case], row.score(inputs), row.tolerance)
        value = two_processes[rank][row.name + " continued", case]
        assert_close(value, row.score(continued), row.tolerance)


@pytest.mark.ddp
@golden_pairs()
def test_golden_values_over_two_processes(row, case, two_processes):
    for rank in range(2):
        row.golden.check(two_processes[rank][row.name, case], case)
