"""systemd units and the gunicorn configuration: systemd takes them, and what they start is really ours."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from tests.deploy.commands import BIN, settings_of, wrong_settings, wrong_with
from tests.deploy.components import DEPLOY, program
from tests.deploy.conftest import House
from tests.world.world import free_port

SYSTEMD = DEPLOY / "systemd"
UNITS = ("web", "api", "log", "scan", "tufrepo", "timestamper", "witness")
EXPOSURE_MAX = 2.5  # of 10, as `systemd-analyze security` counts; the same units without common.conf have 9


def directives(unit: str) -> dict[str, list[str]]:
    """The [Service] directives of a unit as systemd merges them: the unit, then the drop-in of its prefix."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in (SYSTEMD / f"countermark-{unit}.service", SYSTEMD / "countermark-.service.d/common.conf"):
        section = ""
        for line in file.read_text("utf-8").splitlines():
            if re.fullmatch(r"\[\w+\]", line):
                section = line
            elif line and not line.startswith("#") and section == "[Service]":
                name, equals, value = line.partition("=")
                assert equals, f"{file.name}: {line}"
                found[name].append(value)
    return found


def environment(unit: str) -> dict[str, str]:
    pairs = (value.partition("=") for value in directives(unit)["Environment"])
    return {name: value for name, _, value in pairs}


