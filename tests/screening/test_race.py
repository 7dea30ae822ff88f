from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_transfer.data import Digits
from lightning_transfer.data.sampling import stratified_order
from lightning_transfer.screening import Leaderboard, Row, screen
from lightning_transfer.screening.race import Race, say_dropped
from tests._screens import Counted, Failing, Linear


@pytest.mark.parametrize(("count", "samples", "share"), [(200, 800, 0.5), (40, 333, 0.3), (2, 100, 0.5), (7, 64, 1.0)])
def test_the_plan_keeps_to_the_share(count, samples, share):
    race = Race(count, samples, share)
    assert race.portions[-1] == samples
    alive = count
    while portion := race.next_portion(alive):
        race.account(alive, portion)
        alive = max(2, min(alive, race.places[min(race.round, len(race.places) - 1)]))
    assert race.spent <= share * count * samples
    assert race.spent >= 0.5 * share * count * samples


def standing(scores, error):
    return Leaderboard([Row(f"n{i}", {"logme": score}, {"logme": error}) for i, score in enumerate(scores)])


def test_who_is_behind_goes_and_who_has_no_room():
    race = Race(4, 100, 0.5)
    race.account(4, race.next_portion(4))
    (gone,) = race.drop(standing([1.0, 0.99, 0.98, 0.1], 0.05))
    assert (gone.backbone, gone.samples, gone.ruled_out) == ("n3", race.seen, True)
    assert "ruled out (95 %): LogME 0.1, the best 1" in say_dropped(gone, "LogME")
    tight = Race(40, 800, 0.5)
    tight.account(40, tight.next_portion(40))
    last = tight.drop(standing(list(np.linspace(0, 1, 40)), 10.0))
    assert len(last) == 40 - tight.places[1]
    assert not any(one.ruled_out for one in last)
    assert "not ruled out" in say_dropped(last[0], "LogME")


def race_of(scores, share, noise, samples, generator):
    """Run a race on simulated scores: means of noisy samples (with heavy tails, where no noise is given), around the
    true ones."""
    count = len(scores)
    shape = count, samples
    draws = noise * generator.normal(size=shape) if noise else 0.3 * generator.standard_t(2.1, size=shape)
    draws = np.asarray(scores)[:, None] + draws
    race, alive = Race(count, samples, share), list(range(count))
    while portion := race.next_portion(len(alive)):
        race.account(len(alive), portion)
        rows = [
            Row(str(i), {"logme": draws[i, :portion].mean()}, {"logme": draws[i, :portion].std() / math.sqrt(portion)})
            for i in alive
        ]
        board = Leaderboard(rows)
        gone = {int(one.backbone) for one in race.drop(board)}
        alive = [i for i in alive if i not in gone]
    winner = max(alive, key=lambda i: draws[i, : race.seen].mean())
    full, errors = draws.mean(axis=1), draws.std(axis=1) / math.sqrt(samples)
    return full.max() - full[winner] <= errors[full.argmax()], race.spent / (count * samples)


def trials(number: int, count: int, zoo: str = "study") -> tuple[int, float]:
    good, costs = 0, []
    for seed in range(number):
        generator = np.random.default_rng(seed)
        gaps = generator.normal(size=count) * generator.choice([0.02, 0.05, 0.1])
        noise = generator.choice([0.3, 0.6])
        if zoo != "study":
            gaps, noise = 0.1 * (np.arange(count) == 7), 0.5 if zoo == "one ahead" else None
        right, cost = race_of(gaps, 0.5, noise, 800, generator)
        good += right
        costs.append(cost)
    return good, max(costs)


def test_the_winner_survives_in_simulated_zoos():
    good, cost = trials(10, 40)
    assert good >= 9
    assert cost <= 0.5


@pytest.mark.long
@pytest.mark.parametrize("zoo", ["study", "one ahead", "heavy tails"])
def test_the_winner_survives_in_simulated_zoos_of_two_hundred(zoo):
    good, cost = trials(100, 200, zoo)
    assert good >= 95
    assert cost <= 0.5


