"""Analyzers: each rule on inert snippets and on their honest look-alikes, with the line it must name."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest

from countermark_server import scan
from countermark_server.archive.members import Limits
from countermark_server.scan.analyzers import ANALYZERS, examine, rules_in_force
from countermark_server.scan.artifact import Artifact, surface_of
from countermark_server.scan.findings import Finding, findings_blob, opinion, ruleset_sha256
from tests.archives import sdist, wheel


def found(files: dict[str, bytes], *, as_wheel: bool = False) -> list[Finding]:
    data = wheel(files=files) if as_wheel else sdist(files=files)
    name = "demo-1.0-py3-none-any.whl" if as_wheel else "demo-1.0.tar.gz"
    artifact = Artifact(io.BytesIO(data), name, Limits(len(data), 1 << 28, 1000))
    return sorted(examine(artifact))


def rules(files: dict[str, bytes], *, as_wheel: bool = False) -> list[tuple[str, int, str]]:
    return [(finding.rule, finding.line, finding.tier) for finding in found(files, as_wheel=as_wheel)]


@pytest.mark.parametrize(
    "code",
    [
        b"import base64\nexec(base64.b64decode('eA=='))",
        b"import base64 as b\nexec(b.b64decode('eA==').decode())",
        b"from base64 import b64decode as d\nexec(compile(d('eA=='), 'x', 'exec'))",
        b"import zlib\nexec(zlib.decompress(b''))",
        b"import marshal\nexec(marshal.loads(b''))",
        b"x = 1\nexec(bytes.fromhex('78'))",
        b"x = 1\nexec(__import__('base64').b64decode('eA=='))",
        b"import builtins, codecs\nbuiltins.exec(codecs.decode('k', 'rot13'))",
        b"import types, marshal; m = marshal.loads(b'')\ntypes.FunctionType(m, {})()",
        b"import base64; a = base64.b64decode('eA=='); b = a.decode()\nexec(b)",
        b"import importlib\neval(importlib.import_module('zlib').decompress(b''))",
        b"import base64\n(lambda: exec(base64.b64decode('eA==')))()",
        b"import base64\nexec(code := base64.b64decode('eA=='))",
    ],
)
def test_decoded_code_that_is_run_is_found(code: bytes) -> None:
    """However the decoder is imported or the value handed on within a function; graver where it runs by itself."""
    assert rules({"setup.py": code}) == [("decoded-code-run", 2, "block")]
    assert rules({"demo/__init__.py": code}, as_wheel=True) == [("decoded-code-run", 2, "block")]
    assert rules({"demo/core.py": code}, as_wheel=True) == [("decoded-code-run", 2, "queue")]
    assert rules({"tests/test_demo.py": code}) == [("decoded-code-run", 2, "note")]


def test_other_letters_do_not_hide_a_name() -> None:
    """Identifiers are normalised by Python, so they are here."""
    code = "import base64\nｅｘｅｃ(base64.b64decode('eA=='))".encode()  # noqa: RUF001
    assert rules({"setup.py": code}) == [("decoded-code-run", 2, "block")]


@pytest.mark.parametrize(
    "code",
    [
        b"import base64\nDATA = base64.b64decode('eA==')\n",
        b"exec('x = 1')\n",
        b"exec(open('demo/_version.py').read())\n",
        b"def exec(x): pass\nimport base64\nprint(base64.b64decode('eA=='))\n",
        b"import base64\ndef load():\n    data = base64.b64decode('eA==')\ndef run(data):\n    exec(data)\n",
        b"import re\npattern = re.compile('x')\n",
        b"class Model:\n    def eval(self): pass\nimport zlib\nModel().eval(zlib.decompress(b''))\n",
        b"# exec(base64.b64decode('eA=='))\n",
        b"'exec(base64.b64decode(1))'\n",
    ],
)
def test_honest_look_alikes_of_decoded_code_are_not_found(code: bytes) -> None:
    """Data that is decoded, text that is run, a method called eval, a comment."""
    assert rules({"setup.py": code}) == []


@pytest.mark.parametrize(
    ("code", "rule", "line"),
    [
        (b"import urllib.request\nurllib.request.urlopen('https://example.invalid')", "install-network", 2),
        (b"from urllib.request import urlretrieve as u\nu('https://example.invalid')", "install-network", 2),
        (b"import requests\nif True:\n    requests.get('https://example.invalid')", "install-network", 3),
        (b"import socket\ns = socket.socket()", "install-network", 2),
        (b"import os\nos.system('true')", "install-process", 2),
        (b"import subprocess\nsubprocess.run(['powershell', '-enc', ''])", "install-process", 2),
        (b"import subprocess\nsubprocess.Popen(command)", "install-process", 2),
        (b"import subprocess\nsubprocess.call('git x', shell=True)", "install-process", 2),
        (
            b"from setuptools.command.install import install\nimport os\nclass I(install):\n"
            b"    def run(self):\n        os.system('true')",
            "install-process",
            5,
        ),
        (
            b"import setuptools.command.build_py as b, requests\nclass B(b.build_py):\n"
            b"    def run(self): requests.post('https://example.invalid')",
            "install-network",
            3,
        ),
    ],
)
def test_what_installing_alone_would_do_is_found(code: bytes, rule: str, line: int) -> None:
    """Network and processes at module level of setup.py, and in classes that replace install commands."""
    assert rules({"setup.py": code}) == [(rule, line, "queue")]
    assert rules({"demo/net.py": code}) == []
    assert rules({"demo/setup.py": code}) == []


@pytest.mark.parametrize(
    "code",
    [
        b"import subprocess\nV = subprocess.check_output(['git', 'describe'])\n",
        b"import subprocess\nsubprocess.run(['/usr/bin/pkg-config', '--libs', 'x'])\n",
        b"import urllib.parse\nurllib.parse.quote('x')\n",
        b"import requests\ndef later():\n    requests.get('https://example.invalid')\n",
        b"import os\nclass Helper:\n    def run(self):\n        os.system('true')\n",
        b"from setuptools import setup\nsetup(name='demo', cmdclass={})\n",
    ],
)
def test_honest_builds_are_not_found(code: bytes) -> None:
    """Asking git for a version, functions for later, classes that are no install commands."""
    assert rules({"setup.py": code}) == []


def test_members_that_hide_what_they_hold_are_noted() -> None:
    """Bytecode without its source, archives inside; with the source beside it bytecode is nothing."""
    files = {
        "demo/__init__.py": b"",
        "demo/a.pyc": b"x",
        "demo/b.zip": b"x",
        "demo/__pycache__/c.cpython-311.pyc": b"",
    }
    assert [(f.rule, f.file) for f in found(files, as_wheel=True)] == [
        ("bytecode-without-source", "demo/__pycache__/c.cpython-311.pyc"),
        ("bytecode-without-source", "demo/a.pyc"),
        ("nested-archive", "demo/b.zip"),
    ]
    files = {"demo/c.py": b"", "demo/c.pyc": b"", "demo/__pycache__/c.cpython-311.pyc": b""}
    assert found(files, as_wheel=True) == []


def test_code_in_pth_files_is_noted_or_queued() -> None:
    """A short import line is what editable installs write; exec in one is not. Plain paths are nothing."""
    assert rules({"demo.pth": b"../src\n"}, as_wheel=True) == []
    assert rules({"demo.pth": b"import demo_hook\n"}, as_wheel=True) == [("pth-runs-code", 1, "note")]
    assert rules({"demo.pth": b"x\nimport os; exec('1')\n"}, as_wheel=True) == [("pth-runs-code", 2, "queue")]


def test_sources_nobody_can_read_are_queued_where_they_run() -> None:
    """setup.py and __init__.py must parse; templates elsewhere need not."""
    assert rules({"setup.py": b"def ("}) == [("source-unreadable", 0, "queue")]
    assert rules({"demo/__init__.py": b"\0"}, as_wheel=True) == [("source-unreadable", 0, "queue")]
    assert rules({"demo/template.py": b"{{ name }} = "}, as_wheel=True) == []


def test_surfaces() -> None:
    """Where code runs, by its name; case does not matter."""
    names = {
        "demo-1.0/setup.py": "setup", "demo-1.0/sub/setup.py": "code", "demo-1.0/Tests/setup.py": "test",
        "demo/__init__.py": "init", "demo/tests/__init__.py": "test", "demo/x.pth": "setup", "demo/core.py": "code",
        "demo/test_core.py": "test", "docs/conf.py": "test",
    }  # fmt: skip
    assert {name: surface_of(name, is_sdist=name.startswith("demo-1.0/")) for name in names} == names
    assert surface_of("demo/setup.py", is_sdist=False) == "code"


def test_the_gravest_finding_decides() -> None:
    """Tiers in order; failing to look is indeterminate, never clean."""
    note = Finding("a", "r", "note", "code", "f", 1, "")
    block = Finding("a", "r", "block", "setup", "f", 1, "")
    lost = Finding("sandbox", "analyzer-failed", "queue", "archive", "", 0, "")
    assert opinion([]).tier == "none" and opinion([]).classification == "no-findings"
    assert (opinion([note]).tier, opinion([note]).classification) == ("note", "indeterminate")
    assert (opinion([lost]).tier, opinion([lost]).classification) == ("queue", "indeterminate")
    assert (opinion([lost, block, note]).tier, opinion([block]).confidence) == ("block", "high")
    assert findings_blob([block, note, block]) == findings_blob([note, block])


def test_the_ruleset_digest_follows_every_analyzer() -> None:
    """Another version or another source is another ruleset."""
    force = rules_in_force()
    name, version, source = force[0]
    digests = {
        ruleset_sha256(force),
        ruleset_sha256([(name, "9.9", source), *force[1:]]),
        ruleset_sha256([(name, version, source + b"#"), *force[1:]]),
        ruleset_sha256(force[1:]),
    }
    assert len(digests) == 4 and ruleset_sha256(reversed(force)) == ruleset_sha256(force)
    assert len({analyzer.name for analyzer in ANALYZERS}) == len(ANALYZERS)


def test_no_module_of_the_scan_compiles_a_pattern() -> None:
    """Backtracking over hostile text is a denial of service: `re` is not imported here at all."""
    for path in Path(scan.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"re", "fnmatch"} & set(names), path.name
