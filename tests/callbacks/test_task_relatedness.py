from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from _training import CLASSES, Diary, Net, Points, features_of, fit, kinds_in, make_trainer, run_in_processes, trace
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_transfer.callbacks import TaskRelatednessMonitor, TransferabilityMonitor
from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.relatedness import BoundConfig, PublishedSchedule

OPTIONS = {"tau": 0.5, "rounds": 2, "ground_cost": "feature", "folds": 1}
TERMS = ("reweighted_reference_loss", "label_mismatch", "distribution_mismatch")


def _reference(workers=None, **options):
    return DataLoader(Points(40, seed=8, **options), batch_size=16, shuffle=True, **(workers or {}))


def _monitor(reference=None, **arguments):
    reference = _reference() if reference is None else reference
    return TaskRelatednessMonitor(reference, **{"settle": 1, "options": OPTIONS, **arguments})


def _bound(module, reference, target, **options):
    sides = [(features_of(module, points), points.labels) for points in (reference, target)]
    return task_relatedness(*sides[0], *sides[1], **{**OPTIONS, **options})


@pytest.fixture
def starts(monkeypatch):
    """The transforms that every solve starts from."""
    seen, module = [], sys.modules["lightning_transfer.functional.task_relatedness"]
    original = module.task_relatedness

    def spy(*args, warm_start, **options):
        seen.append(warm_start)
        return original(*args, warm_start=warm_start, **options)

    monkeypatch.setattr(module, "task_relatedness", spy)
    return seen


class Gallery(Diary):
    """Its own client, which keeps what it is handed."""

    def __init__(self):
        super().__init__()
        self.figures = []

    @property
    def experiment(self):
        return self


class WithFigures(Gallery):
    """Takes figures like TensorBoard's writer."""

    def add_figure(self, name, figure, global_step, close):
        self.figures.append((name, type(figure).__name__, global_step))


class WithRuns(Gallery):
    """Takes figures like the client of MLflow."""

    run_id = "7"

    def log_figure(self, run_id, figure, file):
        assert run_id == "7"
        name, step = file.removesuffix(".png").rsplit("_", 1)
        self.figures.append((name, type(figure).__name__, int(step)))


class WithImages(Gallery):
    """Takes images like the logger of Weights & Biases."""

    def log_image(self, key, images, step):
        self.figures.append((key, type(images[0]).__name__, step))


def test_values_are_the_bound_of_the_features_now():
    target, reference, untrained = Points(37, seed=1), Points(40, seed=8), Net()
    before = _bound(untrained, reference, target)
    monitor = _monitor(every_n_epochs=2)
    module, trainer = fit([monitor], untrained, None, DataLoader(target, 8))
    after = min(_bound(module, reference, target, warm_start=start).bound for start in (None, before))
    assert monitor.history[0]["bound"] == pytest.approx(before.bound, rel=1e-4)
    assert monitor.values["bound"] == pytest.approx(after, rel=1e-4)
    for record in monitor.history:
        assert record["bound"] == pytest.approx(sum(record[term] for term in TERMS), rel=1e-9)
        assert record["target_loss"] <= record["bound"] == record["task_relatedness"]
    assert {f"transfer/{name}" for name in ("bound", "task_relatedness", *TERMS, "target_loss")} <= set(
        trainer.callback_metrics
    )
    assert len(monitor.history) == 2


def test_training_is_bit_identical():
    plain, _ = fit()
    watched, _ = fit([_monitor(_reference(noise="global")), TransferabilityMonitor("logme")])
    assert trace(watched) == trace(plain)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_training_is_bit_identical_when_the_reference_fails():
    plain, _ = fit()
    monitor = _monitor(_reference(noise="global", fails_at=9))
    watched, _ = fit([monitor])
    assert trace(watched) == trace(plain)
    assert monitor.history == []


def test_the_next_look_starts_from_the_last_transforms(starts):
    results = []

    class Noting(TaskRelatednessMonitor):
        def published(self, trainer):
            results.append(self.results[0].bound)

    fit([Noting(_reference(), settle=1, options=OPTIONS)])
    assert [start and start.bound for start in starts] == [None, None, results[0], None, results[1]]


