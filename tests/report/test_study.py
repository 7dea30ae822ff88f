from __future__ import annotations

from io import BytesIO

import pandas as pd
from PIL import Image

from lightning_transfer.report.study import as_text, figure_bytes, study_files


def make_table() -> pd.DataFrame:
    columns = {"top1_regret": [0.01, 0.2], "top1_regret_lower": [0.0, None], "top1_regret_upper": [0.03, None]}
    return pd.DataFrame({**columns, "cells": [3.0, 3.0]}, index=pd.Index(["logme", "a_b|<c>"], name="score"))


def test_pages_escape_what_names_hold():
    pages = study_files(["50 % & <more>"], {"across": make_table()}, b"png")
    html, markdown, latex = (pages[kind].decode() for kind in ("html", "md", "tex"))
    assert "50 % &amp; &lt;more&gt;" in html
    assert "<c>" not in html
    assert "| LogME | 0.010 [0.000, 0.030] | 3 |" in markdown
    assert r"A b\|<c>" in markdown
    assert r"LogME & 0.010 [0.000, 0.030] & 3 \\" in latex


def test_text_has_columns():
    lines = as_text(make_table()).splitlines()
    assert lines[0].split() == ["Score", "Regret", "Cells"]
    assert len({len(line) for line in lines}) == 1


def test_the_figure_has_a_panel_a_target_and_score():
    frame = pd.DataFrame({"logme": [1.0, 2.0], "gbc": [3.0, 1.0], "truth": [0.5, 0.6]})
    frames = {"one": frame, "two": frame[["logme", "truth"]], "three": frame[["logme", "truth"]]}
    content = figure_bytes(frames, ["gbc", "logme"])
    assert content.startswith(b"\x89PNG")
    assert Image.open(BytesIO(content)).size == (round(2.6 * 120), 3 * round(2.2 * 120))  # GBC is of one target only
