"""Simple pages: what an installer reads to choose a file. One page, two forms, the same facts.

    {"files":[{"core-metadata":{"sha256":"77ab..."},"filename":"demo-1.0-py3-none-any.whl",
               "hashes":{"sha256":"5891..."},"size":1421,"url":"../../packages/demo/demo-1.0-py3-none-any.whl",
               "yanked":false}],"meta":{"api-version":"1.4"},"name":"demo","versions":["1.0"]}

    <a href="../../packages/demo/demo-1.0-py3-none-any.whl#sha256=5891..."
       data-core-metadata="sha256=77ab...">demo-1.0-py3-none-any.whl</a>

JSON (PEP 691, api-version 1.4) is the page. HTML is its frozen subset for old tools (PEP 833): PEP 503's links with
hash and `data-requires-python`, PEP 658's metadata digest, PEP 592's `data-yanked` with the reason, PEP 740's
`data-provenance`, PEP 792's status. HTML has no place for size, upload time or our own keys.

The registry writes its pages with this, and so does the proxy. Nothing in a page is believed by our own client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urlsplit

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPE = "application/vnd.pypi.simple.v1+html"
TEXT_HTML = "text/html"
META = {"api-version": "1.4"}
# Which form each media type asks for, our preference first; `text/html` is answered under its own name.
FORMS = {
    JSON_TYPE: JSON_TYPE,
    "application/vnd.pypi.simple.latest+json": JSON_TYPE,
    "application/json": JSON_TYPE,
    HTML_TYPE: HTML_TYPE,
    "application/vnd.pypi.simple.latest+html": HTML_TYPE,
    TEXT_HTML: TEXT_HTML,
}


def negotiate(accept: str | None) -> str | None:
    """The media type to answer with; JSON unless something else is liked better, None when nothing fits."""
    if not accept or not accept.strip():
        return JSON_TYPE
    liked = [_preference(part) for part in accept.split(",") if part.strip()]
    best: tuple[float, str] = (0.0, "")
    for offered, form in FORMS.items():
        quality = _quality(liked, offered)
        if quality > best[0]:
            best = (quality, form)
    return best[1] or None


def encode_page(document: Mapping[str, Any], media_type: str) -> bytes:
    """A page, of one project or of all, in the form `negotiate` chose."""
    if media_type == JSON_TYPE:
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return _html(document).encode()


def content_type(media_type: str) -> str:
    """The header that goes with it."""
    return media_type if media_type == JSON_TYPE else f"{media_type}; charset=utf-8"


def parse_links(raw: bytes) -> list[dict[str, Any]]:
    """The links of an HTML page as members of a JSON page, read as installers read them; ValueError if they can't be.

    The file an installer gets is the one in the address; a text that says another name would deceive people only.
    """
    reader = _Links()
    reader.feed(raw.decode("utf-8"))
    reader.close()
    found: list[dict[str, Any]] = []
    for attributes, text in reader.links:
        parts = urlsplit(attributes["href"])
        name = unquote(parts.path.rstrip("/").rpartition("/")[2])
        if text.strip() != name:
            raise ValueError(f"the link to {name!r} says {text.strip()!r}")
        file: dict[str, Any] = {"filename": name, "url": parts._replace(fragment="").geturl()}
        file["hashes"] = {"sha256": parts.fragment.removeprefix("sha256=")}
        metadata = attributes.get("data-core-metadata", attributes.get("data-dist-info-metadata"))
        if metadata is not None:
            file["core-metadata"] = {"sha256": metadata.removeprefix("sha256=")}
        file["yanked"] = "data-yanked" in attributes
        found.append(file)
    return found


class _Links(HTMLParser):
    """Every `a` with an address, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[dict[str, str], str]] = []
        self._open: dict[str, str] | None = None
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "base":
            raise ValueError("a `base` says that all its links lead elsewhere")
        if tag == "a":
            attributes = {name: value or "" for name, value in reversed(attrs)}  # of two, the first counts
            self._open, self._text = (attributes if "href" in attributes else None), ""

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._open is not None:
            self.links.append((self._open, self._text))
            self._open = None

    def close(self) -> None:
        super().close()
        if self._open is not None:
            raise ValueError("a link does not end")


def _html(document: Mapping[str, Any]) -> str:
    name = document.get("name")
    title = "Simple index" if name is None else f"Links for {name}"
    head = [f'<meta name="pypi:repository-version" content="{META["api-version"]}">']
    for key, value in sorted(document.get("project-status", {}).items()):
        suffix = "" if key == "status" else f"-{key}"
        head.append(f'<meta name="pypi:project-status{suffix}" content="{escape(value)}">')
    if name is None:
        links = [_link({"href": f"{item['name']}/"}, item["name"]) for item in document["projects"]]
    else:
        links = [_link(_attributes(file), file["filename"]) for file in document["files"]]
    lines = ["<!DOCTYPE html>", "<html>", "<head>", *head, f"<title>{escape(title)}</title>", "</head>"]
    return "\n".join([*lines, "<body>", f"<h1>{escape(title)}</h1>", *links, "</body>", "</html>", ""])


def _attributes(file: Mapping[str, Any]) -> dict[str, str]:
    sha256 = file.get("hashes", {}).get("sha256")
    found = {"href": file["url"] + (f"#sha256={sha256}" if sha256 else "")}
    if file.get("requires-python"):
        found["data-requires-python"] = file["requires-python"]
    if file.get("core-metadata"):
        digest = f"sha256={file['core-metadata']['sha256']}"
        # PEP 714: readers take the first name, older ones know only the second.
        found |= {"data-core-metadata": digest, "data-dist-info-metadata": digest}
    if file.get("provenance"):
        found["data-provenance"] = file["provenance"]
    yanked = file.get("yanked")
    if yanked:
        found["data-yanked"] = yanked if isinstance(yanked, str) else ""
    return found


def _link(attributes: Mapping[str, str], text: str) -> str:
    written = " ".join(f'{name}="{escape(value)}"' for name, value in attributes.items())
    return f"<a {written}>{escape(text)}</a><br>"


def _preference(part: str) -> tuple[str, float]:
    """One media range of an Accept header and how much it is liked; nonsense is not liked at all."""
    words = [word.strip() for word in part.split(";")]
    quality = 1.0
    for word in words[1:]:
        name, _, value = word.partition("=")
        if name.strip().lower() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return words[0].lower(), quality if 0 <= quality <= 1 else 0.0


def _quality(liked: Sequence[tuple[str, float]], offered: str) -> float:
    """How much a type is liked: by its own name before `type/*` before `*/*`."""
    for wanted in (offered, offered.split("/", maxsplit=1)[0] + "/*", "*/*"):
        found = [quality for name, quality in liked if name == wanted]
        if found:
            return max(found)
    return 0.0
