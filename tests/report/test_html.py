"""The HTML report as text: what is in it, and that nothing from data becomes markup or script."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from importlib.resources import files

from lightning_transfer.metrics.registry import METRICS
from lightning_transfer.report.html import bound_section, leaderboard_html, run_section
from lightning_transfer.screening import Leaderboard, Row
from tests.report._boards import make_board

BOUND = {
    "bound": 0.6, "reweighted_reference_loss": 0.3, "label_mismatch": 0.1, "distribution_mismatch": 0.2,
    "target_loss": 0.5, "target_accuracy": 0.9, "guessing": 0.69, "label_map": [[0.9, 0.2], [0.1, 0.8]],
    "reference_class_names": ["cat", "<b>"], "target_class_names": ["tabby", "hound"],
}  # fmt: skip


class Collector(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: dict[str, list[str]] = {}

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags:
            self.texts.setdefault(self.tags[-1][0], []).append(data)


def parsed(document):
    parser = Collector()
    parser.feed(document)
    return parser


def test_one_script_and_one_style_that_the_policy_allows_and_no_address():
    document = leaderboard_html(make_board())
    parser = parsed(document)
    names = [tag for tag, _ in parser.tags]
    assert names.count("script") == names.count("style") == 1
    assert not {"iframe", "img", "object", "base", "form"} & set(names)
    assert not [key for _, attrs in parser.tags for key in attrs if key.startswith("on") or key == "style"]
    assert [value for _, attrs in parser.tags for key, value in attrs.items() if key in ("src", "href")] == ["data:,"]
    policy = next(attrs["content"] for _, attrs in parser.tags if attrs.get("http-equiv"))
    for tag, file in (("script", "page.js"), ("style", "page.css")):
        text = files("lightning_transfer.report").joinpath(file).read_text()
        assert f"<{tag}>{text}</{tag}>" in document
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy


def test_names_and_messages_are_text():
    document = leaderboard_html(make_board())
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in document
    assert "<img src=x" not in document
    assert "toy &amp; co" in document
    row = Row('" onclick="x', {"logme": 1.0}, remarks=("<b>",), bound=BOUND)
    parser = parsed(leaderboard_html(Leaderboard([row], info={"target": "</title><b>", "x": ["</pre><b>"]})))
    assert "b" not in [tag for tag, _ in parser.tags]
    assert not [key for _, attrs in parser.tags for key in attrs if key.startswith("on")]


def test_what_a_reader_finds():
    board = make_board(versions={"torch": "9.9"}, overrides=["target=my toy", "metrics=all"])
    text = leaderboard_html(board)
    assert "Fine-tune backbone_3; LogME does not rule out backbone_2" in text
    assert "lightning-transfer screen &#x27;target=my toy&#x27; metrics=all" in text
    assert "torch 9.9" in text
    assert "LOWER is better" in text
    assert text.count("not told apart from the one above") == 2
    assert "Do the scores agree?" in text
    assert '<td class="d10">-1.00</td>' in text  # the bound falls where the scores rise


def test_equal_scores_look_equal():
    rows = [Row(name, {"logme": 5 + i * 1e-15, "leep": float(i)}) for i, name in enumerate("abc")]
    text = Leaderboard(rows, rank_by="logme")._repr_html_()
    assert re.findall(r'class="rank"[^>]*>(\d)<', text) == ["1", "1", "1"]
    assert text.count('class="best"') == 1
    assert set(re.findall(r'<rect width="(\d+)"', text)) == {"100"}


def test_controls_failures_and_the_bound():
    rows = [Row("a", {"task_relatedness": 0.6}, bound=BOUND), Row("a_random", {"task_relatedness": 0.7}, control=True)]
    text = leaderboard_html(Leaderboard([*rows, Row("c", status="ValueError: no")]))
    assert text.count('<span class="badge">control</span>') == 1
    assert "ValueError: no</span>" in text
    cells = ("Bound", "0.600"), ("re-weighted reference loss", "0.300"), ("label mismatch", "0.100")
    cells += ("distribution mismatch", "0.200"), ("loss that it bounds", "0.500"), ("guessing", "0.690")
    assert "".join(f'<td data-t="{name}">{value}</td>' for name, value in cells) in text
    assert '<td class="u9">0.90</td><td class="u2">0.20</td>' in text
    assert "&lt;b&gt;" in text


def test_large_label_maps_are_lists():
    large = {
        **BOUND,
        "label_map": [[0.02] * 50 for _ in range(50)],
        "target_class_names": [],
        "reference_class_names": [],
    }
    text = leaderboard_html(Leaderboard([Row("a", {"task_relatedness": 0.6}, bound=large)]))
    assert "50 reference classes" in text


def test_layers_are_drawn_by_depth_and_few_rows_have_no_heat_map():
    text = leaderboard_html(Leaderboard([Row("0", {"logme": 1.0}, feature_dim=3)], info={"layers_of": "net"}))
    assert "Scores by depth" in text
    assert '<option value="depth">' in text
    assert "Do the scores agree?" not in text
    assert "an empty" not in leaderboard_html(Leaderboard())


def test_a_bound_says_how_to_repeat_it():
    bound = BOUND | {"overrides": ["reference=cats", "target.root=my <pictures>"]}
    text = bound_section([("a", bound), ("b", bound)])
    command = "lightning-transfer relate reference=cats &#x27;target.root=my &lt;pictures&gt;&#x27;"
    assert f"<pre>{command}\n{command}</pre>" in text
    assert "To repeat it" not in bound_section([("a", bound)], level=3)  # a leaderboard says it for the whole
    assert "To repeat it" not in bound_section([("a", BOUND)])


def test_histories_of_runs():
    history = {"m": [{"epoch": 0, "step": 0, "logme": 0.5}, {"epoch": 0, "step": 7, "logme": 0.75}]}
    text = run_section("x", {"history": history, "objective": {"val": 1.0}, "test": {}, "overrides": ["a=b c"]})
    assert "<th>7</th>" in text
    assert "<td>0.500</td><td>0.750</td>" in text
    assert "finetune &#x27;a=b c&#x27;" in text


def test_five_hundred_rows_fit():
    assert len(leaderboard_html(make_board(tuple(METRICS), 500))) < 3 * 2**20


def test_long_names_break_at_their_parts():
    page = leaderboard_html(Leaderboard([Row("timm/net_small.a1_in1k", {"logme": 0.1}, parameters=1)]))
    assert ">timm/<wbr>net_<wbr>small.<wbr>a1_<wbr>in1k<" in page


def test_an_order_by_rounding_agrees_with_nothing():
    scores = [(1.0, 4.0), (2.0, 4.0 - 2e-15), (3.0, 4.0 + 4e-15)]
    rows = [Row(f"net{place}", {"logme": one, "h_score": other}) for place, (one, other) in enumerate(scores)]
    assert re.findall(r'<td(?: class="u\d+")?>([\d.-]+)</td>', leaderboard_html(Leaderboard(rows)))[-4:] == [
        "1.00",
        "-",
        "-",
        "-",
    ]


def test_what_copies_of_the_reference_reach_and_that_a_bound_is_vacuous():
    copied = {**BOUND, "baseline": {"bound": 0.6, "copies": [0.62, 0.66]}}
    text = bound_section([("a", copied), ("b", {**BOUND, "bound": 0.7})])
    assert ">-0.0400 ± 0.0283 ?</td>" in text
    assert ">0.700 vacuous</td>" in text
    assert text.count("vacuous</td>") == 1
    assert "copies" not in bound_section([("a", BOUND)])
    new = bound_section([("a", {**BOUND, "population_bound": 0.8}), ("b", BOUND)])
    assert '<td data-t="new samples">0.800</td>' in new
    assert "New samples: " in new
    assert "ew samples" not in text
