"""Container file and compose file: linted, and every command in them is one of ours. They are not built here."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.deploy.commands import BIN, settings_of, wrong_settings, wrong_with
from tests.deploy.components import DEPLOY, ROOT

CONTAINERFILE = DEPLOY / "container/Containerfile"
COMPOSE = (DEPLOY / "container/compose.yaml").read_text("utf-8")
PROCESSES = ("web", "log", "scan", "tufrepo", "timestamper", "witness")


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
    return found


def check(text: str) -> None:
    """ValueError unless this is a compose file: no unknown key, no name that nobody defines."""
    document = yaml.safe_load(text)
    PyCompose.from_json(json.dumps(document)).validate()
    for name, service in document["services"].items():
        if unknown := set(service.get("depends_on", [])) - document["services"].keys():
            raise ValueError(f"{name} depends on {unknown}")


def lint(text: str) -> str:
    """What hadolint says."""
    done = subprocess.run(
        [BIN / "hadolint", "-"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_the_container_file_passes_its_linter() -> None:
    """hadolint has no word to say, and says some about a file that asks for them."""
    text = CONTAINERFILE.read_text("utf-8")
    assert lint(text) == ""
    assert "DL3006" in lint(text.replace("FROM python:3.12-slim\n", "FROM python\n"))
    assert "DL3002" in lint(text.replace("USER 10001:10001", "USER root"))


def test_the_image_installs_by_hash_and_runs_as_nobody_special() -> None:
    """Every install is of locked hashes or of the wheels built here; the last user is not root."""
    text = CONTAINERFILE.read_text("utf-8")
    installs = re.findall(r"pip install [^\n]*", text)
    assert len(installs) == 3
    for line in installs:
        assert "--require-hashes" in line or "--no-deps --no-index" in line, line
    for name in re.findall(r"-r (requirements/\S+)", text):
        assert "--hash=sha256:" in (ROOT / name).read_text("utf-8"), name
    assert re.findall(r"^USER (.*)$", text, re.M) == ["10001:10001"]
    for source in re.findall(r"^COPY ([^-\s]\S*)", text, re.M):
        assert (ROOT / source).exists(), source
    locked = (ROOT / "requirements/server.txt").read_text("utf-8")
    for name in ("flask", "gunicorn", "sqlalchemy", "tuf", "psycopg-binary"):
        assert re.search(rf"^{name}==", locked, re.M), name
    assert not re.search(r"^(twine|pytest|uv)==", locked, re.M)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    command: [countermark-server, work, log", "    comand: [countermark-server, work, log"),
        ("read_only: true", "read_only: perhaps"),
        ("volumes:\n  data:", "volumes:\n  dta:"),
        ("networks: [inside]", "networks: [insid]"),
        ("depends_on: [log]", "depends_on: [lgo]"),
    ],
)
def test_a_wrong_compose_file_is_seen(old: str, new: str) -> None:
    """The test of the test; the shipped one is accepted."""
    check(COMPOSE)
    assert old in COMPOSE
    with pytest.raises(ValueError, match=r"\w"):
        check(COMPOSE.replace(old, new))


@pytest.mark.parametrize("name", PROCESSES)
def test_a_service_is_a_process_of_ours(name: str) -> None:
    """Its command and variables are real, its file system read-only, its rights none, its network inside."""
    service = services()[name]
    assert wrong_with(service["command"]) == []
    variables = {key: str(value) for key, value in service.get("environment", {}).items()}
    assert wrong_settings(variables) == []
    settings_of(variables)
    assert service["user"] == "10001:10001" and service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert service["networks"] == ["inside"] and "ports" not in service


def test_services_find_each_other() -> None:
    """Each address that one process asks names a service and the port it listens on."""
    found = services()
    listens = {
        "witness": found["witness"]["command"][-1],
        "web": found["web"]["environment"]["COUNTERMARK_WEB_LISTEN"],
        "timestamper": found["timestamper"]["environment"]["COUNTERMARK_TIMESTAMPER_LISTEN"],
    }
    asked = [
        found["log"]["environment"]["COUNTERMARK_LOG_WITNESS_URLS"].partition("=")[2],
        found["timestamper"]["environment"]["COUNTERMARK_TIMESTAMPER_REGISTRY_URL"],
        found["tufrepo"]["environment"]["COUNTERMARK_TIMESTAMPER_LISTEN"],
    ]
    for url in asked:
        host, _, port = url.removeprefix("http://").partition(":")
        assert listens[host] == f"0.0.0.0:{port}", url
    assert set(found) == {*PROCESSES, "nginx"}
    mounts = {mount["target"]: mount for mount in found["nginx"]["volumes"]}
    assert mounts["/srv/countermark/public"]["read_only"] is True
    for mount in found["nginx"]["volumes"]:
        if mount["type"] == "bind" and mount["source"].startswith(".."):
            assert (DEPLOY / "container" / mount["source"]).resolve().is_file(), mount
