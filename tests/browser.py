"""A real browser: Chromium without a window, spoken to over a pipe (Chrome DevTools Protocol). No driver, no port.

    with chromium(tmp_path) as page:
        page.goto("http://127.0.0.1:8080/me")
        page.fill("#code", "K7QM-2XHD-94TF-R3WN")
        page.click("main button")

Text is typed and buttons are pressed as a person's keyboard and mouse would. `problems` holds what the page did wrong
in the browser's eyes: refused by the content security policy, scripts that threw, files that are missing.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.deploy.components import ROOT, program

SECONDS = 30.0
FLAGS = (
    "--remote-debugging-pipe", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--force-color-profile=srgb", "about:blank",
)  # fmt: skip


class Page:
    """One page of the browser, and its keyboard and mouse."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest, self._last = write, read, b"", 0
        self._session: str | None = None
        self._loads = 0
        self.problems: list[str] = []

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    # --- speaking ----------------------------------------------------------------------------------------
    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask for something, and what it gave."""
        self._last += 1
        asked: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session is not None:
            asked["sessionId"] = self._session
        os.write(self._write, json.dumps(asked).encode() + b"\0")
        while (said := self._next()).get("id") != self._last:
            pass
        assert "error" not in said, (method, said["error"])
        found: dict[str, Any] = said["result"]
        return found

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser says nothing"
            more = os.read(self._read, 1 << 20)
            assert more, "the browser is gone"
            self._rest += more
        raw, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(raw)
        self._note(said)
        return said

    def _note(self, said: dict[str, Any]) -> None:
        method, params = said.get("method"), said.get("params", {})
        if method == "Page.loadEventFired":
            self._loads += 1
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"].get("exception", params)))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def _until_loaded(self, before: int) -> None:
        while self._loads == before:
            self._next()

    # --- doing -------------------------------------------------------------------------------------------
    def goto(self, url: str) -> None:
        """Open an address, and wait for its page."""
        before = self._loads
        gone = self.call("Page.navigate", url=url)
        assert "errorText" not in gone, gone
        self._until_loaded(before)

    def fill(self, selector: str, text: str) -> None:
        """Click into a field, take out what is there, and type."""
        self._press_on(selector)
        self.js(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Press a link or button that leads to another page, and wait for that."""
        before = self._loads
        self._press_on(selector)
        self._until_loaded(before)

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in a form, as the dialog would."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.call("DOM.setFileInputFiles", files=[str(file)], objectId=found["result"]["objectId"])

    def key(self, name: str) -> None:
        """Press a key."""
        code = {"Tab": 9, "Enter": 13}[name]
        text = {"text": "\r"} if name == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, windowsVirtualKeyCode=code, **text)

    def press_to_leave(self, name: str) -> None:
        """Press a key that leads to another page, and wait for that."""
        before = self._loads
        self.key(name)
        self._until_loaded(before)

    def _press_on(self, selector: str) -> None:
        found = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        assert found, f"no {selector} on {self.url}: {self.text}"
        where = {"x": found[0], "y": found[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **where)

    # --- seeing ------------------------------------------------------------------------------------------
    def js(self, expression: str) -> Any:
        """What an expression is, in the page."""
        said = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    @property
    def url(self) -> str:
        return str(self.js("location.href"))

    @property
    def text(self) -> str:
        return str(self.js("document.body.innerText"))

    def links(self) -> set[str]:
        """Where the links of the page lead, by their path."""
        return set(self.js("[...document.links].map(a => a.getAttribute('href'))"))

    def barriers(self, *, of_colour: bool = False) -> list[str]:
        """What keeps people out of this page, as axe-core finds it: WCAG 2.2 A and AA, and best practices.

        `of_colour`: by its colours alone, for a scheme in which nothing else differs.
        """
        only = "runOnly: ['color-contrast', 'link-in-text-block'], " if of_colour else ""
        if not self.js("typeof axe === 'object'"):
            self.js(axe() + "\n;0")
        found = self.js(
            f"axe.run(document, {{{only}resultTypes: ['violations']}}).then(r => r.violations.map("
            "v => v.id + ': ' + v.nodes.map(n => n.html).join(' | ')))"
        )
        return [str(each) for each in found]

    def dark(self, *, on: bool) -> None:
        """As somebody sees it who has asked for dark pages."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def wide(self, pixels: int) -> None:
        """As on a screen of so many pixels; 0: as before."""
        if pixels:
            screen = {"width": pixels, "height": 800, "deviceScaleFactor": 1, "mobile": True}
            self.call("Emulation.setDeviceMetricsOverride", **screen)
        else:
            self.call("Emulation.clearDeviceMetricsOverride")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


def axe() -> str:
    """The script of axe-core, put there first when it is missing."""
    path = ROOT / ".work" / "components" / "axe.min.js"
    if not path.exists():
        done = subprocess.run(
            [ROOT / "scripts" / "components.sh", "axe"],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return path.read_text("utf-8")


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser with nothing in it, for the length of the block."""
    ours_read, theirs_write = os.pipe()
    theirs_read, ours_write = os.pipe()
    high_read, high_write = (fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in (theirs_read, theirs_write))

    def hand_over() -> None:  # Chromium reads commands from descriptor 3 and writes to 4
        os.dup2(high_read, 3)
        os.dup2(high_write, 4)

    process = subprocess.Popen(
        [program("chromium"), f"--user-data-dir={folder / 'chromium'}", *FLAGS],
        preexec_fn=hand_over,  # noqa: PLW1509 (two calls of dup2, between fork and exec)
        pass_fds=(3, 4),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )
    for descriptor in (theirs_read, theirs_write, high_read, high_write):
        os.close(descriptor)
    page = Page(ours_write, ours_read)
    try:
        page.attach()
        yield page
    finally:
        process.terminate()
        process.wait(20)
        os.close(ours_read)
        os.close(ours_write)
