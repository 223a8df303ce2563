"""Carries out calls of the official Python SDK: one JSON object a line on stdin, one answer a line on stdout.

Runs in an environment of its own, where only the SDK is installed. The client reads its address and its token from
the variables that each call names, as a user's program would.
"""

import base64
import json
import os
import sys

import cloudflare
from cloudflare._response import BinaryAPIResponse
from cloudflare.pagination import BasePage

TIMEOUT_S = 30.0
_clients = {}


def main():
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def _answer(call):
    try:
        return {"result": _plain(_carry_out(**call))}
    except cloudflare.APIStatusError as error:
        return {"error": {"status": error.status_code, "codes": [problem.code for problem in error.errors]}}
    except Exception as error:  # noqa: BLE001 - it is the test's to judge
        return {"error": {"kind": type(error).__name__, "text": str(error)}}


def _carry_out(variables, operation, arguments, max_retries):
    target = _client(variables).with_options(max_retries=max_retries).kv.namespaces
    for name in operation.split("."):
        target = getattr(target, name)
    return target(**{name: _bytes_or_plain(value) for name, value in arguments.items()})


def _client(variables):
    key = json.dumps(variables)
    if key not in _clients:
        os.environ.update(variables)
        _clients[key] = cloudflare.Cloudflare(timeout=TIMEOUT_S)
    return _clients[key]


def _bytes_or_plain(value):
    return base64.b64decode(value["base64"]) if isinstance(value, dict) and "base64" in value else value


def _plain(result):
    """Return the result as JSON can carry it; walks all pages of a list."""
    if isinstance(result, BinaryAPIResponse):
        return {
            "base64": base64.b64encode(result.read()).decode(),
            "headers": {name.lower(): value for name, value in result.headers.items()},
        }
    if isinstance(result, BasePage):
        return [item.to_dict() for item in result]
    if isinstance(result, cloudflare.BaseModel):
        return result.to_dict()
    return result


if __name__ == "__main__":
    main()
