"""The generated parts of the documentation: one function each, named like the marker that holds it.

Everything here is read from the code that runs: the journey's table, the settings' descriptions, the programs'
own `--help`, the error codes, the metrics, and examples of each format made from fixed keys.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

PARTS: dict[str, Callable[[], str]] = {}
BIN = Path(sys.executable).parent


def part(name: str) -> str:
    """The text of one generated part. Raises KeyError for a marker that nobody writes."""
    import docs_formats  # noqa: F401
    import docs_formats_entries  # noqa: F401
    import docs_formats_kept  # noqa: F401  (all note their examples in one place)
    from docs_samples import EXAMPLES

    return (PARTS | EXAMPLES)[name]()


def _part(function: Callable[[], str]) -> Callable[[], str]:
    PARTS[function.__name__.replace("_", "-")] = function
    return function


def _fence(text: str, kind: str = "text") -> str:
    return f"```{kind}\n{text.rstrip()}\n```\n"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


# --- the journey -------------------------------------------------------------------------------------------


@_part
def journey_picture() -> str:
    """The picture of journey.py's docstring."""
    from countermark_server import journey

    assert journey.__doc__ is not None
    blocks = journey.__doc__.split("\n\n")
    start = next(i for i, block in enumerate(blocks) if block.lstrip().startswith("received"))
    return _fence(blocks[start])


@_part
def journey() -> str:
    """The picture, and who moves each state and what a person is told meanwhile."""
    from countermark_server.journey import ENDS, MOVES, SAID, STATIONS, State

    def row(state: State) -> tuple[str, ...]:
        station = STATIONS.get(state)
        onward = ", ".join(f"`{new}`" for old, new in sorted(MOVES) if old is state) or "the journey ends"
        room = f"`{station.room}/` {station.does}" if station else ""
        assert station or state in ENDS
        return f"`{state}`", room, onward, SAID[state]

    rows = [row(state) for state in State]
    return (
        journey_picture()
        + "\n"
        + _table(("state", "who moves it on, and how", "to", "what a person is told"), rows)
    )


@_part
def entry_types() -> str:
    """Every complete type with the members of its two parts."""
    from countermark.schema import SCHEMAS

    everywhere = {"origin", "namespace", "project", "prev"}

    def names(members: Iterable[str]) -> str:
        return ", ".join(f"`{name}`" for name in sorted(set(members) - everywhere)) or "nothing"

    rows = [
        (f"`{kind}`", names(schema.predicate), names(schema.registry)) for kind, schema in SCHEMAS.items()
    ]
    rows.append(("`opaque`", "none: raw bytes, only in a log for tests", "nothing"))
    return _table(("type", "predicate, besides origin, namespace, project, prev", "registry adds"), rows)


@_part
def audit_checks() -> str:
    """Every check of an audit."""
    from countermark.audit_report import CHECKS

    rows = [
        (f"`{code}`", check.text, check.kind.value, check.party, check.evidence.value)
        for code, check in CHECKS.items()
    ]
    return _table(("code", "what must be true", "kind", "at fault", "convinces"), rows)


# --- settings, commands, codes, metrics --------------------------------------------------------------------


@_part
def settings() -> str:
    """Every setting with its type, default, environment variable and description."""
    from countermark_server.settings import PREFIX, SECTIONS

    text = ""
    for section, cls in SECTIONS.items():
        assert cls.__doc__ is not None
        text += f"\n### [{section}]\n\n{cls.__doc__.splitlines()[0]}\n\n"
        rows = [
            (
                f"`{spec.name}`",
                type(spec.default).__name__,
                f"`{spec.default!r}`",
                f"`{PREFIX}{section}_{spec.name}`".upper(),
                spec.metadata["doc"],
            )
            for spec in fields(cls)
        ]
        text += _table(("setting", "type", "default", "variable", "what it is"), rows)
    return text.lstrip("\n")


@_part
def exit_codes() -> str:
    """The exit codes as errors.py tells them."""
    from countermark import errors

    assert errors.__doc__ is not None
    return _fence("\n".join(line for line in errors.__doc__.splitlines() if line.startswith("    ")))


@_part
def error_codes() -> str:
    """Every error code of the registry with its status and help text."""
    from countermark_server.errors import CODES
    from countermark_server.web.help import HELP

    rows = [(f"`{code}`", str(spec.status), spec.title, HELP[code]) for code, spec in CODES.items()]
    return _table(("code", "status", "title", "what to do"), rows)


def _help(program: str, *path: str) -> str:
    environ = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(
        [str(BIN / program), *path, "--help"], capture_output=True, text=True, check=True, env=environ
    )
    return done.stdout