@pytest.mark.parametrize(
    ("settle", "gains", "expected"),
    [
        (0.02, [0.9, 0.9, 0.99, 0.5], 1.0 * 0.9 * 0.9 * 0.99),  # from the fourth solve on it no longer pays
        (0.02, [1.5, 0.5], 1.0),  # a solve that ends higher is not taken
        (0.2, [0.9, 0.5], 0.9),
        (1, [0.5], 1.0),
    ],
)
def test_a_look_goes_on_until_that_no_longer_pays(settle, gains, expected):
    made = []

    def solve(start):
        made.append(start)
        return SimpleNamespace(bound=1.0 if start is None else start.bound * gains[len(made) - 2], folds=None)

    assert _monitor(settle=settle)._settle(solve, None).bound == pytest.approx(expected)


@pytest.mark.parametrize(("warm", "expected"), [(0.8, 0.8), (1.2, 1.0), (None, 1.0)])
def test_the_better_of_the_two_starts_is_taken(warm, expected):
    def solve(start):
        if start is not None and warm is None:
            raise ValueError("other classes")
        return SimpleNamespace(bound=1.0 if start is None else warm, folds=None)

    assert _monitor(settle=1)._settle(solve, SimpleNamespace(bound=0.1)).bound == expected


def test_features_that_have_not_changed_keep_their_bound(starts):
    still = Net(lr=0.0)
    still.body[1] = torch.nn.Identity()  # its running statistics would move
    monitor = _monitor()
    fit([monitor], still)
    first, *others = ([record[name] for name in ("bound", *TERMS)] for record in monitor.history)
    assert others == [first, first]
    assert len(starts) == 1


def test_the_published_method_is_run_once_a_look(starts):
    schedule = replace(PublishedSchedule.small(), steps=3, head_epochs=3)
    options = {"method": "published", "ground_cost": "feature", "tau": 0.5, "schedule": schedule, "folds": 1}
    monitor = _monitor(settle=0.02, options=options, strict=True)
    fit([monitor])
    assert starts == [None] * 3
    assert len(monitor.history) == 3


def test_fixed_features_as_reference_and_early_stopping():
    reference = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 4
    monitor = _monitor(reference, every_n_epochs=1, prefix="relatedness")
    stopping = EarlyStopping("relatedness/task_relatedness", mode="min", patience=1, min_delta=1e9)
    _, trainer = fit([monitor, stopping], max_epochs=9)
    assert trainer.current_epoch == 2


@pytest.mark.parametrize("logger", [WithFigures, WithImages, WithRuns])
def test_figures_go_to_loggers_that_take_them(logger):
    diary = logger()
    fit([_monitor()], logger=[diary, Diary()], max_epochs=1)
    assert diary.figures == [("transfer/relatedness", "Figure", 0), ("transfer/relatedness", "Figure", 3)]
    assert [row["transfer-task_relatedness"] > 0 for step, row in diary.rows if "transfer-task_relatedness" in row] == [
        True,
        True,
    ]


def test_several_loaders_and_names():
    class Named(pl.LightningDataModule):
        class_names = ("ant", "bee", "cat")

        def train_dataloader(self):
            return DataLoader(Points(60), 16)

        def val_dataloader(self):
            return [DataLoader(Points(37, "dict", seed=1), 8), DataLoader(Points(30, "dict", seed=2), 8)]

    monitor = TaskRelatednessMonitor(Named(), options=OPTIONS)
    pl.seed_everything(3, verbose=False)
    make_trainer([monitor], max_epochs=1).fit(Net(), Named())
    assert {"bound/dataloader_idx_0", "bound/dataloader_idx_1"} <= set(monitor.values)
    assert monitor.results[1].reference_class_names == monitor.results[1].target_class_names == Named.class_names


