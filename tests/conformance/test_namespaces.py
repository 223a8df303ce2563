"""Every call on namespaces that the SDKs have."""

from __future__ import annotations

from tests.conformance.sdk import refused


def test_namespace_is_created_renamed_and_deleted_everywhere(account, request):
    title = request.node.name
    created = account.write("create", title=title)
    assert (created["title"], created["supports_url_encoding"]) == (title, True)
    sdk = account.in_namespace(created["id"])
    assert sdk.read("get") == created
    renamed = sdk.write("update", title=f"{title} (2)")
    assert renamed == created | {"title": f"{title} (2)"}
    assert sdk.read("get") == renamed
    sdk.put("key", b"value")
    assert sdk.get("key").data == b"value"
    assert sdk.write("delete") in (None, {})
    assert refused(sdk.read, "get") == (404, [10013])
    assert refused(sdk.read, "values.get", key_name="key") == (404, [10013])
    assert refused(sdk.write, "delete") == (404, [10013])


def test_pager_of_namespaces_goes_over_all_pages_and_ends(account, request):
    titles = [f"{request.node.name} {number}" for number in range(3)]
    created = [account.write("create", title=title) for title in titles]
    found = account.read("list", per_page=2, order="title", direction="desc")
    assert [namespace["title"] for namespace in found if namespace in created] == titles[::-1]
    assert len(found) == len({namespace["id"] for namespace in found})
    by_id = sorted(found, key=lambda namespace: namespace["id"])
    assert account.read("list", per_page=1000, order="id", direction="asc") == by_id
    assert account.read("list", page=1000) == []


def test_title_that_is_taken_is_refused(sdk, account, request):
    taken = sdk.read("get")["title"]
    assert refused(account.write, "create", title=taken) == (400, [10014])
    other = account.in_namespace(account.write("create", title=request.node.name)["id"])
    assert refused(other.write, "update", title=taken) == (400, [10014])
    assert other.write("update", title=request.node.name)["title"] == request.node.name
    assert refused(account.write, "create", title="") == (400, [10019])
