"""Writes the generated parts of the documentation; `--check` fails when a page is not what it would write.

A page holds markers:

    <!-- generated: journey -->
    ...
    <!-- end -->

What stands between them is the output of the function of that name in `docs_parts.py`. The rest is prose.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import docs_parts

ROOT = Path(__file__).resolve().parent.parent
MARKER = re.compile(r"(<!-- generated: ([a-z0-9-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """README and every page below docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rendered(text: str) -> str:
    """The page with every generated part written anew."""
    return MARKER.sub(lambda m: m[1] + docs_parts.part(m[2]).rstrip() + "\n" + m[4], text)


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds an untrue page, else 0."""
    untrue = []
    for page in pages():
        text = page.read_text("utf-8")
        if (new := rendered(text)) == text:
            continue
        if "--check" in arguments:
            untrue.append(page.relative_to(ROOT))
        else:
            page.write_text(new, "utf-8")
            print(f"wrote {page.relative_to(ROOT)}")
    for page in untrue:
        print(f"{page} is not what `make docs` writes", file=sys.stderr)
    return 1 if untrue else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