def test_stop_and_resume(tmp_path, starts):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True, monitor="transfer/task_relatedness")
    first = _monitor()
    fit([first, checkpoint], enable_checkpointing=True)
    saved = torch.load(checkpoint.best_model_path, weights_only=True)
    assert float(checkpoint.best_model_score) == min(record["bound"] for record in first.history[1:])
    (state,) = (state for key, state in saved["callbacks"].items() if key.startswith("TaskRelatednessMonitor"))
    assert kinds_in(state) <= {str, int, float, torch.Tensor}

    begun, epoch = len(starts), int(saved["epoch"])
    resumed = _monitor()
    trainer = make_trainer([resumed], max_epochs=epoch + 2)
    loaders = DataLoader(Points(60), 16), DataLoader(Points(37, seed=1), 8)
    trainer.fit(Net(), *loaders, ckpt_path=checkpoint.best_model_path, weights_only=True)
    assert resumed.history[: epoch + 2] == first.history[: epoch + 2]
    assert [record["epoch"] for record in resumed.history] == [0, *range(epoch + 2)]
    cold, warm = starts[begun:]
    assert cold is None
    assert warm.bound == first.history[epoch + 1]["bound"]
    restored = _monitor()
    restored.load_state_dict(first.state_dict())
    assert torch.equal(restored.results[0].label_map, first.results[0].label_map)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data", ["val", "train"])
@pytest.mark.parametrize(
    "options",
    [{"fast_dev_run": 4}, {"barebones": True}, {"logger": False}, {"precision": "bf16-mixed"}],
    ids=["fast_dev_run", "barebones", "logger", "bfloat16"],
)
def test_modes_of_the_trainer(options, data):
    if options.get("barebones"):
        options = {**options, "logger": None, "enable_checkpointing": None, "enable_model_summary": None}
    monitor = _monitor(data=data, strict=True)
    watched, trainer = fit([monitor, TransferabilityMonitor("logme", strict=True)], **options)
    assert {"transfer/task_relatedness", "transfer/logme"} <= set(trainer.callback_metrics)
    assert len(monitor.history) == (2 if options.get("fast_dev_run") else 3)
    assert trace(watched) == trace(fit([], **options)[0])


def test_two_monitors_and_workers_that_persist():
    workers = {"num_workers": 1, "persistent_workers": True}
    loaders = _reference(workers), DataLoader(Points(60), 16, True, **workers), DataLoader(Points(37), 8, **workers)
    one, other = _monitor(loaders[0]), _monitor((torch.randn(30, 8), torch.arange(30) % 3), prefix="other")
    watched, trainer = fit([one, other], None, *loaders[1:])
    assert {"transfer/task_relatedness", "other/task_relatedness"} <= set(trainer.callback_metrics)
    assert trace(watched) == trace(fit([], None, *loaders[1:])[0])


def test_a_target_without_labels_gets_pseudo_labels():
    points = Points(37, seed=1)

    class Blind(Net):
        def validation_step(self, batch, batch_idx):
            self(batch)

    monitor = _monitor()
    fit([monitor], Blind(), None, DataLoader(points.inputs, 8), max_epochs=1)
    assert monitor.results[0].labels_used == "pseudo"


