"""Pages of the site that stand elsewhere in the repository: the changelog and the checkpoints' cards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fills in the page's `<!-- include FILE -->` lines; headings of the file go one level down, its metadata away."""

    def text(match: re.Match[str]) -> str:
        content = (ROOT / match[1]).read_text(encoding="utf-8")
        content = re.sub(r"\A---\n.*?\n---\n", "", content, flags=re.S)
        return re.sub(r"^(#+ )", r"#\1", content, flags=re.M)

    return re.sub(r"<!-- include (\S+) -->", text, markdown)
