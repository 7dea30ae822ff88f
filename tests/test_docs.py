"""Every Python block of README and of the docs runs as it stands, those of one page one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    """The Python blocks, each on the lines that it has in the page, so that a traceback points there."""
    text = page.read_text()
    return ["\n" * text.count("\n", 0, found.start(1)) + found.group(1) for found in BLOCK.finditer(text)]


def test_blocks_are_found_with_their_lines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nx = 1\n```\n\n```text\nno\n```\n\n```python\nassert x == 1\n```\n")
    assert blocks(page) == ["\n" * 3 + "x = 1\n", "\n" * 11 + "assert x == 1\n"]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), names)


def test_pages_that_are_linked_exist():
    link = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
    missing = [
        f"{page.name}: {target}"
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for target in link.findall(page.read_text())
        if not (page.parent / target).exists()
    ]
    assert missing == []


def test_errors_of_the_troubleshooting_page_are_those_of_the_package():
    sources = "".join(path.read_text() for path in (ROOT / "lightning_transfer").rglob("*.py"))
    told = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(told) > 10
    assert [words for words in told if words not in sources] == []
