"""clientcerts.py: what is shown to a registry that is read with a certificate, and what may be wrong with it."""

from __future__ import annotations

import configparser
import os
import re
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from countermark import cli
from countermark.clientcerts import FILE, check, hint
from countermark.configuring import Urls, configured
from countermark.credentials import CERTIFICATES, load
from countermark.edits import undone
from countermark.errors import UsageError
from countermark.pins import Home
from tests.deploy.privateca import make_certificate
from tests.simulator import World

URL = "https://registry.example"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    _, chain, key = make_certificate(tmp_path)
    key.chmod(0o600)
    return chain, key


def spoilt(kind: str, chain: Path, key: Path) -> tuple[str, str]:
    """The pair with one thing wrong."""
    if kind == "world readable":
        key.chmod(0o604)
    elif kind == "passphrase":
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        shut = serialization.BestAvailableEncryption(b"secret")
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        key.write_bytes(loaded.private_bytes(pem, pkcs8, shut))
    elif kind == "no certificate":
        chain.write_text("hello")
    elif kind == "another key":
        (chain.parent / "other").mkdir()
        key.write_bytes(make_certificate(chain.parent / "other")[2].read_bytes())
    elif kind == "no key":
        key.unlink()
    elif kind == "a folder":
        return str(chain.parent), str(key)
    return str(chain), str(key)


@pytest.mark.parametrize(
    ("kind", "said", "mended"),
    [
        (
            "no key",
            "there is no file .* the key of https://registry.example",
            "countermark trust add https://reg",
        ),
        ("a folder", "cannot read .* the client certificate for", "chmod u.r "),
        ("world readable", "everybody on this machine may read it", "chmod o= "),
        ("passphrase", "has a passphrase, which nobody is asked for", "openssl pkey -in "),
        ("another key", "is not that of the certificate in", "openssl x509 -in"),
        ("no certificate", "do not hold a certificate and its key", "BEGIN CERTIFICATE"),
    ],
)
def test_what_is_wrong_is_said_before_anybody_is_asked(
    pair: tuple[Path, Path], kind: str, said: str, mended: str
) -> None:
    """The file, whose it is, and the command that mends it; nobody is asked for a passphrase."""
    check((str(pair[0]), str(pair[1])), f"{URL}/simple/")
    files = spoilt(kind, *pair)
    with pytest.raises(UsageError, match=said) as raised:
        check(files, f"{URL}/simple/")
    assert re.search(mended, str(raised.value.hint))


def test_a_refusal_names_the_command_for_it() -> None:
    """No token, no certificate; and nothing is suggested for any other answer."""
    assert "countermark login https://registry.example," in str(hint(f"{URL}/log/checkpoint", 401, b"{}"))
    assert "--client-cert" in str(hint(f"{URL}/x", 403, b'{"code":"certificate-needed"}'))
    assert hint(f"{URL}/x", 403, b'{"code":"token-scope"}') is None is hint(f"{URL}/x", 500, b"")


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's home, with a pinned registry whose port nobody listens on."""
    for name in [n for n in os.environ if n.startswith(("PIP_", "UV_", "TWINE_", "XDG_", "COUNTERMARK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "countermark"))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(tmp_path)
    Home().add(URL, World().root)
    return tmp_path


def test_trust_add_keeps_it_the_environment_wins_and_nothing_forgets_it(
    person: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Bound to scheme, host and port; shown by `trust show`; what can't be shown is not kept."""
    chain, key = map(str, pair)
    home = person / "countermark"
    assert cli.main(["trust", "add", URL, "--client-cert", chain, "--client-key", str(person / "none")]) == 2
    assert not (home / FILE).exists() and "there is no file" in capsys.readouterr().err
    assert cli.main(["trust", "add", URL, "--client-key", key]) == 2
    assert cli.main(["trust", "add", URL, "--client-cert", chain, "--client-key", key]) == 0
    assert f"client certificate {chain}, key {key}" in capsys.readouterr().out
    if sys.platform != "win32":
        assert (home / FILE).stat().st_mode & 0o077 == 0
    found = load({}, home)
    assert found.certificate(f"{URL}:443/simple/") == (chain, key)
    for other in ("http://registry.example", f"{URL}:444", "https://registry.example.evil.example"):
        assert found.certificate(other) is None
    assert load({CERTIFICATES: f"{URL}=/a.pem,/a.key"}, home).certificate(URL) == ("/a.pem", "/a.key")
    assert cli.main(["trust", "add", URL, "--client-cert", ""]) == 0
    assert load({}, home).certificate(URL) is None
    (home / FILE).write_text("[]")
    with pytest.raises(UsageError, match="does not hold"):
        load({}, home)


def test_a_proxy_lends_the_certificate_to_nobody_by_itself(
    person: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Only on this machine's own address, and only one that there is."""
    words = ["proxy", "--with-client-cert", "--allow-trial", "--listen"]
    assert cli.main([*words, "127.0.0.1:0"]) == 2
    assert "has no client certificate" in capsys.readouterr().err
    cli.main(["trust", "add", URL, "--client-cert", str(pair[0]), "--client-key", str(pair[1])])
    capsys.readouterr()
    assert cli.main([*words, "0.0.0.0:0"]) == 2
    assert "everybody who reaches that address" in capsys.readouterr().err


@pytest.mark.parametrize("tool", ["pip", "twine"])
def test_a_certificate_stands_beside_the_index_and_is_undone_exactly(tool: str) -> None:
    """An older one is turned off, not left to win."""
    urls = Urls(f"{URL}/simple/", f"{URL}/legacy/", "/etc/ssl/my own.pem")
    text = (
        "[global]\nclient_cert = /old.pem\ntimeout = 3\n"
        if tool == "pip"
        else "[distutils]\nindex-servers = a\n"
    )
    edited = configured(tool, text, Path("x"), urls)
    assert undone(edited) == text and configured(tool, edited, Path("x"), urls) == edited
    parser = configparser.RawConfigParser()
    parser.read_string(edited)
    section, key = ("global", "client-cert") if tool == "pip" else ("countermark", "client_cert")
    assert parser[section][key] == "/etc/ssl/my own.pem" and "/old.pem" not in dict(parser[section]).values()


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ("uv", "export SSL_CLIENT_CERT="),
        ("poetry", "poetry config certificates.countermark.client-cert "),
        ("pdm", "pdm config pypi.client_cert "),
    ],
)
def test_what_is_no_business_of_a_project_is_told(
    person: Path, pair: tuple[Path, Path], tool: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """uv, poetry and pdm: the command or variable, and no path of this machine in a file that others read."""
    project = person / "pyproject.toml"
    project.write_text('[project]\nname = "app"\nversion = "0"\n')
    cli.main(["trust", "add", URL, "--client-cert", str(pair[0]), "--client-key", str(pair[1])])
    assert cli.main(["configure", tool, "--allow-trial", "--write"]) == 2
    assert "from one file" in capsys.readouterr().err
    both = person / "both.pem"
    both.write_bytes(pair[0].read_bytes() + pair[1].read_bytes())
    both.chmod(0o600)
    assert cli.main(["trust", "add", URL, "--client-cert", str(both)]) == 0
    assert cli.main(["configure", tool, "--allow-trial", "--write"]) == 0
    assert f"{told}{both}" in capsys.readouterr().err and str(both) not in project.read_text()
    assert cli.main(["configure", tool, "--allow-trial", "--index", "http://127.0.0.1:1/simple/"]) == 0
    assert told not in capsys.readouterr().err
