"""countermark-ceremony: arguments and printing only.

    countermark-ceremony keys new --name "ada root" --out ada-root.key.json
    countermark-ceremony prepare plan.toml --out ceremony/
    countermark-ceremony show ceremony/requests/ada.request.json
    countermark-ceremony sign ada.request.json --key ada-root.key.json --key ada-targets.key.json \
        --out ada.response.json
    countermark-ceremony assemble ceremony/ ada.response.json ben.response.json --out root-1/
    countermark-ceremony verify root-1/
    countermark-ceremony simulate-client root-1/
    countermark-ceremony rotate root-1/ --lost ben-root --add ben-root-2=ben-root-2.key.json --out plan-2.toml
    countermark-ceremony status ceremony/ ada.response.json
    countermark-ceremony status root-1/ --ics
    countermark-ceremony rehearse --next plan-2.toml
    countermark-ceremony trial ceremony-input.json --out root-1/
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from countermark.errors import CountermarkError, UsageError
from countermark.words import root_words
from countermark_ceremony import (
    __version__,
    assemble,
    cli_keys,
    cli_rehearse,
    cli_rotate,
    console,
    exchange,
    files,
    frames,
    history,
    holding,
    previous,
    simulate,
    status,
    trial,
)
from countermark_ceremony.nextplan import NextPlan, is_next, parse_next, previous_name
from countermark_ceremony.plan import Plan, input_name, parse_plan, utc_now
from countermark_ceremony.tables import warnings

_PATH = cli_keys.PATH


@click.group(cls=console.Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="countermark-ceremony")
def commands() -> None:
    """Make a registry's offline root. Never opens a socket, never overwrites a file."""


commands.add_command(cli_keys.keys)
commands.add_command(cli_rotate.rotate)
commands.add_command(cli_rehearse.rehearse)


