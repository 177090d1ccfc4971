"""The first root for a fleet: the same root as a file, as words, and in a wheel. `countermark-server trust-package`.

    trust/
      countermark_trust_registry_example-1-py3-none-any.whl
      root.json                    the newest root of the registry, byte for byte
      root-words.txt               its twelve words
      registry-url.txt             where this root's registry is

A wheel because fleets distribute wheels already: it is pure, needs nothing, holds `root.json` and prints where
that file was installed, so that one line pins the registry on every machine:

    countermark trust add URL --root "$(python -m countermark_trust_registry_example)" --root-words "..."

Nothing is pinned by installing it alone: what site-packages holds, any other package could have put there. Who
installs it does so by path or by hash, never by name from an index, because the name may be anybody's there.
The bytes depend on root, origin and URL only: two operators who make it get the same wheel, and can compare.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuf.api.metadata import Metadata, Root

from countermark.errors import UsageError
from countermark.words import root_words
from countermark_server.adopted import newest_root
from countermark_server.operate.adoption import check_real
from countermark_server.stores.immutable import sync_folder, write_files
from countermark_server.stores.public import Public

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time a zip file can say


@dataclass(frozen=True)
class TrustPackage:
    """What is handed to a fleet: the files by name, and which of them is the wheel."""

    wheel: str
    module: str
    words: str
    files: Mapping[str, bytes]


def trust_package(public: Public, origin: str, url: str) -> TrustPackage:
    """The files for a fleet. UsageError: there is no root yet, or no URL to pin."""
    root_raw = newest_root(public)
    if root_raw is None:
        raise UsageError(
            "this registry has no root yet", hint="hold a ceremony, then `countermark-server adopt`"
        )
    if not url:
        raise UsageError(
            "clients pin a URL, and this registry's settings name none",
            hint="give it with --url, or set registry.base_url",
        )
    root = Metadata[Root].from_bytes(root_raw)
    check_real(root)
    words = root_words(root.signed_bytes)
    module = "countermark_trust_" + re.sub(r"[^a-z0-9]+", "_", origin.lower()).strip("_")
    wheel = f"{module}-{root.signed.version}-py3-none-any.whl"
    content = {
        f"{module}/__init__.py": _init(origin, url, words),
        f"{module}/__main__.py": _MAIN,
        f"{module}/root.json": root_raw,
    }
    files = {
        wheel: _wheel(module, root.signed.version, content),
        "root.json": root_raw,
        "root-words.txt": f"{words}\n".encode(),
        "registry-url.txt": f"{url}\n".encode(),
    }
    return TrustPackage(wheel, module, words, files)


def write_package(out: Path, package: TrustPackage) -> None:
    """Write the files into a new folder, which gets its name when it is whole: a fleet never gets half of it."""
    beside = out.with_name(f"{out.name}.incomplete")
    if out.exists() or beside.exists():
        raise UsageError(f'"{out}" is there already, whole or incomplete', hint="choose a new folder")
    beside.mkdir(parents=True)
    write_files(beside, package.files)
    # Whole and durable. If we stop here, an `.incomplete` folder says so; nothing has the final name.
    beside.rename(out)
    sync_folder(out.parent)


_MAIN = b'''"""Print where this package's root lies, for `countermark trust add URL --root FILE`."""

from pathlib import Path

print(Path(__file__).with_name("root.json"))
'''


def _init(origin: str, url: str, words: str) -> bytes:
    return (
        f'"""The root of a Countermark registry, for `countermark trust add`. It pins nothing by itself."""\n\n'
        f"ORIGIN = {json.dumps(origin)}\nURL = {json.dumps(url)}\nROOT_WORDS = {json.dumps(words)}\n"
    ).encode()


def _wheel(module: str, version: int, content: Mapping[str, bytes]) -> bytes:
    """A wheel of these files (PyPA's binary distribution format 1.0), the same bytes each time."""
    info = f"{module}-{version}.dist-info"
    metadata = (
        f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: {version}\n"
        "Summary: The root of a Countermark registry\nRequires-Python: >=3.8\n"
    )
    tags = "Wheel-Version: 1.0\nGenerator: countermark-server\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = dict(content) | {f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": tags.encode()}
    record = "".join(f"{name},sha256={_digest(raw)},{len(raw)}\n" for name, raw in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, raw in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, raw)
    return made.getvalue()


def _digest(raw: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()
