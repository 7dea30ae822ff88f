"""Options of the bound: checked when made, put on top of each other, old spellings."""

import pytest
import torch

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.metrics.task_relatedness import TaskRelatedness
from lightning_transfer.relatedness import BoundConfig, PublishedSchedule


def test_options_on_top_of_a_config(blobs):
    config = BoundConfig(tau=0.5, rounds=1)
    assert BoundConfig.of(config, {"rounds": 2}) == BoundConfig(tau=0.5, rounds=2)
    assert config.rounds == 1
    data = blobs()
    expected = task_relatedness(*data, tau=0.5, rounds=1, ground_cost="logit_range")
    assert task_relatedness(*data, config=config, ground_cost="logit_range").bound == expected.bound
    assert expected.config == BoundConfig(tau=0.5, rounds=1, ground_cost="logit_range")


@pytest.mark.parametrize(
    ("transforms", "learn", "learns_map"),
    [("fixed_all", set(), False), ("learned_a", {"features"}, True), (["prior", "labels"], {"prior", "labels"}, False)],
)
def test_transforms(transforms, learn, learns_map):
    config = BoundConfig(transforms=transforms)
    assert (config.learn, config.learns_map) == (learn, learns_map)
    assert not BoundConfig(feature_map="identity").learns_map


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": -1}, "`tau` to be a number"),
        ({"tau": "small"}, "`tau`"),
        ({"ridge": "auto"}, "`ridge`"),
        ({"ground_cost": "squared"}, "`ground_cost`"),
        ({"method": "other"}, "`method`"),
        ({"transforms": ["maps"]}, r"got \['maps'\]"),
        ({"transforms": 5}, r"got \['5'\]"),
        ({"transforms": [["labels"]]}, r"got "),
        ({"dimension": 0}, "`dimension`"),
        ({"standardize": "no"}, "`standardize`"),
        ({"block_size": 1}, "`block_size`"),
        ({"fit_target_samples": 1}, "`fit_target_samples`"),
        ({"num_target_classes": 0}, "`num_target_classes`"),
        ({"schedule": "huge"}, "`schedule`"),
        ({"level": 1.0}, "`level`"),
        ({"num_resamples": 1}, "`num_resamples` to be .* at least 2"),
        ({"folds": 0}, "`folds`"),
        ({"folds": True}, "`folds`"),
        ({"confidence": 0.0}, "`confidence`"),
        ({"seed": 0.5}, "`seed`"),
        ({"grond_cost": "feature"}, "'grond_cost'; did you mean 'ground_cost'"),
        ({"warm_stat": None}, "did you mean 'warm_start'"),
        ({"xyz": 1}, "known are"),
    ],
)
def test_wrong_options_fail_before_anything_runs(options, message):
    nothing = torch.zeros(0, 0)
    for call in (
        lambda: BoundConfig.of(None, options),
        lambda: task_relatedness(nothing, nothing, nothing, **options),
        lambda: TaskRelatedness(**options),
    ):
        if "warm_stat" in options or not set(options) <= set(BoundConfig.__dataclass_fields__):
            call = lambda: BoundConfig.of(None, options)  # noqa: E731  # a Metric has arguments of its own
        with pytest.raises(ValueError, match=message):
            call()


def test_a_config_of_another_kind():
    with pytest.raises(ValueError, match="`config` to be a `BoundConfig`, but got dict"):
        BoundConfig.of({"tau": 1}, {})


def test_old_spellings_warn_and_work():
    with pytest.warns(FutureWarning, match="block_size"):
        config = BoundConfig.of(None, {"max_samples": 50})
    assert (config.block_size, config.fit_target_samples) == (50, 50)
    with pytest.warns(FutureWarning, match="keep_samples"):
        assert TaskRelatedness(kept_samples=5).keep_samples == 5
    with pytest.warns(DeprecationWarning, match="Certificate"):
        from lightning_transfer.relatedness import Figures
    assert Figures.__name__ == "Certificate"


def test_old_attributes_of_a_result_warn_and_work(blobs):
    result = task_relatedness(*blobs(), rounds=1, tau=0.5, folds=1)
    for old, value in (
        ("figures", result.certificate),
        ("fit_figures", result.fit),
        ("held_out_figures", None),
        ("tau_requested", 0.5),
        ("method", "alternating"),
    ):
        with pytest.warns(DeprecationWarning, match=old):
            assert getattr(result, old) == value
    with pytest.raises(AttributeError, match="nothing"):
        result.nothing  # noqa: B018


def test_schedules():
    assert BoundConfig(schedule=PublishedSchedule.large()).schedule == PublishedSchedule.of("large")
    assert PublishedSchedule.small().num_head_steps(1200) == 501 * 3
    assert PublishedSchedule.large().num_head_steps(1200) == 2001
