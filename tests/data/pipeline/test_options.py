"""What a loader can be told is told to the reader too."""

from __future__ import annotations

import re
from pathlib import Path

from penstock.data.pipeline.options import Options

PAGE = Path(__file__).parents[3] / "docs" / "data.md"


def test_every_option_has_a_row_in_the_page_and_no_row_is_of_none() -> None:
    part = PAGE.read_text().split("**Options of `run.data`")[1].split("\n\n**")[0]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", part, re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(rows))) == sorted(Options.__annotations__)
