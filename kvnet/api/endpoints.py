"""Which function answers which method of which resource, and what scope that takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvnet.api import accounts, bulk, codes, keys, metrics, namespaces, node, tokens, values
from kvnet.api.call import Endpoint
from kvnet.api.routes import Resource
from kvnet.core.catalog import Scope

_READ: Final = Scope.READ
_WRITE: Final = Scope.WRITE
_ADMIN: Final = Scope.ADMIN

ENDPOINTS: Final[Mapping[Resource, Mapping[str, Endpoint]]] = {
    Resource.STATUS: {"GET": Endpoint(node.status, _READ)},
    Resource.USAGE: {"GET": Endpoint(metrics.usage, _READ)},
    Resource.METRICS: {"GET": Endpoint(metrics.metrics, _READ)},
    Resource.TOKEN_VERIFICATION: {"GET": Endpoint(node.verify_token, _READ)},
    Resource.TOKENS: {
        "GET": Endpoint(tokens.list_tokens, _ADMIN),
        "POST": Endpoint(tokens.create_token, _ADMIN),
    },
    Resource.TOKEN: {
        "GET": Endpoint(tokens.get_token, _ADMIN),
        "DELETE": Endpoint(tokens.revoke_token, _ADMIN),
    },
    Resource.TOKEN_VALUE: {"PUT": Endpoint(tokens.roll_token, _ADMIN)},
    Resource.ACCOUNTS: {"GET": Endpoint(accounts.list_accounts, _READ)},
    Resource.ACCOUNT: {"GET": Endpoint(accounts.get_account, _READ)},
    Resource.MEMBERSHIPS: {"GET": Endpoint(accounts.list_memberships, _READ)},
    Resource.NAMESPACES: {
        "GET": Endpoint(namespaces.list_namespaces, _READ),
        "POST": Endpoint(namespaces.create_namespace, _WRITE),
    },
    Resource.NAMESPACE: {
        "GET": Endpoint(namespaces.get_namespace, _READ),
        "PUT": Endpoint(namespaces.rename_namespace, _WRITE),
        "DELETE": Endpoint(namespaces.delete_namespace, _WRITE),
    },
    Resource.KEYS: {"GET": Endpoint(keys.list_keys, _READ)},
    Resource.VALUE: {
        "GET": Endpoint(values.get_value, _READ),
        "PUT": Endpoint(values.put_value, _WRITE),
        "DELETE": Endpoint(values.delete_value, _WRITE),
    },
    Resource.METADATA: {"GET": Endpoint(values.get_metadata, _READ)},
    Resource.BULK: {
        "PUT": Endpoint(bulk.put_many, _WRITE),
        "DELETE": Endpoint(bulk.delete_many, _WRITE),
    },
    Resource.BULK_DELETE: {"POST": Endpoint(bulk.delete_many, _WRITE)},
    Resource.BULK_GET: {"POST": Endpoint(bulk.get_many, _READ)},
}
"""HEAD goes wherever GET goes; the server leaves out the body."""


def find_endpoint(resource: Resource, method: str) -> Endpoint:
    """Return what answers `method` of `resource`.

    Raises:
        RequestError: nothing does.
    """
    methods = ENDPOINTS[resource]
    endpoint = methods.get("GET" if method == "HEAD" else method)
    if endpoint is None:
        allowed = [*methods, "HEAD"] if "GET" in methods else [*methods]
        raise codes.METHOD_NOT_ALLOWED.error(headers={"Allow": ", ".join(allowed)})
    return endpoint
