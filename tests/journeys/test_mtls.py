"""A registry that is read with client certificates, from its authority to an install: every program real.

The commands of docs/how-to/private-registries.md are typed: the authority's by its owner, the reader's by a reader.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.pinned import executable
from tests.deploy.components import DEPLOY
from tests.deploy.front import Front, nginx
from tests.deploy.privateca import make_certificate
from tests.deploy.teamfront import write_team_front
from tests.world.world import World, as_json, free_port

PAGE = (Path(__file__).parents[2] / "docs/how-to/private-registries.md").read_text("utf-8")
SECRET = "s" * 43
pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(600)]


@dataclass
class TlsWorld(World):
    """A registry whose address is nginx's."""

    front: int = 0
    nginx: Front | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.front}"

    def _answers(self) -> bool:
        return (self.data / "public/tuf/timestamp.json").exists()  # this test has no certificate yet


def typed(heading: str) -> list[str]:
    """The commands in the blocks of one section."""
    text = re.split(rf"^#+ {heading}\n", PAGE, maxsplit=1, flags=re.MULTILINE)[1]
    text = re.split(r"^#+ ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return [
        line
        for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsWorld]:
    """nginx with the shipped files, the authority typed from the page, and a publisher who has signed in."""
    root, front, web = tmp_path_factory.mktemp("mtls"), free_port(), free_port()
    authority, chain, key = make_certificate(root)
    (root / "proxy-secret").write_text(SECRET)
    (root / "proxy-secret.conf").write_text(f'set $countermark_secret "{SECRET}";\n')
    for command in typed("Client certificates"):
        if " revoke " not in command:
            subprocess.run(
                command.replace("deploy", str(DEPLOY)).split(), cwd=root, capture_output=True, check=True
            )
    settings = {
        "COUNTERMARK_TUF_MIN_INTERVAL": "0.2", "COUNTERMARK_ACCESS_MODE": "mtls",
        "COUNTERMARK_ACCESS_PROXY_SECRET_FILE": str(root / "proxy-secret"),
        "COUNTERMARK_REGISTRY_BASE_URL": f"https://localhost:{front}",
    }  # fmt: skip
    with (
        pytest.MonkeyPatch.context() as patch,
        TlsWorld(root / "world", settings=settings, port=web, front=front) as made,
    ):
        patch.setenv("SSL_CERT_FILE", str(authority))
        nginx = Front(
            root / "nginx", front, made.data / "public", f"127.0.0.1:{web}", (chain, key),
            private=(root / "clients/clients.pem", root / "proxy-secret.conf"),
        )  # fmt: skip
        with nginx.running():
            made.nginx = nginx
            made.up("--trial")
            yield made


def machine(world: TlsWorld, name: str) -> Path:
    """Somebody's environment, with the pip that comes with Python: no index is asked for it."""
    world.run(sys.executable, "-m", "venv", world.root / name)
    return world.root / name / "bin/python"


@pytest.fixture(scope="module")
def ada(world: TlsWorld) -> Path:
    """Who reads: the page's commands typed by somebody who has her certificate and the root words."""
    mine = world.root / "ada.pem"
    (world.root.parent / "clients/issued/ada.pem").rename(mine)
    words = world.words(world.data / "ceremony")
    for command in typed("Who reads"):
        line = command.replace("https://registry.example", world.url).replace("'...'", "WORDS")
        if line.startswith("countermark trust"):
            world.run(*(words if part == "WORDS" else part for part in line.split()))
            world.login("alice", words)
        else:
            world.run(*line.split(), "--allow-trial")
    return mine


@pytest.fixture(scope="module")
def wheel(world: TlsWorld, ada: Path) -> Path:
    """Signed, sent by twine with its own setting, and listed."""
    dist = world.project("behind-mtls")
    world.run("countermark", "sign", "--yes", *sorted(dist.iterdir()))
    world.run(
        "twine", "upload", "--non-interactive", "--attestations", "-r", "countermark", "-p", world.token(),
        "--cert", os.environ["SSL_CERT_FILE"], *sorted(dist.iterdir()),
    )  # fmt: skip
    made = next(dist.glob("*.whl"))
    assert "listed" in world.run("countermark", "status", "--wait", made).out
    return made


def test_our_client_reads_and_a_stranger_is_told_what_to_do(world: TlsWorld, wheel: Path) -> None:
    """verify, and run with pip and uv; without a certificate: exit 3, the reason and the command for it."""
    assert as_json(world.run("countermark", "verify", "--json", wheel))["verified"] is True
    python = machine(world, "pip-run")
    ran = world.run("countermark", "run", "--", python, "-m", "pip", "install", "behind-mtls")
    assert ran.code == 0 and "ada.pem" not in ran.said
    world.run("countermark", "run", "--", "uv", "pip", "install", "--target", world.root / "t", "behind-mtls")
    assert (world.root / "t/behind_mtls/__init__.py").exists()
    root = world.data / "ceremony/1.root.json"
    words = world.words(world.data / "ceremony")
    world.run("countermark", "trust", "add", world.url, "--root", root, "--root-words", words, home="eve")
    refused = world.run("countermark", "verify", wheel, home="eve", expect=3)
    assert "a client certificate, and none came" in refused.err and "--client-cert FILE" in refused.err