@commands.command()
@click.argument("plan_file", metavar="PLAN", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The folder to make, with a request for each holder.")
def prepare(plan_file: Path, out: Path) -> None:
    """Check a plan whole, freeze what will be signed, and write one request per holder."""
    files.check_absent(out)
    plan, content = _read_plan(plan_file)
    prepared = assemble.Prepared.create(plan, now=utc_now())
    content[previous.TRANSCRIPT] = prepared.transcript.format()
    for holder in prepared.plan.holders:
        content[f"requests/{holder}.request.json"] = prepared.request(holder).format()
    files.write_folder(out, content)
    for warning in warnings(prepared.plan.roles):
        console.say(f"warning: {warning}")
    for holder in prepared.plan.holders:
        console.say(f"request for {holder}: {out / 'requests' / f'{holder}.request.json'}")


@commands.command()
@click.argument("request_file", metavar="REQUEST", type=_PATH)
def show(request_file: Path) -> None:
    """Show what a request asks to be signed, read from the payloads themselves."""
    console.show_lines(console.show_request(exchange.Request.parse(files.read(request_file))))


@commands.command()
@click.argument("request_file", metavar="REQUEST", type=_PATH)
@click.option("--key", "key_files", type=_PATH, multiple=True, help="A key file; repeatable.")
@click.option(
    "--token",
    "uris",
    metavar="URI",
    multiple=True,
    help="A key on a token; repeatable. Not needed where the plan says the key's uri.",
)
@click.option("--out", type=_PATH, required=True, help="The response file to write.")
@click.option("--yes", is_flag=True, help="Do not ask: the words were compared already.")
@cli_keys.PASSPHRASE
@cli_keys.PIN
def sign(
    *,
    request_file: Path,
    key_files: tuple[Path, ...],
    uris: tuple[str, ...],
    out: Path,
    yes: bool,
    passphrase_file: Path | None,
    pin_file: Path | None,
) -> None:
    """Show a request, ask, sign it with the holder's keys, check the signatures."""
    files.check_absent(out)
    request = exchange.Request.parse(files.read(request_file))
    held = [(passphrase_file, holding.in_file(files.read(path))) for path in key_files]
    held += [(pin_file, holding.on_token(uri)) for uri in uris]
    given = {key.fingerprint for _, key in held}
    placed = [uri for print_, uri in request.places.items() if print_ not in given]
    held += [(pin_file, holding.on_token(uri)) for uri in placed]  # where the plan says they are
    exchange.check_keys(request, [key.fingerprint for _, key in held])
    for line in console.show_request(request):
        click.echo(line, err=True)
    if not yes and not click.confirm("Are these the words the others see? Sign", default=False, err=True):
        raise UsageError("nothing was signed")
    signers = [key.open(cli_keys.secret(path, key.asks)) for path, key in held]
    files.write_new(out, exchange.sign(request, signers).format())
    console.say(f"wrote {out}: {len(request.documents)} documents signed by {request.holder}")


@commands.command()
@click.argument("response_file", metavar="RESPONSE", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The folder to make: each frame as text, SVG and PNG.")
def qr(response_file: Path, out: Path) -> None:
    """Draw a response as QR frames; `assemble` takes what was scanned in its place."""
    files.check_absent(out)
    raw = files.read(response_file)
    exchange.Response.parse(raw)
    files.write_folder(out, frames.pictures(raw))
    for frame in frames.split(raw):
        click.echo(f"{' '.join(frame.split(' ')[:2])}\n{frames.terminal(frame)}", err=True)


@commands.command(name="assemble")
@click.argument("folder", metavar="DIR", type=_PATH)
@click.argument("response_files", metavar="RESPONSE...", type=_PATH, nargs=-1, required=True)
@click.option("--out", type=_PATH, required=True, help="The folder to make, ready to be served.")
def assemble_command(folder: Path, response_files: tuple[Path, ...], out: Path) -> None:
    """Check every response, put the metadata together, verify it as a reader would."""
    files.check_absent(out)
    plan, _ = _read_plan(folder / previous.PLAN)
    prepared = assemble.Prepared.load(plan, files.read(folder / previous.TRANSCRIPT))
    responses = _responses(response_files)
    finished = assemble.assemble(prepared, responses, now=utc_now())
    if isinstance(plan, NextPlan):
        before = files.read_folder(folder / previous_name(files.read(folder / previous.PLAN)))
        finished = previous.join([*previous.split(before), finished])
    for line in simulate.walk(history.verify(finished)):
        console.say(line)
    files.write_folder(out, finished)
    _report(out)


@commands.command()
@click.argument("folder", metavar="OUT", type=_PATH)
def verify(folder: Path) -> None:
    """Verify a finished ceremony, and all before it, from its files alone; print its root words."""
    _report(folder)


@commands.command(name="simulate-client")
@click.argument("folder", metavar="OUT", type=_PATH)
def simulate_client(folder: Path) -> None:
    """Let clients of every age walk the chain of roots. `assemble` refuses where one is left behind."""
    console.show_lines(simulate.walk(history.verify(files.read_folder(folder))))


@commands.command(name="status")
@click.argument("folder", metavar="DIR", type=_PATH)
@click.argument("response_files", metavar="[RESPONSE]...", type=_PATH, nargs=-1)
@click.option("--json", "spelling", flag_value="json", help="One JSON document.")
@click.option("--prometheus", "spelling", flag_value="prometheus", help="Prometheus text.")
@click.option("--ics", "spelling", flag_value="ics", help="A calendar with the days of the next ceremonies.")
def status_command(folder: Path, response_files: tuple[Path, ...], spelling: str | None) -> None:
    """Of a finished ceremony: what expires when. Of a prepared one: who has signed, and who is missing."""
    if not (folder / previous.SIGNATURES).exists() and (folder / previous.PLAN).exists():
        plan, _ = _read_plan(folder / previous.PLAN)
        prepared = assemble.Prepared.load(plan, files.read(folder / previous.TRANSCRIPT))
        responses = _responses(response_files)
        console.show_lines(assemble.who_signed(prepared, responses))
        return
    newest, now = history.verify(files.read_folder(folder))[-1], utc_now()
    if spelling == "json":
        print(status.as_json(newest, now))
    elif spelling == "prometheus":
        print(status.prometheus(newest))
    elif spelling == "ics":
        print(status.calendar(newest, now))
    else:
        console.show_lines(status.lines(newest, now))


@commands.command(name="trial")
@click.argument("input_file", metavar="CEREMONY_INPUT", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The folder to make; its keys are in OUT/trial/keys.")
def trial_command(input_file: Path, out: Path) -> None:
    """Play a whole trial ceremony with fresh keys. Its root is marked, and CI refuses it."""
    files.check_absent(out)
    files.write_folder(out, trial.play(files.read(input_file), now=utc_now(), random=os.urandom))
    _report(out)


def _read_plan(path: Path) -> tuple[Plan | NextPlan, dict[str, bytes]]:
    """A plan with the input or the ceremony it names, and the files it was made from."""
    plan_raw, now = files.read(path), utc_now()
    content = {previous.PLAN: plan_raw}
    if is_next(plan_raw):
        name = previous_name(plan_raw)
        before = files.read_folder(path.parent / name)
        content |= {f"{name}/{each}": raw for each, raw in before.items()}
        return parse_next(plan_raw, history.verify(before)[-1], now=now), content
    name = input_name(plan_raw)
    content[name] = files.read(path.parent / name)
    return parse_plan(plan_raw, content[name], now=now), content


def _report(folder: Path) -> None:
    """Verify what is on disk, and say what it is."""
    chain = history.verify(files.read_folder(folder))
    newest = chain[-1]
    history.check_unexpired(newest, utc_now())
    trial_mark = " (trial)" if newest.trial else ""
    console.say(f"verified: root {newest.root.version} of {newest.trust_file.origin}{trial_mark}")
    first = assemble.verify_first(chain[0].files, now=chain[0].held_at)
    if first.predecessor is not None:
        console.say(f"  goes on from {first.predecessor}")
    if len(chain) > 1:
        console.say(f"  {len(chain)} ceremonies, each transcript names the one before it")
    for role, metadata in newest.metadata.items():
        console.say(f"  {newest.names[role]} expires {metadata.signed.expires:%Y-%m-%dT%H:%M:%SZ}")
    print(root_words(newest.metadata["root"].signed_bytes))


def _responses(paths: tuple[Path, ...]) -> list[exchange.Response]:
    """Responses from their files, or from frames that were scanned: one a line, in any order."""
    raws = [files.read(path) for path in paths]
    plain = [raw for raw in raws if not frames.is_frames(raw)]
    return [exchange.Response.parse(raw) for raw in plain + frames.join(set(raws) - set(plain))]


def main() -> None:
    """Run a command; every error becomes a sentence and an exit code, never a traceback."""
    try:
        status = commands.main(prog_name="countermark-ceremony", standalone_mode=False)
    except click.exceptions.Abort:
        console.fail("stopped", None)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except CountermarkError as error:
        console.fail(str(error), error.hint)
        sys.exit(error.exit_code)
    except OSError as error:
        console.fail(str(error), None)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
