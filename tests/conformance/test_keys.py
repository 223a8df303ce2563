"""Lists of keys longer than a page."""

from __future__ import annotations

import pytest

from tests.conformance.sdk import Sdk

THOUSAND = [f"a/{number:04}" for number in range(1000)]
NAMES = [*THOUSAND, *(f"b/{number:04}" for number in range(1234))]


@pytest.fixture(scope="module")
def many(sdk_process, route, new_namespace) -> Sdk:
    """A namespace of 2,234 keys, for all tests of a file."""
    sdk = Sdk(*sdk_process, route, new_namespace())
    written = sdk.write("bulk_update", body=[{"key": name, "value": name} for name in NAMES[::-1]])
    assert written == {"successful_key_count": len(NAMES), "unsuccessful_keys": []}
    return sdk


def test_pager_of_keys_goes_over_all_pages_in_order(many):
    assert [key["name"] for key in many.list_keys()] == NAMES


def test_limit_is_the_size_of_a_page_and_not_of_the_list(many):
    assert [key["name"] for key in many.list_keys(limit=100)] == NAMES


def test_prefix_holds_on_every_page(many):
    assert [key["name"] for key in many.list_keys(prefix="b/")] == NAMES[1000:]
    assert [key["name"] for key in many.list_keys(prefix="b/00", limit=10)] == [
        f"b/00{number:02}" for number in range(100)
    ]
    assert many.list_keys(prefix="c") == []


def test_list_that_fills_its_page_exactly_ends(many):
    assert [key["name"] for key in many.list_keys(prefix="a/")] == THOUSAND


def test_walk_goes_on_from_a_cursor_elsewhere(many):
    """A cursor of one node is good at another."""
    place = many.route.write
    cursor = place.ask(f"/{many.namespace_id}/keys?limit=1000").json["result_info"]["cursor"]
    assert [key["name"] for key in many.list_keys(cursor=cursor)] == NAMES[1000:]