def test_pip_uv_and_poetry_with_settings_of_their_own(world: TlsWorld, wheel: Path, ada: Path) -> None:
    """Each as `configure` set or named it; without it nothing is had."""
    ca, home = os.environ["SSL_CERT_FILE"], world.root / "home"
    python = machine(world, "pip-plain")
    for config, expect in ((home / ".config/pip/pip.conf", 0), (Path(os.devnull), 1)):
        into = world.root / f"pip-{expect}"
        world.run(
            python, "-m", "pip", "download", "--no-input", "--no-deps", "-d", into, "--index-url",
            f"{world.url}/simple/", "--cert", ca, "behind-mtls", PIP_CONFIG_FILE=str(config), expect=expect,
        )  # fmt: skip
        assert len(list(into.glob("*.whl"))) == 1 - expect
    told = world.run("countermark", "configure", "uv", "--allow-trial", "--file", world.root / "uv.toml").err
    (variable,) = re.findall(r"export (SSL_CLIENT_CERT)=(\S+)", told)
    for extra, code in (({variable[0]: variable[1]}, 0), ({}, 1)):
        world.run(
            "uv", "pip", "install", "--target", world.root / f"uv-{code}", "--index-url", f"{world.url}/simple/",
            "behind-mtls", home=f"uv-{code}", expect=code, **extra,
        )  # fmt: skip
    app = world.root / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["behind-mtls"]\n'
    )
    said = world.run("countermark", "configure", "poetry", "--write", "--allow-trial", cwd=app)
    (command,) = re.findall(r"poetry config \S+ \S+", said.err)
    given = {
        "PATH": f"{executable('poetry').parent}{os.pathsep}{os.environ['PATH']}",
        "REQUESTS_CA_BUNDLE": ca,
    }
    assert world.run("poetry", "lock", "--no-interaction", cwd=app, expect=None, **given).code != 0
    world.run(*command.split(), cwd=app, **given)
    world.run("poetry", "lock", "--no-interaction", cwd=app, **given)
    assert (
        "behind-mtls" in (app / "poetry.lock").read_text()
        and str(ada) not in (app / "pyproject.toml").read_text()
    )


def test_a_proxy_for_a_team_asks_its_own_users(world: TlsWorld, wheel: Path, tmp_path: Path) -> None:
    """It starts only when it is told to lend its certificate; nginx before it lets in who has one of theirs."""
    refused = world.run("countermark", "proxy", "--listen", "127.0.0.1:0", expect=2, timeout=30)
    assert "--with-client-cert" in refused.err
    port, behind = free_port(), free_port()
    _, chain, key = make_certificate(tmp_path)
    script = str(DEPLOY / "nginx/client-ca.sh")
    for words in (("init", "theirs"), ("issue", "theirs", "bob")):
        subprocess.run([script, *words], cwd=tmp_path, capture_output=True, check=True)
    bob = tmp_path / "theirs/issued/bob.pem"
    front = tmp_path / "nginx"
    write_team_front(front, port=port, behind=f"127.0.0.1:{behind}", chain=chain, key=key)
    asking = re.sub(r"(?m)^    #(ssl_\w+ )", r"    \1", (front / "countermark.conf").read_text("utf-8"))
    asking = asking.replace("/etc/nginx/clients.", f"{tmp_path}/theirs/clients.")
    (front / "countermark.conf").write_text(asking)
    command = ["countermark", "proxy", "--with-client-cert", "--listen", f"127.0.0.1:{behind}"]
    proxy = subprocess.Popen(command, env=world.env(), stdout=subprocess.PIPE, text=True)
    try:
        assert proxy.stdout is not None and str(behind) in proxy.stdout.readline()
        path = f"https://localhost:{port}/simple/behind-mtls/"
        curl = ["curl", "-s", "--cacert", str(tmp_path / "ca.pem"), "-w", "%{http_code}"]
        with nginx(front, port):
            mine = world.run(*curl, "--cert", bob, path)
            assert mine.out.endswith("200") and wheel.name in mine.out
            for more in ([], ["--cert", world.root / "ada.pem"], ["-H", "Authorization: Basic YWRhOng="]):
                other = world.run(*curl, *more, path)
                assert other.out.endswith("400") and wheel.name not in other.out
            assert not [kept for kept in (front / "kept").rglob("*") if kept.is_file()]
    finally:
        proxy.terminate()
        proxy.wait(20)


def test_who_was_revoked_reads_no_more(world: TlsWorld, wheel: Path, ada: Path) -> None:
    """The page's last command of the authority; our client says why, with exit 3, and what to do."""
    clients = world.root.parent / "clients"
    ada.rename(clients / "issued/ada.pem")
    (command,) = (line for line in typed("Client certificates") if " revoke " in line)
    held = (clients / "issued/ada.pem").read_bytes()
    subprocess.run(
        command.replace("deploy", str(DEPLOY)).split(), cwd=world.root.parent, capture_output=True, check=True
    )
    ada.write_bytes(held)
    ada.chmod(0o600)
    assert world.nginx is not None
    world.nginx.reload()
    words = world.words(world.data / "ceremony")
    add = ("countermark", "trust", "add", world.url, "--root-words", words, "--client-cert", ada)
    refused = world.run(*add, home="later", expect=3)
    assert "certificate revoked" in refused.err and "--client-cert" in refused.err