def _argparse_pages() -> str:
    """Every command of the client with its arguments. argparse's own layout differs between Python versions."""
    import argparse

    from countermark.cli import _parser

    text = ""

    def walk(parser: argparse.ArgumentParser, path: tuple[str, ...], said: str) -> None:
        nonlocal text
        text += f"## {' '.join(('countermark', *path))}\n\n{said[:1].upper()}{said[1:]}.\n\n"
        rows = []
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                help_of = {choice.dest: choice.help or "" for choice in action._choices_actions}
                children = [(child, (*path, name), help_of[name]) for name, child in action.choices.items()]
                rows += [(f"`{name}`", help_of[name]) for name in action.choices]
                continue
            value = str(action.metavar or action.dest.upper()) if action.nargs != 0 else ""
            names = ", ".join(f"{name} {value}".rstrip() for name in action.option_strings) or value
            needed = "; needed" if action.option_strings and action.required else ""
            rows.append((f"`{names}`", f"{action.help or ''}{needed}"))
        text += _table(("argument", "what it is"), rows) + "\n"
        for child in children if parser._subparsers else []:
            walk(*child)

    walk(_parser(), (), _parser().description or "")
    return text


def _click_commands(module: str) -> list[tuple[str, ...]]:
    import importlib

    import click

    found: list[tuple[str, ...]] = []

    def walk(command: click.Command, path: tuple[str, ...]) -> None:
        found.append(path)
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                walk(child, (*path, name))

    walk(
        getattr(importlib.import_module(module), "commands", None) or importlib.import_module(module).main, ()
    )
    return found


def _commands(program: str, paths: list[tuple[str, ...]]) -> str:
    return "\n".join(f"## {' '.join((program, *path))}\n\n{_fence(_help(program, *path))}" for path in paths)


@_part
def commands_client() -> str:
    """Every command of the client."""
    return _argparse_pages()


@_part
def client_variables() -> str:
    """Every variable of the environment that the client reads."""
    from countermark.cli_words import VARIABLES

    return _table(("variable", "what it is"), [(f"`{name}`", what) for name, what in VARIABLES])


@_part
def commands_server() -> str:
    """Every command of the server as `--help` shows it."""
    return _commands("countermark-server", _click_commands("countermark_server.cli"))


@_part
def commands_ceremony() -> str:
    """Every command of the ceremony as `--help` shows it."""
    return _commands("countermark-ceremony", _click_commands("countermark_ceremony.cli"))


@_part
def metrics() -> str:
    """Every metric that a process exports, as the processes' own registries describe them."""
    from prometheus_client import REGISTRY

    # Importing a process's modules registers what it exports.
    import countermark_server.scan.station
    import countermark_server.telemetry
    import countermark_server.timestamper.service
    import countermark_server.tufrepo.station
    import countermark_server.upload.receive  # noqa: F401
    from countermark.witness import METRICS as OF_WITNESS

    rows = [(f"`{name}`", kind, said) for name, kind, said in OF_WITNESS]
    rows += [
        (f"`{metric.name}{'_total' if metric.type == 'counter' else ''}`", metric.type, metric.documentation)
        for metric in REGISTRY.collect()
        if metric.name.startswith("countermark_")
    ]
    return _table(("metric", "type", "what it counts"), sorted(rows))


@_part
def results() -> str:
    """The committed results of `make bench`."""
    return _figures("results.json")


@_part
def growth() -> str:
    """The committed results of bench/bench_growth.py in full."""
    return _figures("growth.json")


def _figures(name: str) -> str:
    import json

    rows = json.loads((Path(__file__).resolve().parent.parent / "bench" / name).read_text("utf-8"))

    medians = {row["name"]: row["median"] for row in rows}

    def shown(row: dict[str, Any]) -> tuple[str, ...]:
        other = medians.get(row.get("beside"))
        ratio = f"{row['median'] / other:.2f} of {row['beside']}" if other else ""
        spread = f"{row['min']} to {row['max']}"
        budget = "" if row["budget"] is None else f"{row['budget']:g}, {'met' if row['met'] else 'missed'}"
        said = [str(row[name]) for name in ("name", "unit", "median")]
        return (*said, spread, str(row["n"]), ratio, budget, str(row.get("ed25519_check_us", "")))

    loads: dict[str, list[float]] = {}
    for row in rows:
        loads.setdefault(row["machine"], []).append(row["other_load"])
    machines = [f"{name}; other load {min(found)} to {max(found)} a core" for name, found in loads.items()]
    return (
        _table(
            ("figure", "unit", "median", "range", "n", "ratio", "budget", "a check, us"),
            [shown(row) for row in rows],
        )
        + "\n"
        + ("Measured on: " + " / ".join(machines) + ".\n")
    )
