"""A typist: reads a tutorial and types its commands, in order, as a new user does.

    typist = Typist(world, Page.read("publisher"), words=words, home="alice", cwd=folder)
    typist.type()                  # every section; or type("1", "2") for those whose headings begin so

What it reads in the Markdown, and nothing else:

* a block indented by four spaces is typed into a shell on a terminal, and its exit code must be 0, or the N of a
  comment `<!-- exit N -->` above it. The folder that it ends in is where the next block begins;
* between `<!-- typed -->` and `<!-- /typed -->`, each line must begin a line that the last block printed, in any
  order; an ellipsis stands for anything;
* `<!-- meanwhile: NAME -->` is what happens elsewhere: the test says what (another build, somebody else's terminal);
* `countermark-server up` goes on in a terminal of its own, until the page or the test stops it.

Questions are answered like a person answers them: yes, the code, the words. A page's address and words are those of
the world.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.world.world import StoryError, World

TUTORIALS = Path(__file__).resolve().parents[2] / "docs/tutorials"
ADDRESS = "127.0.0.1:8080"  # in every tutorial
WORDS = "<the twelve words>"
BLOCK_SECONDS = 180.0
STEP = re.compile(
    r"^<!-- exit (?P<exit>\d+) -->$|^<!-- meanwhile: (?P<meanwhile>[^\n]+) -->$"
    r"|^<!-- typed -->\n```text\n(?P<shown>.*?)^```\n<!-- /typed -->$"
    r"|^```.*?^```$|(?P<block>(?:^    [^\n]*\S[^\n]*\n)+)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Step:
    """One thing to do or to compare; exactly one of the three is set."""

    section: str
    command: str = ""
    expect: int = 0
    shown: tuple[str, ...] = ()
    meanwhile: str = ""


@dataclass(frozen=True)
class Page:
    """A tutorial as its typist sees it."""

    name: str
    steps: tuple[Step, ...]

    @classmethod
    def read(cls, name: str) -> Page:
        """The tutorial of this name."""
        return cls.parse(name, (TUTORIALS / f"{name}.md").read_text("utf-8"))

    @classmethod
    def parse(cls, name: str, text: str) -> Page:
        """The steps of a page, each with the heading it stands below."""
        steps: list[Step] = []
        for part in re.split(r"^(?=## )", text, flags=re.MULTILINE):
            heading = part.splitlines()[0].removeprefix("## ") if part.startswith("## ") else ""
            steps += _steps(heading, part)
        return cls(name, tuple(steps))


def _steps(heading: str, text: str) -> Iterator[Step]:
    expect = 0
    for found in STEP.finditer(text):
        if found["exit"]:
            expect = int(found["exit"])
        elif found["meanwhile"]:
            yield Step(heading, meanwhile=found["meanwhile"])
        elif found["shown"] is not None:
            yield Step(heading, shown=tuple(found["shown"].splitlines()))
        elif found["block"]:
            yield Step(
                heading, command=re.sub(r"^    ", "", found["block"], flags=re.MULTILINE), expect=expect
            )
            expect = 0


@dataclass
class Typist:
    """Somebody at a terminal, with a tutorial."""

    world: World
    page: Page
    words: str
    home: str
    cwd: Path
    meanwhile: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    login: str = "alice"
    said: str = ""
    typed: list[str] = field(default_factory=list)

    def type(self, *sections: str) -> str:
        """Type the sections whose headings begin so, or all; what the last block printed."""
        steps = [step for step in self.page.steps if not sections or step.section.startswith(sections)]
        assert steps, f"{self.page.name} has no such section"
        for step in steps:
            if step.meanwhile:
                self.meanwhile[step.meanwhile]()
            elif step.shown:
                self._compare(step)
            else:
                self._type(step)
        return self.said

    def _compare(self, step: Step) -> None:
        lines = [line.strip() for line in self.said.splitlines()]
        for shown in step.shown:
            wanted = re.escape(self._ours(shown).strip()).replace("…", ".*")
            if not any(re.match(wanted, line) for line in lines):
                where = f"{self.page.name}, {step.section!r}"
                raise StoryError(f"{where}: the page shows {shown!r} in\n{self.said}")

    def _type(self, step: Step) -> None:
        command = self._ours(step.command)
        self.typed.append(command)
        if command.startswith("countermark-server up ") and step.expect == 0:
            self._up(command)
            return
        code, self.said = self._terminal(command)
        if code != step.expect:
            said = f"{self.page.name}, {step.section!r}: exit {code}, not {step.expect}:\n{command}"
            raise StoryError(f"{said}\n{self.said}")

    def _ours(self, text: str) -> str:
        return text.replace(ADDRESS, f"127.0.0.1:{self.world.port}").replace(WORDS, self.words)

    def _up(self, command: str) -> None:
        words = shlex.split(command)
        assert (self.cwd / words[words.index("--data") + 1]).resolve() == self.world.data.resolve()
        assert words[words.index("--listen") + 1] == f"127.0.0.1:{self.world.port}"
        given = {words.index(name) + offset for name in ("--data", "--listen") for offset in (0, 1)}
        already = len(self.world.log_tail(10_000))
        self.world.up(*(word for i, word in enumerate(words) if i not in given | {0, 1}))
        deadline = time.monotonic() + 30  # it serves a moment before it says so
        self.said = ""
        while not re.search(r"ready +http\S+ +\(", self.said) and time.monotonic() < deadline:
            self.said = self.world.log_tail(10_000)[already:]
            time.sleep(0.05)

    def _terminal(self, command: str) -> tuple[int, str]:
        """Run a block in a shell on a terminal; its exit code, and what the screen shows."""
        left = self.world.root / f".{self.home}.cwd"
        leader, follower = pty.openpty()
        child = subprocess.Popen(
            ["bash", "-euc", f"{command}\npwd > {shlex.quote(str(left))}"],
            cwd=self.cwd, env=self.world.env(self.home, NO_COLOR="1", TERM="dumb", COLUMNS="200"),
            stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        )  # fmt: skip
        os.close(follower)
        try:
            said = self._screen(leader, child)
        finally:
            os.close(leader)
        code = child.wait(10)
        if left.exists():
            self.cwd = Path(left.read_text("utf-8").strip())
            left.unlink()
        return code, said

    def _screen(self, leader: int, child: subprocess.Popen[bytes]) -> str:
        answers = {
            "[y/N] ": lambda: "y",
            "one-time code: ": lambda: self.world.code(self.login),
            "twelve words: ": lambda: self.words,
        }
        shown, answered, deadline = b"", 0, time.monotonic() + BLOCK_SECONDS
        while True:
            if time.monotonic() > deadline:
                child.kill()
                raise StoryError(f"{self.page.name}: no end after {BLOCK_SECONDS:.0f} s", shown.decode())
            if not select.select([leader], [], [], 0.5)[0]:
                if child.poll() is not None:
                    break
                continue
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the last program let go of the terminal
                break
            if not piece:
                break
            shown += piece
            asked = shown[answered:].decode("utf-8", "replace")
            for question, answer in answers.items():
                if asked.endswith(question):
                    answered = len(shown)
                    os.write(leader, answer().encode() + b"\n")
        return shown.decode("utf-8", "replace").replace("\r", "")
