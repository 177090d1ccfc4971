"""The trial ceremony: every step of a real one, played by one program with fresh keys.

It exists so that somebody can try a registry in a minute, and it is marked for ever: the root says
`x-countermark-trial`, every client repeats it, CI refuses it. The same code makes the plan valid, asks each of
the four holders, signs with their encrypted key files and verifies the result, so a trial fails where a real
ceremony would.

    out/                   the finished ceremony (assemble.py)
    out/trial/             plan, input, requests, responses, and the holders' key files with their passphrase

What it can't give is the point of a ceremony: that no single person and no single machine holds the keys.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec

from countermark import keyfile
from countermark.statement import KeySigner
from countermark.words import format_words
from countermark_ceremony import exchange
from countermark_ceremony.assemble import Prepared, assemble
from countermark_ceremony.handover import Handover, fingerprint
from countermark_ceremony.plan import FORMAT, parse_plan
from countermark_ceremony.previous import PLAN, TRANSCRIPT
from countermark_ceremony.tables import OFFLINE_ROLES

HOLDERS = ("ada", "ben", "cleo")
AUTHORITY = "dora"
INPUT_NAME = "ceremony-input.json"
_DAYS = {"root": 365, "targets": 365, "index": 365, "trust": 180}


def play(
    input_raw: bytes,
    *,
    now: datetime,
    random: Callable[[int], bytes],
    scrypt_n: int = keyfile.SCRYPT_N,
) -> dict[str, bytes]:
    """All files of a trial ceremony for this input, `trial/` included."""
    origin = Handover.parse(input_raw).origin
    passphrase = format_words(random(16)).encode()
    names = [f"{holder}-{role}" for role in ("root", "targets", "trust") for holder in HOLDERS]
    key_files = {
        name: keyfile.encrypt(
            ec.generate_private_key(ec.SECP256R1()), passphrase, name=name, salt=random(16), n=scrypt_n
        )
        for name in [*names, f"{AUTHORITY}-authority"]
    }
    plan_raw = trial_plan(origin, input_raw, key_files, now=now)
    prepared = Prepared.create(parse_plan(plan_raw, input_raw, now=now), now=now)
    work = {PLAN: plan_raw, INPUT_NAME: input_raw, TRANSCRIPT: prepared.transcript.format()}
    responses = []
    for holder in prepared.plan.holders:
        request = exchange.Request.parse(prepared.request(holder).format())
        wanted = {print_ for document in request.documents for _, print_ in document.keys}
        signers = [
            KeySigner(_p256(keyfile.decrypt(raw, passphrase)))
            for raw in key_files.values()
            if keyfile.KeyFile.parse(raw).keyid in wanted
        ]
        response = exchange.sign(request, signers)
        responses.append(exchange.Response.parse(response.format()))
        work[f"requests/{holder}.request.json"] = request.format()
        work[f"responses/{holder}.response.json"] = response.format()
    work |= {f"keys/{name}.key.json": raw for name, raw in key_files.items()}
    work["keys/passphrase"] = passphrase + b"\n"
    finished = assemble(prepared, responses, now=now)
    return finished | {f"trial/{name}": content for name, content in work.items()}


def trial_plan(origin: str, input_raw: bytes, key_files: Mapping[str, bytes], *, now: datetime) -> bytes:
    """The plan of a trial, as a person would write it."""
    lines = [
        f'format = "{FORMAT}"',
        f'title = "trial root of {origin}"',
        'operator = "countermark-server up"',
        f'origin = "{origin}"',
        "trial = true",
        f"date = {now:%Y-%m-%dT%H:%M:%SZ}",
        "",
        "[input]",
        f'file = "{INPUT_NAME}"',
        f'sha256 = "{fingerprint(input_raw)}"',
    ]
    for name, raw in key_files.items():
        public = base64.b64encode(keyfile.KeyFile.parse(raw).public_key).decode()
        holder = name.partition("-")[0]
        lines += ["", f"[keys.{name}]", f'holder = "{holder}"', f'public_key = "{public}"']
    for role in OFFLINE_ROLES:
        keys = ", ".join(f'"{holder}-{"targets" if role == "index" else role}"' for holder in HOLDERS)
        lines += ["", f"[roles.{role}]", f"keys = [{keys}]", "threshold = 2", f"days = {_DAYS[role]}"]
    lines += ["", "[authority]", f'key = "{AUTHORITY}-authority"']
    lines += ["", "[client_policy]", 'mode = "enforce"', "min_tree_size = 0", "patterns = []", ""]
    return "\n".join(lines).encode()


def _p256(key: keyfile.PrivateKey) -> ec.EllipticCurvePrivateKey:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
