"""The report as a page."""

from __future__ import annotations

from html.parser import HTMLParser

from lightning_transfer.report.html import leaderboard_html
from tests.report._boards import make_board


class Collector(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_html_is_self_contained_and_escaped():
    document = leaderboard_html(make_board(), b"\x89PNG")
    parser = Collector()
    parser.feed(document)
    assert not [tag for tag, _ in parser.tags if tag in ("script", "link", "iframe")]
    sources = [value for _, attrs in parser.tags for key, value in attrs.items() if key in ("src", "href")]
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,")
    assert not [key for _, attrs in parser.tags for key in attrs if key.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in document
    assert "toy &amp; co" in document
    assert make_board()._repr_html_().startswith('<div class="headline"><p>')
