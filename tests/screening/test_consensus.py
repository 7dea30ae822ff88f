from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lightning_transfer.screening import Evidence, Leaderboard, Row, consensus

NAMES = ["a", "b", "c", "d", "e"]


def make_frame(seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        generator.normal(size=(5, 4)), index=NAMES, columns=["logme", "knn_accuracy", "gbc", "task_relatedness"]
    )
    frame["parameters"] = [3, 1, 4, 2, 5]
    return frame


def test_agreement_gives_the_order_and_probabilities_sum_to_one():
    frame = pd.DataFrame({"logme": range(5), "gbc": range(5), "parameters": range(10, 15)}, index=NAMES)
    opinion = consensus(frame)
    assert list(opinion["expected_rank"].sort_values().index) == NAMES[::-1]
    assert list(opinion["probability_best"].sort_values().index) == NAMES
    assert opinion["probability_best"].sum() == pytest.approx(1)
    assert opinion["expected_rank"].sum() == pytest.approx(15)
    assert opinion["expected_rank"].between(1, 5).all()


def test_probability_of_two_is_that_of_a_difference():
    frame = pd.DataFrame({"logme": [1.0, 2.0]}, index=["a", "b"])
    opinion = consensus(frame, evidence=Evidence())
    lead = 2 * 0.4 * 0.5894557  # weight times Blom's normal score of the better one, twice
    expected = 0.5 * (1 + math.erf(lead / math.sqrt(2 * 0.84) / math.sqrt(2)))
    assert opinion.loc["b", "probability_best"] == pytest.approx(expected, abs=1e-4)
    assert opinion.loc["b", "expected_rank"] == pytest.approx(2 - expected, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_a_better_score_never_looks_worse(seed):
    frame = make_frame(seed)
    before = consensus(frame)
    for column in frame.columns:
        for step in (0.3, 2.0, 9.0):
            better = frame.astype(float)
            better.loc["c", column] += -step if column == "task_relatedness" else step
            after = consensus(better)
            assert after.loc["c", "probability_best"] >= before.loc["c", "probability_best"] - 1e-12
            assert after.loc["c", "expected_rank"] <= before.loc["c", "expected_rank"] + 1e-12


def test_units_order_and_further_columns_do_not_matter():
    frame = make_frame()
    opinion = consensus(frame)
    changed = frame.assign(logme=np.exp(3 * frame["logme"]) * 1e6, parameters=frame["parameters"] * 10**6)
    changed = changed.assign(seconds=9.0, status="ok", rank=1).iloc[::-1, ::-1]
    other = consensus(changed).loc[NAMES]
    for column in ("expected_rank", "probability_best"):
        np.testing.assert_allclose(other[column], opinion[column])


def test_what_rounding_tells_apart_is_the_same():
    frame = make_frame()
    equal = consensus(frame.assign(h_score=4.0))
    rounded = consensus(frame.assign(h_score=[4.0, 4.0 - 2e-15, 4.0 + 4e-15, 4.0, 4.0 - 9e-16]))
    pd.testing.assert_frame_equal(rounded, equal)


def test_missing_scores_are_neither_good_nor_bad_but_less_is_known():
    frame = make_frame()
    frame.loc["a", ["logme", "gbc"]] = math.nan
    opinion = consensus(frame.assign(leep=math.nan))
    assert opinion.notna().all().all()
    assert opinion["probability_best"].sum() == pytest.approx(1)
    assert "not known: LogME, GBC, LEEP" in opinion.loc["a", "explanation"]
    assert "not known: LEEP" in opinion.loc["b", "explanation"]
    nothing = consensus(pd.DataFrame({"logme": [math.nan] * 4}))
    np.testing.assert_allclose(nothing["probability_best"], 0.25)
    np.testing.assert_allclose(nothing["expected_rank"], 2.5)


def test_a_score_that_is_the_same_for_all_says_nothing():
    frame = make_frame()
    same = consensus(frame.assign(h_score=4.0))
    missing = consensus(frame.assign(h_score=math.nan))
    for column in ("expected_rank", "probability_best"):
        np.testing.assert_allclose(same[column], missing[column])
    assert same.loc["a", "explanation"].endswith("; the same for all: H-score")
    assert "h_score" not in same.attrs["weights"]
    alone = consensus(pd.DataFrame({"logme": [1.0, math.nan]}, index=["a", "b"]))
    assert alone["probability_best"].tolist() == pytest.approx([0.5, 0.5])
    assert alone["explanation"].tolist() == ["no difference; the same for all: LogME", "no score; not known: LogME"]


def test_standard_errors_blur():
    frame = pd.DataFrame({"logme": [0.1, 0.2, 0.3]}, index=["a", "b", "c"])
    sharp = consensus(frame)
    blurred = consensus(frame.assign(logme_se=[1.0, 1.0, 1.0]))
    np.testing.assert_allclose(consensus(frame.assign(logme_se=0.0))["expected_rank"], sharp["expected_rank"])
    assert sharp.loc["c", "probability_best"] > blurred.loc["c", "probability_best"] > 1 / 3


def test_leaderboards_and_their_tables():
    board = Leaderboard(
        [Row("a", {"logme": 1.0, "loss": 0.2}, parameters=3), Row("b", {"logme": 2.0, "loss": 0.1}), Row("c")],
        lower_is_better=["loss"],
    )
    assert consensus(board)["probability_best"].idxmax() == "b"
    opinion = consensus(board.to_pandas(), lower_is_better=["loss"])
    assert opinion.loc["b", "expected_rank"] == pytest.approx(consensus(board).loc["b", "expected_rank"])


def test_an_infinite_score_of_a_leaderboard_is_none():
    rows = [Row("a", {"logme": 1.0, "own": math.inf}), Row("b", {"logme": 2.0, "own": 1.0})]
    missing = [Row("a", {"logme": 1.0, "own": math.nan}), rows[1]]
    pd.testing.assert_frame_equal(consensus(Leaderboard(rows)), consensus(Leaderboard(missing)))


def test_columns_of_other_types():
    frame = make_frame()
    opinion = consensus(frame)
    turned = pd.DataFrame({name: {**frame.loc[name], "note": "text"} for name in NAMES}).T  # which holds objects
    odd = frame.assign(own=1j, lfc_se=range(5)).rename(columns={"own": 3})  # no score, and errors of none
    for other in (turned, frame.astype(object), odd, frame.convert_dtypes()):
        pd.testing.assert_frame_equal(consensus(other), opinion)
    gap = frame.astype({"gbc": object})
    gap.loc["a", "gbc"] = None
    pd.testing.assert_frame_equal(consensus(gap), consensus(gap.astype({"gbc": float})))


def test_one_backbone_is_the_best_of_one():
    opinion = consensus(pd.DataFrame({"logme": [3.0]}, index=["only"]))
    assert opinion.loc["only", ["expected_rank", "probability_best"]].tolist() == [1.0, 1.0]


def tables(count: int, seed: int = 0) -> list[pd.DataFrame]:
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        truth = generator.normal(size=12)
        found.append(
            pd.DataFrame(
                {
                    "truth": truth,
                    "good": truth + 0.3 * generator.normal(size=12),
                    "useless": generator.normal(size=12),
                    "task_relatedness": -truth + generator.normal(size=12),
                }
            )
        )
    return found


def test_weights_follow_the_evidence():
    evidence = Evidence.learn(tables(60))
    weights, explained = evidence.weights(["good", "useless", "task_relatedness"])
    assert weights["good"] > weights["task_relatedness"] > weights["useless"] >= 0
    assert 0.5 < explained <= 0.95
    assert evidence.correlation("task_relatedness", "truth") > 0.5  # lower bounds are better
    prior, _ = Evidence().weights(["good", "useless", "gbc"])
    assert len({round(weight, 12) for weight in prior.values()}) == 1


def test_few_targets_move_the_prior_little():
    one, many = Evidence.learn(tables(1)), Evidence.learn(tables(100))
    assert 0.4 < one.correlation("good", "truth") < many.correlation("good", "truth")
    assert one.correlation("logme", "truth") == 0.4


def test_evidence_that_tells_nothing_is_the_prior():
    constant = pd.DataFrame({"truth": [0.5] * 4, "logme": [1, 2, 3, 4]})
    assert Evidence.learn([constant, constant[:2]]) == Evidence()
    with pytest.raises(ValueError, match="'truth'"):
        Evidence.learn([constant[["logme"]]])


def test_evidence_is_kept_as_text(tmp_path):
    evidence = Evidence.learn(tables(3), origin="three made-up targets")
    evidence.save(tmp_path / "evidence.json")
    again = Evidence.load(tmp_path / "evidence.json")
    assert again.origin == "three made-up targets"
    assert again.weights(["good", "useless"])[0] == pytest.approx(evidence.weights(["good", "useless"])[0], abs=1e-3)
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="format 1"):
        Evidence.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"logme": []}), "scores of backbones"),
        (pd.DataFrame({"status": ["ok"]}), "scores of backbones"),
        (pd.DataFrame({"logme": [1.0, math.inf]}), "infinite one in 'logme'"),
        (pd.DataFrame({"logme": [1.0, 2.0]}, index=["a", "a"]), "'a' twice"),
        (pd.DataFrame([[1.0, 2.0]], columns=["logme", "logme"]), "each column once, but got 'logme' twice"),
        (pd.DataFrame({"logme": [1.0], "logme_se": "x"}), "standard errors in 'logme_se', but got: could not"),
        (pd.DataFrame({"logme": [1.0], "logme_se": -2.0}), "standard errors in 'logme_se', but got -2"),
        ({"logme": [1.0]}, "but got dict"),
    ],
)
def test_bad_input(frame, message):
    with pytest.raises(ValueError, match=message):
        consensus(frame)
    with pytest.raises(ValueError, match="`evidence` to be what a study gives, but got 5"):
        consensus(frame, evidence=5)


def test_what_is_lower_is_better_has_to_be_there():
    with pytest.raises(ValueError, match=r"name columns among .*'parameters'\], but got 'loss'"):
        consensus(make_frame(), lower_is_better=["loss"])
    one = consensus(make_frame(), lower_is_better="gbc")
    pd.testing.assert_frame_equal(one, consensus(make_frame(), lower_is_better=["gbc"]))
    assert not one.equals(consensus(make_frame()))


@pytest.mark.parametrize("content", [
    "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "pairs": [1], "origin": ""}',
    '{"format": 1, "pairs": [["a", "b", 5, 2]], "origin": ""}',
    '{"format": 1, "pairs": [["a", "b", NaN, 2]], "origin": ""}',
])  # fmt: skip
def test_evidence_that_is_damaged_is_named(tmp_path, content):
    path = tmp_path / "evidence.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"evidence\.json"):
        Evidence.load(path)
