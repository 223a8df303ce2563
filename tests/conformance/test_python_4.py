"""What is peculiar to the Python SDK 4.3.1, which many still use."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.parametrize("sdk_process", ["python-4.3.1"], indirect=True)


def test_update_without_a_form_stores_the_text_that_was_sent(sdk):
    """It sends a JSON document, which nothing tells from a value that is one; so does Workers KV."""
    sdk.write("values.update", key_name="wrapped", value="hello", metadata="{}")
    assert json.loads(sdk.get("wrapped").data) == {"value": "hello", "metadata": "{}"}
    assert sdk.read("metadata.get", key_name="wrapped") is None


def test_key_goes_into_the_address_as_it_comes(sdk):
    """A slash stays one, what looks escaped is unescaped, and from a question mark on it is a query."""
    sdk.put("a/b c:!%41?x=é", b"1")
    sdk.put("+/é/😀", b"2")
    assert [key["name"] for key in sdk.list_keys()] == ["+/é/😀", "a/b c:!A"]
    assert sdk.get("a/b c:!A").data == b"1"
    assert sdk.get("+/é/😀").data == b"2"


def test_key_of_two_dots_names_the_namespace(sdk):
    """The dots are resolved before anything is sent, so that no server can tell: `delete("..")` deletes it too."""
    document = json.loads(sdk.get("..").data)
    assert document["result"] == sdk.read("get")
