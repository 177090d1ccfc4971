"""The served OpenAPI document: it names every door of the API, no other, and each behaves as it says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.archives import wheel
from tests.doors import DoorWorld
from tests.server.accounts.test_entries import enrol, one, published

WHEEL = "demo-1.0-py3-none-any.whl"
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
ELSEWHERE = {"namespace": "corp", "project": "widget", "filename": "widget-1.tar.gz"}
WAIT = 0.2  # seconds a door may wait for the log, which works all the time


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorWorld]:
    """A registry with one signed wheel, its log at work."""
    made = DoorWorld(tmp_path_factory.mktemp("world"), wait=WAIT)
    with made.run():
        made.grace = grace = made.person("grace")  # type: ignore[attr-defined]
        grace.enrol("demo")
        made.quiet()
        grace.upload(WHEEL, wheel(), attestations=grace.attest(WHEEL, wheel()))
        made.quiet()
        assert enrol(made, grace).status_code == 200
        assert one(made, published(1, grace.key), grace.token).status_code == 200
        made.quiet()
        yield made
    made.close()


def described(world: DoorWorld) -> dict[str, Any]:
    document: dict[str, Any] = world.client.get("/api/v1/openapi.json").get_json()
    return document


def test_every_door_is_described_and_no_other(world: DoorWorld) -> None:
    """Paths and methods are those of the application's own routes below /api/v1."""
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(rule)), method.lower())
        for rule in world.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if str(rule).startswith("/api/v1/")
    }
    paths = described(world)["paths"]
    assert {(path, method) for path, doors in paths.items() for method in doors} == routes


def test_every_door_behaves_as_described(world: DoorWorld) -> None:
    """Generated requests, honest and odd: no door fails, and each answer has a form that the document gives it."""
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", world.app)
    headers = {"Authorization": f"Bearer {world.grace.session}"}  # type: ignore[attr-defined]
    asked: dict[str, int] = {}

    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=5,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            response = case.call(headers=headers)
            assert response.status_code not in (500, 501), (case, response.text)
            case.validate_response(response, checks=CHECKS)
            asked[case.operation.label] = asked.get(case.operation.label, 0) + 1

        ask()
    paths = described(world)["paths"]
    doors = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert asked.keys() == doors - {"GET /api/v1/openapi.json"}  # read above; a generator asks for all others
    world.quiet()
    world.check()


def test_true_answers_have_the_described_form(world: DoorWorld) -> None:
    """What the doors answer to an honest question, held against the document: a generator rarely gets that far."""
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", world.app)
    headers = {"Authorization": f"Bearer {world.grace.session}"}  # type: ignore[attr-defined]
    for path, values in (
        ("/api/v1/projects/{project}", {"project": "demo"}),
        ("/api/v1/files/{project}", {"project": "demo"}),
        ("/api/v1/files/{project}/{filename}", {"project": "demo", "filename": WHEEL}),
        ("/api/v1/keys/{keyid}", {"keyid": world.grace.key.keyid}),  # type: ignore[attr-defined]
        ("/api/v1/entries/{number}", {"number": 1}),
        ("/api/v1/logged/{namespace}/{project}/{filename}", ELSEWHERE),
        ("/api/v1/logged/{sha256}", {"sha256": hashlib.sha256(b"1").hexdigest()}),
        ("/api/v1/releases/{project}/{version}", {"project": "demo", "version": "1.0"}),
        ("/api/v1/staged/{project}/{filename}", {"project": "demo", "filename": WHEEL}),
        ("/api/v1/registry", {}),
    ):
        case = schema[path]["GET"].Case(path_parameters=values)
        response = case.call(headers=headers)
        assert response.status_code == 200, (path, response.text)
        case.validate_response(response, checks=CHECKS)


def test_an_answer_of_another_form_is_seen(world: DoorWorld) -> None:
    """The test of the tests: a document that says otherwise than the door does not pass."""
    document = described(world)
    answer = document["paths"]["/api/v1/registry"]["get"]["responses"]["200"]
    answer["content"]["application/json"]["schema"]["properties"]["origin"] = {"type": "integer"}
    response = (
        schemathesis.openapi.from_wsgi("/api/v1/openapi.json", world.app)["/api/v1/registry"]["GET"]
        .Case()
        .call()
    )
    lying = schemathesis.openapi.from_dict(document)["/api/v1/registry"]["GET"].Case()
    with pytest.raises(FailureGroup):
        lying.validate_response(response, checks=CHECKS)
