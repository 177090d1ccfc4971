"""reportfiles.py: what CI systems are shown is what was found, whatever a registry's words contain."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark import cli, commands_install, reportfiles
from countermark.clientpolicy import Mode
from countermark.errors import CountermarkError, NetworkError, UsageError, WithdrawnError
from countermark.spots import Spots
from countermark.values import replace
from countermark.verified import Artifact, LetPass, Refused, Report
from tests import junitxml
from tests.machine import Machine, artifact
from tests.sariflog import checked
from tests.simulator import World

LOCK = Path("lock files/uv.lock")


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """One verified, one that was swapped, one unsigned and refused, one withdrawn, one unreachable, one let pass."""
    world = World()
    good, bad, unsigned = (
        world.publish("acme-demo"),
        world.publish("other"),
        world.publish("third", signed=False),
    )
    swapped = replace(artifact(bad), sha256="ab" * 32)
    found = Machine(tmp_path / "home", world).verify(
        artifact(good), swapped, artifact(unsigned), local=Mode.ENFORCE
    )
    odd = Artifact("odd", "1", "odd-1.tar.gz", "cd" * 32)
    more = (
        Refused(odd, WithdrawnError("held: <script>\x00\x1b[31m&\ud800", hint="ask"), "in every mode"),
        Refused(replace(odd, project="far"), NetworkError("no answer")),
        LetPass(replace(odd, project="loose"), CountermarkError("not provable"), "policy mode warn"),
    )
    more[2].error.exit_code = 5  # type: ignore[misc]
    return replace(found, outcomes=(*found.outcomes, *more))


def suite_of(report: Report) -> Xml.Element:
    """The report as JUnit XML that every reader takes."""
    return junitxml.checked(reportfiles.junit(report, Spots([LOCK])))


def shown(report: Report) -> dict[str, Any]:
    """The report as a SARIF log that every reader takes."""
    return checked(reportfiles.sarif(report, Spots([LOCK])))


def test_junit_counts_and_names_every_artifact(report: Report) -> None:
    suite = suite_of(report)
    assert [suite.get(word) for word in ("tests", "failures", "errors", "skipped")] == ["6", "3", "1", "0"]
    cases = {case.get("classname"): case for case in suite}
    assert list(cases) == ["acme-demo", "other", "third", "odd", "far", "loose"]
    kinds = {name: [(child.tag, child.get("type")) for child in case] for name, case in cases.items()}
    assert kinds == {
        "acme-demo": [("system-out", None)],
        "other": [("failure", "exit-7")],
        "third": [("failure", "exit-5")],
        "odd": [("failure", "exit-6")],
        "far": [("error", "exit-3")],
        "loose": [("system-out", None)],
    }
    assert "step 4: entry #" in (cases["acme-demo"][0].text or "")
    assert "ab" * 32 in (cases["other"][0].get("message") or "")
    assert cases["odd"][0].get("message") == "held: <script>\ufffd\ufffd[31m&\ufffd"
    assert cases["loose"][0].text == "let pass: not provable (policy mode warn)"


def test_junit_says_where_and_as_of_when(report: Report) -> None:
    """The file that GitLab links to; the quorum's time, which a rerun has again; no duration, for none is known."""
    suite = suite_of(replace(report, quorum_time=1_772_366_400))
    assert (suite.get("timestamp"), suite.get("time")) == ("2026-03-01T12:00:00", "0.000")
    cases = suite.findall("testcase")
    assert {(case.get("file"), case.get("line"), case.get("time")) for case in cases} == {
        ("lock files/uv.lock", "1", "0.000")
    }


def test_no_two_tests_have_one_name(report: Report) -> None:
    """Hashes of one requirement, and two findings of one file."""
    error = NetworkError("no answer")
    pins = [Refused(Artifact("two", "1", "", digest * 32), error) for digest in ("aa", "bb")]
    twice = [Refused(Artifact("", "", "bin/acme", "", source="modified"), error)] * 2
    names = [case.get("name") for case in suite_of(replace(report, outcomes=(*pins, *twice)))]
    assert names == [f"two==1 sha256:{'aa' * 8}", f"two==1 sha256:{'bb' * 8}", "bin/acme", "bin/acme (2)"]


ANY = st.text(st.characters(exclude_categories=()))  # also halves of surrogate pairs


@given(words=st.lists(ANY, min_size=7, max_size=7))
def test_no_words_make_either_file_unreadable(words: list[str]) -> None:
    """Names, hints and remarks come from registries and file systems: surrogates and controls among them."""
    a, b, c, d, e, f, g = words
    error = WithdrawnError(a, hint=b)
    artifact = Artifact(c, d, e, "", source=f)
    outcomes = (
        Refused(artifact, error, g),
        LetPass(artifact, error, g),
        Refused(artifact, NetworkError(b), a),
    )
    report = Report(outcomes, "https://registry.test", 1, 1, 1, "fresh", None, (f, g))
    suite_of(report)
    shown(replace(report, outcomes=outcomes[:1]))