@pytest.mark.parametrize("stays", [True, False], ids=["features", "loader"])
def test_groups_of_both_sides_are_divided_by_halves(monkeypatch, stays):
    class Grouped(DataLoader):
        group_key = 2

    def loader(n, seed):
        points = Points(n, seed=seed)
        return Grouped(TensorDataset(points.inputs, points.labels, torch.arange(n) // 4), batch_size=8)

    seen, module = [], sys.modules["lightning_transfer.functional.task_relatedness"]
    original = module.task_relatedness
    monkeypatch.setattr(
        module, "task_relatedness", lambda *args, **options: seen.append(options) or original(*args, **options)
    )
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
    reference = (*features, torch.arange(40) // 5) if stays else loader(40, 8)
    monitor = TaskRelatednessMonitor(reference, data=loader(36, 1), options={"rounds": 1}, strict=True)
    fit([monitor], max_epochs=1)
    groups = torch.arange(40) // (5 if stays else 4), torch.arange(36) // 4
    assert len(seen) == len(monitor.history) == 2
    for options in seen:
        assert torch.equal(options["reference_groups"], groups[0])
        assert torch.equal(options["target_groups"], groups[1])


def test_a_failure_is_a_warning_once_and_strict_raises():
    wide = torch.randn(40, 5), torch.arange(40) % 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit([_monitor(wide)])
    assert sum("TaskRelatednessMonitor" in str(warning.message) for warning in caught) == 1
    with pytest.raises(ValueError, match="5"):
        fit([_monitor(wide, strict=True)])


@pytest.mark.parametrize(("reference", "said"), [("digit", "did you mean 'digits'"), (3, "got 3"), (None, "got None")])
def test_bad_reference(reference, said):
    with pytest.raises(ValueError, match=f"`reference`.*{said}"):
        TaskRelatednessMonitor(reference)


def test_references_by_name_stand_side_by_side_under_names_of_their_own():
    monitors = [TaskRelatednessMonitor("digits", name=name) for name in (None, "one", "two")]
    assert type(monitors[0].reference).__name__ == "Digits"
    make_trainer(monitors)
    assert [monitor.prefix for monitor in monitors] == ["transfer", "transfer/one", "transfer/two"]
    for name in ("", 3):
        with pytest.raises(ValueError, match="`name`"):
            TaskRelatednessMonitor("digits", name=name)


def bounds(devices: int = 2) -> dict[str, list[float]]:
    strategy = "ddp" if devices > 1 else "auto"
    found = {}
    for name, n in {"uneven": 37, "capped": 60}.items():
        monitor = _monitor(max_samples=50, reference_samples=33, strict=True)
        module = Net(lr=0.0)
        module.body[1] = torch.nn.Identity()
        fit([monitor], module, None, DataLoader(Points(n, seed=5), 8), devices=devices, strategy=strategy, max_epochs=1)
        found[name] = [record["bound"] for record in monitor.history]
        assert len(monitor.results[0].target_classes) == CLASSES
    return found


@pytest.mark.ddp
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_processes_give_the_value_of_one(tmp_path):
    alone, ranks = bounds(1), run_in_processes(bounds, tmp_path)
    assert ranks[0] == ranks[1]
    for name, values in alone.items():
        assert len(values) == 2
        assert all(map(math.isfinite, values))
        assert ranks[0][name] == pytest.approx(values, rel=1e-4)


class Asked(Points):
    """Counts how often its samples are asked for."""

    def __init__(self, n):
        super().__init__(n, seed=8)
        self.count = 0

    def __getitem__(self, index):
        self.count += 1
        return super().__getitem__(index)


def _passes_over_the_reference(module, **options):
    points = Asked(40)
    monitor = _monitor(DataLoader(points, batch_size=16, shuffle=True), strict=True)
    fit([monitor], module, **options)
    return points.count / 40, monitor


def test_the_reference_is_passed_again_only_if_the_features_may_have_changed():
    frozen = Net()
    frozen.frozen.requires_grad_(False)
    frozen.body.requires_grad_(False)
    frozen.body[1] = torch.nn.Identity()
    count, monitor = _passes_over_the_reference(frozen)
    assert count == 1
    assert len(monitor.history) == 3
    assert len({record["task_relatedness"] for record in monitor.history}) == 1

    moving = Net()  # statistics of a batch norm move, although no weight is trained
    moving.frozen.requires_grad_(False)
    moving.body.requires_grad_(False)
    assert _passes_over_the_reference(moving)[0] == 3

    assert _passes_over_the_reference(Net())[0] == 3


def test_a_config_may_be_among_the_options():
    config = BoundConfig(ground_cost="feature", tau=0.5)
    assert _monitor(options={"config": config}).config == config
    assert _monitor(options={"config": config, "tau": 2.0}).config == replace(config, tau=2.0)
    assert _monitor(options={"config": config}, ground_cost="logit_range").config.ground_cost == "logit_range"


@pytest.mark.parametrize("given", [{"label_map": "diagonal"}, {"head": 3}, {"evaluation": (1,)}, {"warm_start": {}}])
def test_what_goes_beside_the_options_is_looked_at_at_once(given):
    with pytest.raises(ValueError, match=f"`{next(iter(given))}`"):
        _monitor(options=given)
    with pytest.raises(ValueError, match="`options` without 'target_groups'"):
        _monitor(options={"target_groups": torch.arange(4)})