def command(unit: str) -> list[str]:
    (line,) = directives(unit)["ExecStart"]
    return shlex.split(line)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as on a machine, with programs where this environment has them."""
    folder = tmp_path_factory.mktemp("units") / "system"
    shutil.copytree(SYSTEMD, folder)
    for file in folder.glob("*.service"):
        text = file.read_text("utf-8")
        text = text.replace("/opt/countermark/bin", str(BIN)).replace("/opt/countermark/deploy", str(DEPLOY))
        file.write_text(text, encoding="utf-8")
    return folder


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("systemd-analyze"), "--no-pager", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
    )  # fmt: skip


def test_systemd_accepts_every_unit(installed: Path) -> None:
    """`systemd-analyze verify`, without a word; with the drop-ins, and the target that starts them all."""
    files = sorted(str(file) for file in installed.iterdir() if file.is_file())
    assert len(files) == len(UNITS) + 1
    done = analyze(installed, "verify", "--man=no", *files)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_directive_that_systemd_does_not_know_is_seen(installed: Path, tmp_path: Path) -> None:
    """The test of the test: a typo in the common drop-in is said for a unit that reads it."""
    folder = tmp_path / "system"
    shutil.copytree(installed, folder)
    common = folder / "countermark-.service.d/common.conf"
    common.write_text(common.read_text().replace("NoNewPrivileges=", "NoNewPriviledges="))
    done = analyze(folder, "verify", "--man=no", str(folder / "countermark-log.service"))
    assert "NoNewPriviledges" in done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_confined(installed: Path, unit: str) -> None:
    """What a process of ours could reach if it were taken over, as systemd itself counts it."""
    done = analyze(installed, "security", "--offline=yes", str(installed / f"countermark-{unit}.service"))
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure is not None, done
    assert float(exposure[1]) <= EXPOSURE_MAX, done.stdout


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_starts_a_command_of_ours_with_settings_of_ours(unit: str) -> None:
    """Program, command and options are in the `--help`; every variable is a setting with a value it takes."""
    assert wrong_with(command(unit)) == []
    assert wrong_settings(environment(unit)) == []
    started = " ".join(command(unit))
    assert ("/var/lib/countermark/registry" in started) or environment(unit)["COUNTERMARK_DATA"]


def test_a_command_that_is_not_ours_is_seen() -> None:
    """The test of the test: each part of a command line that can be wrong."""
    assert wrong_with(["/opt/countermark/bin/countermark-sever"]) != []
    assert wrong_with(["countermark-server", "work", "lgo"]) != []
    assert wrong_with(["countermark-server", "work", "log", "--dta", "x"]) != []
    assert wrong_with(["countermark", "witness", "run", "--dirs", "x"]) != []
    assert wrong_with(["python", "-m", "countermark_server.timestmper"]) != []
    assert wrong_with(["gunicorn", "--config", "x"]) != []
    assert wrong_settings({"COUNTERMARK_LOG_METRIC": "127.0.0.1:1"}) == ["COUNTERMARK_LOG_METRIC"]


def test_restarts_and_namespaces_are_as_each_process_needs() -> None:
    """A refusal to start is not repeated; only the scan may make namespaces, and no drop-in takes that back."""
    for unit in UNITS:
        found = directives(unit)
        assert found["RestartPreventExitStatus"] == ["2 5 7"] and found["Restart"] == ["on-failure"]
        assert found["RestrictNamespaces"] == ["user net ipc" if unit == "scan" else "yes"], unit


def test_units_prometheus_and_nginx_name_the_same_addresses() -> None:
    """A process is scraped, proxied to and cosigned where its unit lets it listen."""
    (job,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text("utf-8"))["scrape_configs"]
    scraped = {each["labels"]["process"]: each["targets"][0] for each in job["static_configs"]}
    listens = {
        "web": settings_of(environment("web")).web.listen,
        "log": settings_of(environment("log")).log.metrics,
        "scan": settings_of(environment("scan")).scan.metrics,
        "tufrepo": settings_of(environment("tufrepo")).tuf.metrics,
        "timestamper": settings_of(environment("timestamper")).timestamper.listen,
        "witness": command("witness")[command("witness").index("--listen") + 1],
    }
    assert listens == scraped
    assert f"server {listens['web']};" in (DEPLOY / "nginx/countermark.conf").read_text("utf-8")
    assert settings_of(environment("log")).log.witness_urls == f"witness-1=http://{listens['witness']}"
    tufrepo = settings_of(environment("tufrepo")).timestamper.listen
    assert tufrepo == listens["timestamper"]  # where tufrepo asks for the timestamp
    shown = (
        (SYSTEMD / "nginx.service.d/countermark.conf")
        .read_text("utf-8")
        .split("BindReadOnlyPaths=")[1]
        .strip()
    )
    assert shown == "/var/lib/countermark/registry/public:/srv/countermark/public"
    assert f"root {shown.partition(':')[2]};" in (DEPLOY / "nginx/countermark.conf").read_text("utf-8")


def test_gunicorn_starts_with_the_shipped_configuration(house: House, tmp_path: Path) -> None:
    """Two workers beside the running registry; what both counted is gathered, and an old count is forgotten."""
    counted = tmp_path / "metrics"
    counted.mkdir()
    (counted / "counter_99.db").write_bytes(b"of an earlier start")
    port = free_port()
    env = house.world.env(
        "operator",
        COUNTERMARK_DATA=str(house.world.data),
        COUNTERMARK_WEB_LISTEN=f"127.0.0.1:{port}",
        COUNTERMARK_WEB_WORKERS="2",
        PROMETHEUS_MULTIPROC_DIR=str(counted),
    )
    process = subprocess.Popen(
        [str(BIN / Path(command("web")[0]).name), "--config", str(DEPLOY / "gunicorn.conf.py"), command("web")[-1]],
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
                    metrics = answer.read().decode()
                break
            except urllib.error.URLError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        assert "countermark_uploads_total" in metrics or "countermark_time_to_proof" in metrics
        assert not (counted / "counter_99.db").exists()
        with urllib.request.urlopen(f"{url}/log/checkpoint", timeout=10) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_gunicorn_refuses_workers_that_would_count_each_for_itself(tmp_path: Path) -> None:
    """More than one worker and no folder to count in: nothing starts, and the sentence names both."""
    env = {k: v for k, v in os.environ.items() if k != "PROMETHEUS_MULTIPROC_DIR"}
    env |= {
        "COUNTERMARK_DATA": str(tmp_path),
        "COUNTERMARK_WEB_WORKERS": "2",
    }
    done = subprocess.run(
        [BIN / "gunicorn", "--check-config", "--config", DEPLOY / "gunicorn.conf.py", "countermark_server.wsgi:app"],
        capture_output=True, text=True, timeout=60, check=False, env=env,
    )  # fmt: skip
    assert done.returncode != 0
    assert "web.workers is 2 and PROMETHEUS_MULTIPROC_DIR names no folder" in done.stderr
    assert list(tmp_path.iterdir()) == []
