"""The OpenAPI document: complete, valid, and open to anyone."""

from __future__ import annotations

import json

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from kvnet.api import codes
from kvnet.api.endpoints import ENDPOINTS
from kvnet.api.openapi import build, problems_of
from kvnet.api.openapi_endpoints import PATHS, describe
from kvnet.api.routes import Resource, find_place
from kvnet.core.catalog import Scope
from kvnet.limits import PROFILES, Limits
from tests.support.backends import ACCOUNT

EXAMPLES = {
    "account_id": ACCOUNT,
    "namespace_id": "fedcba9876543210fedcba9876543210",
    "key": "a%2Fb",
    "token_id": "some-token",
}


def operations(document: dict) -> dict[tuple[str, str], dict]:
    return {
        (path, method.upper()): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict) and "responses" in operation
    }


def test_every_endpoint_is_described_and_every_description_has_its_endpoint():
    served = {(resource, method) for resource, methods in ENDPOINTS.items() for method in methods}
    assert set(describe(Limits())) == served
    assert set(PATHS) == set(ENDPOINTS)


@pytest.mark.parametrize("resource", ENDPOINTS, ids=lambda resource: resource.name)
def test_path_of_the_document_leads_to_the_resource(resource):
    path = PATHS[resource].format(**EXAMPLES)
    assert find_place("GET", path).resource is resource


def test_names_for_programs_are_unique():
    ids = [operation["operationId"] for operation in operations(build(Limits())).values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("profile", PROFILES)
def test_document_is_openapi(profile):
    OpenAPIV31SpecValidator(build(PROFILES[profile])).validate()


def test_document_that_is_not_openapi_would_be_found():
    document = build(Limits())
    del next(iter(operations(document).values()))["responses"]["200"]["description"]
    with pytest.raises(OpenAPIValidationError):
        OpenAPIV31SpecValidator(document).validate()


def test_limits_are_those_of_the_network():
    narrow = build(Limits(key_bytes_max=7, value_bytes_max=11, ttl_seconds_min=77))
    text = json.dumps(narrow)
    assert '"maxLength": 7,' in text or '"maxLength": 7}' in text
    assert '"maxLength": 11}' in text
    assert '"minimum": 77' in text


def test_both_kinds_of_credentials_are_told_and_two_paths_take_none():
    document = build(Limits())
    assert document["servers"] == [{"url": "/client/v4"}]
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["key"]["name"]) == ("bearer", "X-Auth-Key")
    assert schemes["email"]["name"] == "X-Auth-Email"
    assert document["security"] == [{"bearer": []}, {"key": [], "email": []}]
    free = {path for (path, _), operation in operations(document).items() if operation.get("security") == []}
    assert free == {"/healthz", "/openapi.json"}


def test_errors_are_those_of_the_table_by_status():
    responses = operations(build(Limits()))[PATHS[Resource.VALUE], "GET"]["responses"]
    missing = responses["404"]
    assert f"- 10009: {codes.KEY_NOT_FOUND.text}" in missing["description"]
    (_, refined) = missing["content"]["application/json"]["schema"]["allOf"]
    assert refined["properties"]["errors"]["items"]["properties"]["code"]["enum"] == [10009, 10013]
    assert responses["503"]["headers"]["Retry-After"]["required"] is True


def test_only_writes_can_fail_at_the_coordinator():
    described = describe(Limits())

    def told(resource: Resource, method: str, scope: Scope) -> list[codes.Problem]:
        return problems_of(resource, method, scope, described[resource, method])

    assert codes.UNREACHABLE in told(Resource.VALUE, "PUT", Scope.WRITE)
    assert codes.UNREACHABLE not in told(Resource.VALUE, "GET", Scope.READ)
    assert codes.TOO_STALE in told(Resource.BULK_GET, "POST", Scope.READ)
    assert codes.TOO_STALE not in told(Resource.VALUE, "PUT", Scope.WRITE)


@pytest.mark.parametrize("path", ["/openapi.json", "/client/v4/openapi.json"])
async def test_document_is_served_to_anyone_by_any_node(api, path):
    api.node.is_ready = False
    answer = await api("GET", path, whole=True, scope=None)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == build(api.node.limits)
    head = await api("HEAD", path, whole=True, scope=None)
    assert (head.status, head.headers["content-length"]) == (200, str(len(answer.body)))
    refused = await api("POST", path, whole=True, scope=None)
    assert refused.error[:2] == (405, 10405)
    assert refused.headers["allow"] == "GET, HEAD"