def test_sarif_has_each_refusal_with_its_rule_and_place(report: Report) -> None:
    document = shown(report)
    assert (document["version"], len(document["runs"])) == ("2.1.0", 1)
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    found = [(each["ruleId"], each["level"]) for each in run["results"]]
    assert found == [
        ("exit-7", "error"), ("exit-5", "error"), ("exit-6", "error"), ("exit-3", "error"), ("exit-5", "warning"),
    ]  # fmt: skip
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in run["results"])
    places = [each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in run["results"]]
    assert places == ["lock%20files/uv.lock"] * 5
    assert "ab" * 32 in run["results"][0]["message"]["text"]


def test_sarif_takes_every_exit_code_and_name(report: Report) -> None:
    """Also what no outcome should be, a usage error and a bug; and a file whose name is no Unicode."""
    odd = Artifact("", "", "caf\udce9.py", "", source="extra")
    pins = [Artifact("two", "1", "", digest * 32) for digest in ("aa", "bb")]
    kinds = [UsageError("a cache outgrew its bound"), CountermarkError("\ud800 \x00 \u2028")]
    refused = [Refused(odd, kinds[0]), *(Refused(pin, kinds[1]) for pin in pins)]
    (run,) = shown(replace(report, outcomes=tuple(refused), remarks=("\udc80",)))["runs"]
    assert [each["ruleId"] for each in run["results"]] == ["exit-2", "exit-1", "exit-1"]
    assert r"\udce9" in run["results"][0]["message"]["text"]


def test_both_show_the_exceptions_in_force(report: Report) -> None:
    """And whatever else is said of the whole result; a result of which nothing is said has no empty member."""
    words = 'exception for acme-* until 2026-03-31: "moves in March", approved by ops'
    excused = replace(report, remarks=(words,))
    assert suite_of(excused).findtext("system-out") == words
    (run,) = shown(excused)["runs"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is True
    assert invocation["toolExecutionNotifications"] == [{"level": "note", "message": {"text": words}}]
    silent = replace(report, remarks=())
    assert suite_of(silent).find("system-out") is None
    assert "invocations" not in shown(silent)["runs"][0]


def test_equal_results_are_equal_files(report: Report) -> None:
    """Also when another time has passed since the quorum saw it: no clock is in them."""
    later = replace(report, age=report.age + 60)
    files = [reportfiles.junit(each, Spots([LOCK])) for each in (report, later)]
    assert files[0] == files[1]
    assert shown(later) == shown(report)


def test_a_finding_keeps_its_fingerprint_when_its_words_change(report: Report) -> None:
    def prints(report: Report) -> list[str]:
        (run,) = shown(report)["runs"]
        return [each["partialFingerprints"]["countermark/v1"] for each in run["results"]]

    (refused,) = [o for o in report.outcomes if o.artifact.project == "far"]
    other = [
        replace(o, error=NetworkError("no answer within 5 s")) if o is refused else o for o in report.outcomes
    ]
    assert prints(replace(report, outcomes=tuple(other))) == prints(report)


def test_the_command_writes_both_and_a_folder_means_its_distributions(
    tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "dist"
    folder.mkdir()
    names = ["acme_demo-1.0-py3-none-any.whl", "other-1.0.tar.gz"]
    for name in [*names, f"{names[0]}.publish.attestation", "notes.txt"]:
        (folder / name).write_bytes(b"x")
    seen: list[str] = []

    def verified(artifacts: list[Artifact], *_: object, **__: object) -> Report:
        seen.extend(each.filename for each in artifacts)
        return report

    monkeypatch.setattr(commands_install, "verify_artifacts", verified)
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CI", raising=False)
    files = ["--junit", str(tmp_path / "v.xml"), "--sarif", str(tmp_path / "v.sarif")]
    assert cli.main(["verify", str(folder), *files]) == 7
    assert seen == names
    assert (tmp_path / "v.xml").read_bytes() == reportfiles.junit(report, Spots([folder / names[0]]))
    assert (tmp_path / "v.sarif").read_bytes() == reportfiles.sarif(report, Spots([folder / names[0]]))
    (tmp_path / "empty").mkdir()
    assert cli.main(["verify", str(tmp_path / "empty")]) == 2
    assert "no wheel and no source distribution" in capsys.readouterr().err


@pytest.mark.parametrize("code", [5, 2])
def test_who_has_no_result_leaves_none_of_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """No registry is pinned, or nothing was named to verify: a pipeline must not show the last build's files."""
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / "v.xml", tmp_path / "v.sarif"]
    for path in files:
        path.write_text("all is well")
    named = ["acme_demo-1.0-py3-none-any.whl"] if code == 5 else []
    assert cli.main(["verify", "--junit", str(files[0]), "--sarif", str(files[1]), *named]) == code
    assert not any(path.exists() for path in files)


def test_a_run_that_breaks_leaves_no_result_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of ours, of which nothing can be written."""
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    said = tmp_path / "run.json"
    said.write_text("all is well")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("countermark.installers.plan", broken)
    assert cli.main(["run", "--json", str(said), "--", "uv", "sync", "--frozen"]) == 1
    assert not said.exists()
