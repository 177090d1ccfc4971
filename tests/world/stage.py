"""What the demo puts on the screen: acts with their times, commands as a person types them, and results.

    2  A publisher                                                              3.1 s
       $ countermark publish dist/*
       ok    hello_countermark-1.0.0-py3-none-any.whl is entry 9, proved in 31 ms

Colour on a terminal, plain text otherwise (and when NO_COLOR is set).
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tests.world.world import Done, StoryError, World, command_line

WIDTH = 100
QUICK = {"COUNTERMARK_TUF_MIN_INTERVAL": "0.2", "COUNTERMARK_TIMESTAMPER_RETRY_INTERVAL": "0.1"}


@dataclass(frozen=True)
class Act:
    """One act of the story."""

    title: str
    play: Callable[[Stage], None]
    proved: str
    by: str


@dataclass
class Stage:
    """The screen, the world on it, and what earlier acts left for later ones."""

    root: Path
    out: TextIO = sys.stdout
    props: dict[str, object] = field(default_factory=dict)
    times: list[tuple[Act, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.world = World(self.root, settings=QUICK)
        self._colour = self.out.isatty() and "NO_COLOR" not in os.environ
        self._started = time.perf_counter()
        self.line(
            "Countermark: a package travels, and every attack on its way is refused. Nothing here is simulated.",
            "1",
        )

    # --- words on the screen -------------------------------------------------------------------------------

    def line(self, text: str = "", style: str = "") -> None:
        """One line, in an ANSI style when colours are on."""
        coloured = f"\033[{style}m{text}\033[0m" if self._colour and style else text
        print(coloured, file=self.out, flush=True)

    def command(self, done: Done, *, shown: str | None = None) -> None:
        """A command as a person would type it."""
        self.line(f"   $ {shown or command_line(done.command)}"[: WIDTH + 40], "2")

    def ok(self, text: str) -> None:
        """Something went as it should."""
        self.line(f"   ok    {text}", "32")

    def fooled(self, text: str) -> None:
        """An attack that succeeded, as told, against a tool that verifies nothing."""
        self.line(f"   HIT   {text}", "33")

    def refused(self, text: str) -> None:
        """An attack that was refused, as told."""
        self.line(f"   STOP  {text}", "31;1")

    def say(self, text: str) -> None:
        """A sentence of the story."""
        self.line(f"   {text}")

    def quote(self, said: str) -> None:
        """What a program said, wrapped; paths in this world are shown without the way to it."""
        for line in said.replace(f"{self.root}{os.sep}", "").strip().splitlines():
            for part in textwrap.wrap(line.removeprefix("countermark: "), WIDTH - 9, subsequent_indent="  "):
                self.line(f"         {part}")

    # --- the story -----------------------------------------------------------------------------------------

    def play(self, act: Act) -> None:
        """Play one act and print its time behind its title."""
        number = len(self.times) + 1
        self.line()
        self.line(f"{number}  {act.title}", "1")
        started = time.perf_counter()
        act.play(self)
        seconds = time.perf_counter() - started
        self.times.append((act, seconds))
        self.line(f"   {'':<{WIDTH - 16}}{seconds:6.1f} s", "2")

    def curtain(self) -> None:
        """The last lines: what was proved, by whom, how fast; and what to type for a repository of one's own."""
        total = time.perf_counter() - self._started
        self.line()
        self.line(f"   {'what was proved':<58}{'by whom':<30}{'how fast':>8}", "1")
        for number, (act, seconds) in enumerate(self.times, 1):
            self.line(f"{number}  {act.proved:<58}{act.by:<30}{seconds:6.1f} s")
        self.line(f"All {len(self.times)} acts went as told in {total:.1f} s.", "1;32")
        self.line()
        self.line("For a registry and a project of your own:", "1")
        self.line("   $ make serve      (it prints twelve words; then, in a second terminal:)")
        self.line("   $ . .venv/bin/activate")
        self.line("   $ countermark-server login-code --data .work/registry --login alice")
        self.line("   $ countermark login http://127.0.0.1:8080 --root-words '<the twelve words>'")
        self.line("   $ countermark publish dist/*")

    def went_wrong(self, error: StoryError) -> None:
        """The story stops here; what the program said is the evidence."""
        self.line(f"   WRONG {error}", "31;1")
        for line in error.output.splitlines()[-30:]:
            self.line(f"         {line}")

    def keep(self) -> None:
        """Leave the service running until the person stops it."""
        self.line()
        self.line(f"   simple index  {self.world.url}/simple/")
        self.line(f"   log           {self.world.url}/log/checkpoint")
        self.line(f"   TUF           {self.world.url}/tuf/timestamp.json")
        self.line(f"   data          {self.world.data}")
        self.line("   Ctrl-C stops it", "1")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            self.line()

    def close(self) -> None:
        """Stop what is running."""
        self.world.down()
