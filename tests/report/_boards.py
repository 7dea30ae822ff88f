"""Boards to show."""

from __future__ import annotations

from lightning_transfer.screening import Leaderboard, Row

COLUMNS = ("logme", "h_score", "leep", "nce", "knn_accuracy", "ridge_probe", "transrate", "task_relatedness")


def make_board(columns=COLUMNS, count=4, **info) -> Leaderboard:
    rows = [
        Row(
            f"backbone_{index}",
            {column: 0.1 * index + position for position, column in enumerate(columns)},
            {"logme": 0.3} if index else {},
            parameters=3_000_000 * (index + 1),
            flops=400_000_000,
            images_per_second=25.0,
            seconds=70.0,
        )
        for index in range(count)
    ]
    rows.append(Row("<script>alert(1)</script>", status="ValueError: <img src=x onerror=alert(1)>"))
    info = {"target": "toy & co", "split": "train", "num_samples": 12_345, "num_classes": 7, **info}
    return Leaderboard(rows, rank_by="logme" if "logme" in columns else None, info=info)
