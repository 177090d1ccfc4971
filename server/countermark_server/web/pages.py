"""The pages themselves: a few templates, one strict policy.

    Content-Security-Policy: default-src 'none'; style-src 'self'; base-uri 'none'; ...

No script, no frame, nothing from elsewhere, and no form but on the pages of signing in. Every value passes the
template engine's escaping.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, render_template
from markupsafe import Markup

from countermark_server.errors import CODES, ServerError
from countermark_server.web.help import EXIT_CODES, HELP

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# Of pages with a form: it posts to ourselves.
FORM_POLICY = CONTENT_SECURITY_POLICY.replace("form-action 'none'", "form-action 'self'")


def secure(response: Response) -> Response:
    """Headers that every answer carries, page or not."""
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    return response


def marked(text: str) -> Markup:
    """A help text as a page shows it: what stands between backquotes is code, and everything is escaped."""
    words = text.split("`")
    return Markup("").join(  # escapes each word that is no Markup yet
        Markup("<code>{}</code>").format(word) if number % 2 else word for number, word in enumerate(words)
    )


def refused(error: ServerError) -> str:
    """A refusal as a page, for people who look with a browser."""
    return render_template(
        "refused.html", title=CODES[error.code].title, detail=error.detail, code=error.code
    )


def blueprint(*, origin: str, base_url: str, trial: Callable[[], bool | None]) -> Blueprint:
    """Front page and help pages."""
    pages = Blueprint("web", __name__, template_folder="templates", static_folder="static")

    @pages.app_context_processor
    def _everywhere() -> dict[str, object]:
        return {"origin": origin, "base_url": base_url, "exit_codes": EXIT_CODES}

    pages.add_app_template_filter(marked, "marked")

    @pages.get("/")
    def front() -> str:
        return render_template("front.html", trial=trial())

    @pages.get("/h/")
    def help_list() -> str:
        codes = [(code, CODES[code].title, text) for code, text in HELP.items()]
        return render_template("help_list.html", codes=codes)

    @pages.get("/h/<code>")
    def help_page(code: str) -> str:
        if code in HELP:
            return render_template("help.html", code=code, title=CODES[code].title, text=HELP[code])
        for number, (title, text) in EXIT_CODES.items():
            if code in (f"exit-{number}", str(number)):
                return render_template("help.html", code=f"exit code {number}", title=title, text=text)
        raise ServerError("not-found", f"there is no help page for {code!r}")

    return pages