def test_a_race_spends_no_more_and_says_what_it_dropped(tmp_path):
    zoo = {f"net{width}": Counted(width) for width in (1, 2, 4, 8, 16, 32)}
    target = Digits(max_samples=400)
    board = screen(zoo, target, ["logme", "h_score", "knn_accuracy"], race=0.5, output_dir=tmp_path)
    assert board.best == screen(zoo, target, "logme").best == "net32"
    account = board.info["race"]
    assert account["forward_passes"] <= 0.5 * 6 * 400 == 0.5 * account["of"]
    gone = {one["backbone"]: one for one in account["dropped"]}
    assert gone
    for name, one in gone.items():
        assert board[name].scores == {} or all(math.isnan(v) for v in board[name].scores.values())
        assert board[name].status.startswith(f"dropped after {one['samples']} samples")
    assert any(note.startswith(f"Race: {len(gone)} of 6 backbones were dropped") for note in board.info["notes"])
    again = Leaderboard.load(tmp_path)
    assert again.info["race"] == account
    assert again.best == "net32"


def test_survivors_have_the_scores_of_all_samples_they_saw():
    zoo = {"a": Linear(8), "b": Linear(16)}
    target = Digits(max_samples=200)
    raced = screen(zoo, target, ["logme", "knn_accuracy", "transrate"], race=1.0)
    target.setup()
    seen = stratified_order(target.train_dataset.truth, 0, every_class_first=True)[: raced.info["num_samples"]]
    full = screen(zoo, target.portion("train", seen), ["logme", "knn_accuracy", "transrate"])
    assert raced.best_score == pytest.approx(full.best_score, rel=1e-5)
    for name in zoo:
        if raced[name].scores:
            for column in ("logme", "knn_accuracy", "transrate"):
                assert raced[name].score(column) == pytest.approx(full[name].score(column), rel=1e-5)


def test_portions_are_nested_and_stratified():
    target = Digits(max_samples=300)
    target.setup()
    labels = target.train_dataset.truth
    part = target.portion("train", torch.arange(10))
    assert torch.equal(part.train_dataset.truth, labels[:10])
    assert len(target.train_dataset) == 300
    assert len(part.val_dataset) == len(target.val_dataset)


def test_one_that_fails_leaves_the_race():
    zoo = {"a": Linear(4), "bad": Failing(RuntimeError("broken")), "c": Linear(8)}
    board = screen(zoo, Digits(max_samples=200), "logme", race=0.9)
    assert "broken" in board["bad"].status
    assert board.best in ("a", "c")


class LaterFailing(Linear):
    """Fails after so many samples."""

    def __init__(self, width: int, samples: int) -> None:
        super().__init__(width)
        self.left = samples

    def encode(self, inputs):
        self.left -= len(inputs)
        if self.left < 0:
            raise RuntimeError("broken")
        return super().encode(inputs)


def test_one_that_fails_later_has_no_score_of_fewer_samples():
    zoo = {"a": Linear(4), "bad": LaterFailing(9, 60), "c": Linear(8)}
    board = screen(zoo, Digits(max_samples=200), "logme", race=0.9, cache=False)
    assert "broken" in board["bad"].status
    assert not board["bad"].scores or math.isnan(board["bad"].score("logme"))
    assert board.best != "bad"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"race": 0.0}, "`race`"),
        ({"race": 1.5}, "`race`"),
        ({"race": 0.05}, "samples for each of 2 backbones"),
        ({"race": 0.5, "reference": "digits"}, "without `reference`"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        screen({"a": Linear(3), "b": Linear(4)}, Digits(max_samples=100), "logme", **options)


def test_a_race_keeps_to_the_column_of_its_first_round():
    zoo = {"headless": Linear(2, name="headless")} | {f"n{i}": Linear(12 + i, 4, name=f"n{i}") for i in range(3)}
    board = screen(zoo, Digits(max_samples=400), ["logme", "leep"], race=0.6, progress=False)
    assert board.rank_by == "logme"
