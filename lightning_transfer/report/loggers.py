"""A leaderboard where a team looks at its runs: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightning_transfer.callbacks.publish import figure_taker
from lightning_transfer.utilities.text import whole_text

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from lightning_transfer.screening.leaderboard import Leaderboard

_KEY = "leaderboard"


def log_leaderboard(board: Leaderboard, logger: Logger) -> None:
    """Hand the scores, the table, the report and the figure to a logger, as much of it as that kind of logger takes.

    Args:
        board: The result of a screen.
        logger: Any Lightning logger gets the scores as ``BACKBONE/score``. TensorBoard's gets the table as text and the
            figure, Weights & Biases' both as such, MLflow's the report, the table and the figure as artifacts.

    Example:
        >>> import tempfile
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> from lightning_transfer.report.loggers import log_leaderboard
        >>> from lightning_transfer.screening import Leaderboard, Row
        >>> log_leaderboard(Leaderboard([Row("a", {"logme": 0.5})]), CSVLogger(tempfile.mkdtemp()))
    """
    for row in board.rows:
        scores = {f"{row.backbone}/{column}": score for column, score in row.scores.items() if math.isfinite(score)}
        if scores:
            logger.log_metrics(scores, step=0)
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(logger, "log_table"):  # Weights & Biases
        table = board.to_pandas().astype(object)
        data = table.where(table.notna(), None).to_numpy().tolist()
        logger.log_table(key=_KEY, columns=list(table.columns), data=data, step=0)
    elif hasattr(experiment, "add_text"):  # TensorBoard
        experiment.add_text(_KEY, board.to_markdown(), global_step=0)
    elif hasattr(experiment, "log_text") and hasattr(logger, "run_id"):  # MLflow
        experiment.log_text(logger.run_id, board.to_html(), f"{_KEY}.html")
        experiment.log_text(logger.run_id, str(whole_text(board.to_markdown())), f"{_KEY}.md")
    take = figure_taker(logger)
    if take is not None and board.is_drawable:
        take(_KEY, board.plot(), 0)
    logger.finalize("success")
