"""countermark-ceremony rehearse: arguments and printing only.

countermark-ceremony rehearse
countermark-ceremony rehearse --next plan-2.toml
"""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from countermark_ceremony import cli_keys, console, files, history, rehearsal, softhsm
from countermark_ceremony.nextplan import NextPlan, parse_next, previous_name
from countermark_ceremony.plan import utc_now
from countermark_ceremony.previous import Previous
from countermark_ceremony.tables import read_toml, utc


@click.command()
@click.option(
    "--next",
    "plan_file",
    metavar="PLAN",
    type=cli_keys.PATH,
    help="The next plan of a real registry instead.",
)
def rehearse(plan_file: Path | None) -> None:
    """Play a whole ceremony with stand-in keys on SoftHSM tokens and in files. Nothing of it is kept."""
    plan, chain = (None, []) if plan_file is None else _real(plan_file)
    group = click.get_current_context().find_root().command

    def typed(words: Sequence[str]) -> None:
        click.echo(f"\n$ countermark-ceremony {shlex.join(words)}", err=True)
        group.main(list(words), prog_name="countermark-ceremony", standalone_mode=False)

    with (
        tempfile.TemporaryDirectory(prefix="countermark-rehearsal-") as scratch,
        contextlib.ExitStack() as stack,
    ):
        room = Path(scratch)
        drawer = None
        if plan is None or rehearsal.on_tokens(plan, chain):
            drawer = stack.enter_context(softhsm.tokens(room / "softhsm"))
        (room / "table").mkdir()
        stack.enter_context(contextlib.chdir(room / "table"))
        stage = rehearsal.Stage(
            Path(), typed, console.say, now=utc_now().replace(microsecond=0), random=os.urandom, drawer=drawer
        )
        if plan is None:
            rehearsal.first(stage)
        else:
            rehearsal.following(stage, plan, chain)
        words = rehearsal.words_of(Path("root-2"))
    console.say(f"rehearsed: the words were {words!r}; keys, tokens and folder are gone")


def _real(path: Path) -> tuple[NextPlan, list[Previous]]:
    """A real plan and the verified ceremonies it follows: public data, and nothing else is read."""
    raw = files.read(path)
    chain = history.verify(files.read_folder(path.parent / previous_name(raw)))
    return parse_next(raw, chain[-1], now=utc(read_toml(raw), "date")), chain  # judged as of its own day
