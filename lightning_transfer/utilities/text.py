"""Text that comes from data, made harmless for the place where it is shown.

Names of backbones, classes, columns and files may hold anything. Each function is for one kind of place; what a program
keeps and compares stays as it was.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
)
_HIDDEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20\u2212\ufe62\ufe63\ufe66\ufe6b\u207a\u207b")
_INNER_FORMULA = re.compile(
    "([;,|][\\s\"']*)(?=[=@\uff1d\uff20\ufe66\ufe6b]|[+\uff0b\uff0d\u2212\ufe62\ufe63-]\\D)"
)  # where other signs part cells


def plain(text: Any) -> str:
    r"""One line without anything that a terminal obeys: for terminals, logs and messages.

    Breaks of lines become a space; escape sequences, control characters (C0 and C1), signs that turn the direction of
    writing and those that nobody sees go; half of a surrogate pair becomes U+FFFD.

    Args:
        text: Anything; ``str`` of it is shown.

    Example:
        >>> from lightning_transfer.utilities.text import plain
        >>> plain("\x1b]0;title\x07res\x1b[31mnet\r\n18\x00")
        'resnet 18'
    """
    shown = _SEQUENCES.sub("", str(text))
    return str(whole_text(_HIDDEN.sub("", _BREAKS.sub(" ", shown))))


def whole_text(value: Any) -> Any:
    """Text that can be encoded: half of a surrogate pair becomes U+FFFD; what is no text stays as it is."""
    return _SURROGATES.sub("\ufffd", value) if isinstance(value, str) else value


def rich_markup(text: Any) -> str:
    r"""Plain text for a place where rich reads markup.

    Example:
        >>> from lightning_transfer.utilities.text import rich_markup
        >>> print(rich_markup("[link=file:///]x"))
        \[link=file:///]x
    """
    from rich.markup import escape

    return escape(plain(text))


def csv_cell(value: Any) -> Any:
    """A cell of a table that no spreadsheet takes for a formula; what is no text stays as it is.

    Example:
        >>> from lightning_transfer.utilities.text import csv_cell
        >>> csv_cell("=1+1"), csv_cell("resnet18"), csv_cell("-0.5"), csv_cell(-0.5)
        ("'=1+1", 'resnet18', '-0.5', -0.5)
    """
    if not isinstance(value, str):
        return value
    text = _INNER_FORMULA.sub(r"\1'", plain(value))
    return f"'{text}" if text.lstrip().startswith(_FORMULA) and not _is_number(text) else text


def html_text(text: Any) -> str:
    """Plain text for an HTML element or an attribute in quotes.

    Example:
        >>> from lightning_transfer.utilities.text import html_text
        >>> html_text("<b>'")
        '&lt;b&gt;&#x27;'
    """
    return html.escape(plain(text))


def figure_text(text: Any) -> str:
    r"""Plain text for matplotlib, which would read formulas between dollars.

    Example:
        >>> from lightning_transfer.utilities.text import figure_text
        >>> figure_text(r"$\frac{$")
        '\\$\\frac{\\$'
    """
    return plain(text).replace("$", r"\$")


def near_names(name: str, known: Sequence[str]) -> str:
    """How a message goes on about a name that is not known: those that hold it, or else those like it.

    Example:
        >>> from lightning_transfer.utilities.text import near_names
        >>> near_names("resnet5", ["nf_resnet50", "resnet18", "resnet50", "vgg11"]), near_names("x", ["vgg11"])
        ('; near: resnet50, nf_resnet50', '')
    """
    holding = sorted((other for other in known if name and name in other), key=lambda other: other.find(name))
    close = holding[:8] or get_close_matches(name, known, n=3)
    return f"; near: {', '.join(close)}" if close else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
