"""What a JUnit file must be: the schema of Jenkins' xUnit plugin (junit-10.xsd), and what GitLab reads beyond it.

    suite = checked(raw)                    # AssertionError says what is wrong

There is no one schema of JUnit XML. That one is strict and widely used; it is held here as names of attributes and
children, since Python has no reader of XSD. `file` and `line` of a test case are not in it, and GitLab, CircleCI and
editors read them; GitLab drops a test whose class and name another one has.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

ATTRIBUTES = {
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"skipped", "time", "timestamp", "hostname", "id", "file"},
    ),
    "testcase": ({"name"}, {"classname", "time", "file", "line"}),
    "failure": (set(), {"type", "message"}),
    "error": (set(), {"type", "message"}),
    "system-out": (set(), set()),
}
CHILDREN = {
    "testsuite": {"testcase", "system-out", "system-err", "properties"},
    "testcase": {"skipped", "error", "failure", "system-out", "system-err"},
}  # fmt: skip
SECONDS = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")  # SUREFIRE_TIME of the schema
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")  # without a zone: what Ant and Surefire write, in UTC


def checked(raw: bytes) -> Xml.Element:
    """The suite as an element, once it is one."""
    suite = Xml.fromstring(raw)
    assert suite.tag == "testsuite"
    for element in suite.iter():
        required, allowed = ATTRIBUTES[element.tag]
        assert required <= set(element.keys()) <= required | allowed, (element.tag, element.keys())
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())
        assert SECONDS.fullmatch(element.get("time", "0")), element.get("time")
    assert MOMENT.fullmatch(suite.get("timestamp", "")), suite.get("timestamp")
    cases = suite.findall("testcase")
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases), "a name twice"
    assert all(case.get("file") and int(case.get("line", "0")) >= 1 for case in cases)
    counted = [len(cases)] + [len(suite.findall(f"testcase/{kind}")) for kind in ("failure", "error")]
    assert [int(suite.get(word, "-1")) for word in ("tests", "failures", "errors")] == counted
    return suite
