"""What a leaderboard says, in sentences: which backbone to fine-tune, and what is wrong with the zoo or the sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_transfer.report.text import title
from lightning_transfer.screening.consensus import consensus
from lightning_transfer.utilities.scores import equal_scores

if TYPE_CHECKING:
    from lightning_transfer.screening.row import Row
    from lightning_transfer.screening.standings import Standings

_LEVEL = 0.95
_FEWEST_OF_A_CLASS = 10.0
_LISTED = 4  # names in a sentence
_COLLAPSED = "nearly all variance lies along one direction"  # in the remarks of health records
_SHARE_OF_DUPLICATES = 0.05


def headline(board: Standings) -> list[str]:
    """The sentences over a leaderboard.

    Args:
        board: The result of a screen.

    Returns:
        First what to fine-tune and which others are not ruled out, or why nothing can be said; then what speaks against
        trusting it, a sentence each.

    Example:
        >>> from lightning_transfer.screening.headline import headline
        >>> from lightning_transfer.screening import Leaderboard, Row
        >>> rows = [Row("a", {"logme": 0.1}, {"logme": 0.01}), Row("b", {"logme": 0.2}, {"logme": 0.01})]
        >>> headline(Leaderboard(rows))
        ['Fine-tune b: LogME rules out all others (95 %).']
    """
    if not len(board):
        return ["Nothing was screened."]
    scored = [row for row in board.ranked() if math.isfinite(row.score(board.rank_by))]
    choice = _say_choice(board, scored)
    warnings = _about_scores(board, scored) if len(scored) > 1 and not all(row.control for row in scored) else []
    return [choice, *warnings, *_about_sample(board, scored), *_about_features(scored)]


def _say_choice(board: Standings, scored: Sequence[Row]) -> str:
    score, what = title(board.rank_by), "layer" if board.info.get("layers_of") else "backbone"
    failed = len(board) - len(scored)
    if not scored:
        first = board.ranked()[0]
        return (
            f"No {what} has a score in {score}, so nothing can be said ({first.backbone}: {first.status.rstrip('.')})."
        )
    best = scored[0]
    ruled_out, dropped = _dropped(board)
    if len(scored) == 1 and not (ruled_out or dropped):
        others = f" ({failed} without a score)" if failed else ""
        return f"There is nothing to choose from: only {best.backbone} has a score in {score}{others}."
    if len(scored) > 1 and _all_equal(scored, board.rank_by):
        return f"{score} is the same for all {len(scored)} {what}s: it does not say which one to take."
    if len(scored) > 1 and all(row.control for row in scored):
        return (
            f"All {len(scored)} {what}s have random weights: {score} compares their structures, not what training gave "
            f"them, so it does not say which one to fine-tune."
        )
    if best.control:
        return (
            f"A control with random weights ranks first ({best.backbone}): {score} shows no gain from training here, "
            f"so it does not say which {what} to take."
        )
    verb = f"Take the {what}" if what == "layer" else "Fine-tune"
    sentence = f"{verb} {best.backbone}"
    leads = [board.prob_better(best.backbone, row.backbone) for row in scored[1:]]
    if leads and not any(map(math.isfinite, leads)):
        return f"{sentence}: first by {score}, but without standard errors (error_bars=true) no other is ruled out."
    rivals = [row.backbone for row in scored[1:] if not _is_behind(board, best, row, board.rank_by)] + dropped
    if not rivals:
        return f"{sentence}: {score} rules out all others (95 %)."
    return f"{sentence}; {score} does not rule out {_listed(rivals)} (95 %)."


def _about_scores(board: Standings, scored: Sequence[Row]) -> list[str]:
    lines = []
    best, score = scored[0], title(board.rank_by)
    sizes = board.size_ranks()
    largest = [row for row in scored if sizes[row.backbone] == 1]
    known_sizes = {row.parameters for row in scored}
    if len(largest) == 1 and len(known_sizes) > 1 and not best.control:
        if largest[0] is best:
            lines.append("It is the largest one too: size alone would have been as good a guess.")
        elif board.prob_better(best.backbone, largest[0].backbone) < _LEVEL:
            lines.append(
                f"The largest one, {largest[0].backbone}, is not ruled out: as good a guess without any score."
            )
    ranks = board.ranks()
    trained = [row.backbone for row in scored if not row.control]
    beaten = [name for name in trained if (ranks.get(f"{name}_random") or math.inf) <= (ranks[name] or math.inf)]
    if beaten:
        lines.append(f"No better than their controls with random weights by {score}: {_listed(beaten)}.")
    if disagreement := _say_disagreement(board, best):
        lines.append(disagreement)
    return lines


def _all_equal(rows: Sequence[Row], column: str) -> bool:
    scores = [row.score(column) for row in rows]
    return not scores or equal_scores(min(scores), max(scores))


def _say_disagreement(board: Standings, best: Row) -> str:
    """Which scores would take another one, and what they make of it together."""
    choices: dict[str, list[str]] = {best.backbone: [title(board.rank_by)]}
    unsure: list[str] = []
    for column in board.columns:
        rows = [row for row in board.ranked(column) if math.isfinite(row.score(column))]
        if column == board.rank_by or _all_equal(rows, column):
            continue
        first = rows[0]
        as_good = math.isfinite(best.score(column)) and equal_scores(first.score(column), best.score(column))
        open_ = board.prob_better(first.backbone, best.backbone, column) < _LEVEL
        if open_ and not as_good:
            unsure.append(title(column))
        else:
            choices.setdefault((best if as_good else first).backbone, []).append(title(column))
    if len(choices) < 2:
        return ""
    parts = [f"{_listed(titles)} {'say' if len(titles) > 1 else 'says'} {name}" for name, titles in choices.items()]
    if unsure:
        verb = "put others" if len(unsure) > 1 else "puts another"
        parts.insert(1, f"{_listed(unsure)} {verb} first without ruling it out")
    scored = [row for row in board.rows if any(map(math.isfinite, row.scores.values()))]
    opinion = consensus(type(board)(scored, lower_is_better=board.lower_is_better))
    opinion = opinion.sort_values("probability_best", ascending=False, kind="stable")
    likely = [f"{name} ({share:.0%})" for name, share in opinion["probability_best"].head(2).items()]
    return (
        f"Scores disagree: {'; '.join(parts)}. Together ({opinion.attrs['origin']}) they find {' or '.join(likely)} "
        "the most likely best."
    )


def _about_sample(board: Standings, scored: Sequence[Row]) -> list[str]:
    lines = []
    samples, classes = board.info.get("num_samples"), board.info.get("num_classes")
    if samples and classes and samples < _FEWEST_OF_A_CLASS * classes:
        lines.append(f"{samples} samples of {classes} classes are few ({samples / classes:.1f} a class): take more.")
    if board.rank_by == "logme" and len(scored) > 1 and samples and (scored[0].feature_dim or 0) >= samples:
        lines.append(
            f"{samples} samples are no more than {scored[0].backbone} has features ({scored[0].feature_dim}): LogME "
            "then favours wide backbones, random ones too. Take more, or rank by another score."
        )
    if (
        len(scored) > 2
        and not _dropped(board)[0]
        and not any(_is_behind(board, scored[0], row, board.rank_by) for row in scored[1:])
    ):
        probabilities = [board.prob_better(scored[0].backbone, row.backbone) for row in scored[1:]]
        if all(map(math.isfinite, probabilities)):
            lines.append("This sample tells the first from none of the others: too few samples, or all are alike.")
    share = board.info.get("near_duplicates")
    if isinstance(share, float) and share >= _SHARE_OF_DUPLICATES and not board.info.get("grouped"):
        lines.append(
            f"At least {share:.0%} of the samples repeat or overlap another one: scores and their errors take samples "
            "as independent. Where they belong together, `groups` says so."
        )
    return lines


def _about_features(scored: Sequence[Row]) -> list[str]:
    collapsed = [row.backbone for row in scored if any(_COLLAPSED in remark for remark in row.remarks)]
    if not collapsed:
        return []
    if len(collapsed) == len(scored):
        return ["The features of all backbones have collapsed to one direction: no score of them says much."]
    return [f"Features have collapsed to one direction: {_listed(collapsed)}."]


def _dropped(board: Standings) -> tuple[list[str], list[str]]:
    """Those that a race dropped: ruled out, and for want of forward passes."""
    race = board.info.get("race")
    found = race.get("dropped") if isinstance(race, Mapping) else None
    ones = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    out = {str(one.get("backbone")): one.get("ruled_out") is True for one in ones}
    names = [row.backbone for row in board.rows if row.backbone in out]
    return [name for name in names if out[name]], [name for name in names if not out[name]]


def _is_behind(board: Standings, best: Row, row: Row, column: str) -> bool:
    return board.prob_better(best.backbone, row.backbone, column) >= _LEVEL


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    shown = names if len(names) <= _LISTED + 1 else [*names[:_LISTED], f"{len(names) - _LISTED} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
