"""Alarms and dashboard: what they name is exported, they fire when they must, and stay silent otherwise."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.components import DEPLOY, program
from tests.deploy.conftest import House

RULES = DEPLOY / "prometheus/countermark.rules.yml"
DASHBOARD = DEPLOY / "dashboards/countermark.json"
PROCESSES = ("web", "log", "scan", "tufrepo", "timestamper", "witness")
SIZE = "countermark_log_size"
# For each alarm: series that make it fire within 20 minutes, and series that must not. `a+bxn` is promtool's
# notation: start at a, add b for each of n minutes.
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "CountermarkProcessDown": (
        {'up{job="countermark",process="log"}': "1x5 0x20"},
        {'up{job="countermark",process="log"}': "1x18 0 1 1", 'up{job="other"}': "0x30"},
    ),
    "CountermarkStatusEntryUnapplied": (
        {"countermark_tuf_unapplied_seconds": "0+60x20"},
        {"countermark_tuf_unapplied_seconds": "0x10 120x15"},
    ),
    "CountermarkQuorumMissing": (
        {"countermark_quorum_missing_seconds": "0+60x20"},
        {"countermark_quorum_missing_seconds": "0+30x20"},
    ),
    "CountermarkClockLeapt": (
        {"countermark_clock_leapt_seconds": "0+60x20"},
        {"countermark_clock_leapt_seconds": "120x20"},
    ),
    "CountermarkTimestampOld": (
        {"countermark_timestamp_signed_seconds": "-6300x30"},
        {"countermark_timestamp_signed_seconds": "-5900x30"},
    ),
    "CountermarkTimestamperRefuses": (
        {"countermark_timestamper_alarm": "1x30"},
        {"countermark_timestamper_alarm": "1 1 1 0 1 1 1 0 1 1 1 0 1 1 1 0 1 1 1 0 1"},
    ),
    "CountermarkHoldWithoutEntry": (
        {"countermark_scan_hold_missing_seconds": "0+60x20"},
        {"countermark_scan_hold_missing_seconds": "0+40x20"},
    ),
    "CountermarkRuleBroken": (
        {"countermark_timestamper_findings": "0x10 1x20"},
        {"countermark_timestamper_findings": "0x30"},
    ),
    "CountermarkWitnessKeepsEvidence": (
        {"countermark_witness_evidence": "0x10 1x20"},
        {"countermark_witness_evidence": "3x30"},
    ),
    "CountermarkNotPublishing": (
        {SIZE + '{stage="next"}': "5x30", SIZE + '{stage="published"}': "4x30"},
        {SIZE + '{stage="next"}': "5 6x30", SIZE + '{stage="published"}': "4 5 6x30"},
    ),
    "CountermarkLogReloads": (
        {"countermark_log_reloads_total": "0x10 0+1x20"},
        {"countermark_log_reloads_total": "0x10 3x20"},
    ),
    "CountermarkScansFail": (
        {"countermark_scan_failures_total": "0+1x20"},
        {"countermark_scan_failures_total": "0x10 2x20"},
    ),
    "CountermarkSandboxWeaker": (
        {
            'countermark_scan_protection{name="network"}': "0x30",
            'countermark_scan_protection{name="x"}': "1x30",
        },
        {'countermark_scan_protection{name="network"}': "1x30"},
    ),
    "CountermarkMetadataExpires": (
        {'countermark_tuf_expires_seconds{role="bins"}': "500000x90"},
        {'countermark_tuf_expires_seconds{role="bins"}': "800000x90"},
    ),
}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def named(expression: str) -> set[str]:
    """The metrics of ours that an expression names."""
    return set(re.findall(r"countermark_[a-z_]+", expression))


def test_promtool_accepts_rules_and_scrape_configuration() -> None:
    """Both files, as shipped; one target for each process."""
    done = subprocess.run(
        [program("promtool"), "check", "config", DEPLOY / "prometheus/prometheus.yml"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and f"{len(rules())} rules found" in done.stdout + done.stderr, done
    (job,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert job["job_name"] == "countermark"  # what the rule about dead processes asks for
    assert tuple(target["labels"]["process"] for target in job["static_configs"]) == PROCESSES


def test_every_alarm_fires_when_it_must_and_not_before(tmp_path: Path) -> None:
    """promtool plays series to the rules; each has one that fires and one that stays just short of it."""
    assert {rule["alert"] for rule in rules()} == CASES.keys()
    assert play(tmp_path, CASES) == ""


def test_a_case_that_expects_the_wrong_thing_is_seen(tmp_path: Path) -> None:
    """The test of the test: firing and silence exchanged, promtool says so for both."""
    fires, silent = CASES["CountermarkHoldWithoutEntry"]
    said = play(tmp_path, {"CountermarkHoldWithoutEntry": (silent, fires)})
    assert said.count("FAILED") >= 1 and said.count("got:") == 2, said


def play(folder: Path, cases: dict[str, tuple[dict[str, str], dict[str, str]]]) -> str:
    """What promtool says about these cases; nothing when all go as expected."""
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                    "eval_time": "80m" if alert == "CountermarkMetadataExpires" else "20m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }
            ],
        }
        for alert, pair in cases.items()
        for fires, series in zip((True, False), pair, strict=True)
    ]
    file = folder / "cases.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(
        [program("promtool"), "test", "rules", file], capture_output=True, text=True, timeout=120, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_what_alarms_and_dashboard_name_is_exported_by_real_processes(house: House, published: Path) -> None:
    """Every process is scraped after an upload; a renamed metric would silence an alarm for ever."""
    exported = {name: scrape(house, name) for name in PROCESSES}
    for name, metrics in exported.items():
        assert any(metric.startswith("countermark_") for metric in metrics), name
    everything = set().union(*exported.values())
    asked = set().union(*(named(rule["expr"]) for rule in rules()))
    asked |= set().union(*(named(target["expr"]) for panel in panels() for target in panel["targets"]))
    assert asked - everything == set()
    page = (DEPLOY.parent / "docs/operations/metrics.md").read_text("utf-8")
    documented = set(re.findall(r"`(countermark_[a-z_]+)`", page))
    ours = {metric for metric in everything if re.match(r"countermark_.*(?<!_created)$", metric)}
    assert {re.sub(r"_(bucket|sum|count)$", "", metric) for metric in ours} - documented == set()


def test_the_first_row_is_the_chain_in_its_order(house: House, published: Path) -> None:
    """next index >= integrated >= signed >= witnessed >= published >= applied, and it holds on a real registry."""
    row = sorted((p for p in panels() if p["gridPos"]["y"] == 0), key=lambda p: p["gridPos"]["x"])
    stages = [panel["title"] for panel in row]
    assert stages == ["next index", "integrated", "signed", "witnessed", "published", "applied"]
    chain = [panel["targets"][0]["expr"] for panel in row]
    log, tufrepo = scrape(house, "log"), scrape(house, "tufrepo")
    for stage, expression in zip(stages[:-1], chain[:-1], strict=True):
        assert expression == f'max(countermark_log_size{{stage="{stage.split()[0]}"}})'
    values = [log[SIZE][f'{{stage="{stage.split()[0]}"}}'] for stage in stages[:-1]]
    assert chain[-1] == "max(countermark_tuf_applied)"
    # tufrepo was asked a moment later than the log: entries may have come meanwhile.
    assert values == sorted(values, reverse=True) and values[-1] > 0, values
    assert 0 < tufrepo["countermark_tuf_applied"][""] <= scrape(house, "log")[SIZE]['{stage="published"}']


def scrape(house: House, process: str) -> dict[str, dict[str, float]]:
    """What a process exports: name -> labels -> value."""
    facts = json.loads((house.world.data / "run" / f"{process}.json").read_text())
    with urllib.request.urlopen(facts.get("metrics") or facts["url"] + "/metrics", timeout=20) as answer:
        text = answer.read().decode()
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            found.setdefault(line.split()[2], {})
        elif (match := re.fullmatch(r"([a-zA-Z_:]+)(\{.*\})? (\S+)", line)) is not None:
            found.setdefault(match[1], {})[match[2] or ""] = float(match[3])
    return found


@pytest.mark.parametrize("alert", sorted(CASES))
def test_every_alarm_says_what_to_do(alert: str) -> None:
    """docs/operations/deploy.md has a row for it."""
    assert f"`{alert}`" in (DEPLOY.parent / "docs/operations/deploy.md").read_text("utf-8")
