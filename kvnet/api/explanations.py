"""What every error code means: where it comes from as a rule, and what helps. Pure text.

Besides the API's own problems it explains those that other programs of kvnet answer with or end in: what the
command line asks of a node, the monitor, and the Python client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from kvnet.api import codes
from kvnet.api.codes import Problem


class Explanation(NamedTuple):
    """One problem in words; both are sentences."""

    cause: str
    cure: str


# Of other programs than the API; their texts say more than a row could.
ROUTE_UNKNOWN: Final = Problem(400, 7000, "No route for that URI")
AUTHORIZATION_FORMAT: Final = Problem(400, 6111, "Invalid format for Authorization header")
MONITOR_ROUTE: Final = Problem(
    404, 7003, "the monitor answers /report, /report.txt, /mark, /status and /healthz only"
)
MONITOR_MARK: Final = Problem(
    404, 10001, "no mark is called {name} since the monitor's start: set it with POST /mark"
)
TOKEN_AMBIGUOUS: Final = Problem(400, 20030, "{count} tokens are called {name}: name its id, of {ids}")
NO_ANSWER: Final = Problem(503, 7010, "{node} doesn't answer")
NOT_AN_ANSWER: Final = Problem(502, 10001, "{url} answered {status} with something that isn't the API's")
CHANGED_MEANWHILE: Final = Problem(409, 10001, "{what} changed, or is being made anew, meanwhile")
METHOD_OF_NODES: Final = Problem(405, 10001, "{what}: POST it")
FOUND_BEFORE: Final = Problem(410, 10001, "verify: what was found is no longer there; verify again")
UNDER_WAY: Final = Problem(429, 10001, "{what}: one is under way here")
NODE_TASK_FAILED: Final = Problem(500, 10001, "{what}: {why}")
NODE_TASK_UNREADY: Final = Problem(503, 10001, "{what}: this node isn't ready, or what is read is in use")
NODE_TASK_ROOM: Final = Problem(507, 10001, "{what}: the disk has too little room")

_SENT = "The client sent something else than the API takes."
_LATER = "Nothing was written. Try again after Retry-After; a KV-Request-Id makes that safe in any case."

EXPLANATIONS: Final[Mapping[Problem, Explanation]] = {
    codes.AUTH_MISSING: Explanation(
        "The request carries no token.",
        "Send `Authorization: Bearer TOKEN`; cluster.json has the tokens, `kvnet env` prints them for clients.",
    ),
    codes.AUTH_GARBLED: Explanation(
        "The Authorization header isn't `Bearer` and a token of visible ASCII characters, or there are two.",
        "Look for quotes, line ends or a missing `Bearer` in what the client was given.",
    ),
    AUTHORIZATION_FORMAT: Explanation("It stands in the error_chain of 6003 and says the same.", "As for 6003."),
    codes.TOKEN_UNKNOWN: Explanation(
        "No token of this cluster is the one that was sent: it is another cluster's, or was revoked.",
        "Take it from the cluster.json of the network that is asked.",
    ),
    codes.TOKEN_NOT_ALLOWED: Explanation(
        "The token is known, but its scope doesn't reach so far, or the account isn't this cluster's.",
        "Use a token with the scope that docs/api.md names, and the account_id of cluster.json.",
    ),
    codes.KEY_PAIR_UNKNOWN: Explanation(
        "X-Auth-Key isn't a token of this cluster; X-Auth-Email may be anything.",
        "Send a token of cluster.json as X-Auth-Key, or as `Authorization: Bearer`.",
    ),
    codes.TOKEN_NOT_FOUND: Explanation(
        "No token has this id: it was revoked, is another cluster's, or this PoP hasn't heard of it yet.",
        "`kvnet token list` shows the ids; an id isn't a secret, nor a name.",
    ),
    codes.TOKEN_LAST_ADMIN: Explanation(
        "Without an admin token nobody could make another one.",
        "`kvnet token create NAME --scope admin`, then revoke this one.",
    ),
    codes.SECRET_UNKNOWN: Explanation(
        "This PoP is far behind, and can't tell yet whether a retry's secret is the one that counts.",
        "Ask again with the same KV-Request-Id, or revoke the token and create another one.",
    ),
    codes.TOKEN_SECRET_LOST: Explanation(
        "A request for a new secret was sent again under its KV-Request-Id, and the first try had been made.",
        "`kvnet token roll ID` makes another secret.",
    ),
    codes.NO_ROUTE: Explanation(
        "The path names nothing that this API has, or its account id isn't 32 hex digits.",
        "Compare the path with docs/api.md; clients take a base URL that ends in `/client/v4`.",
    ),
    ROUTE_UNKNOWN: Explanation("It stands beside 7003 and says the same.", "As for 7003."),
    codes.METHOD_NOT_ALLOWED: Explanation(
        "The path is right, but nothing answers this method there.", "The answer's Allow header lists what does."
    ),
    codes.METHOD_NOT_SUPPORTED: Explanation(
        "The path ends in a slash, as when a client makes `..` of a key disappear before it sends the request.",
        "Leave the slash out, or percent-encode the key; the namespace is deleted only without the slash.",
    ),
    codes.KEY_EMPTY: Explanation(
        "The key after `values/` or `metadata/` is empty.", "Name a key: it has a byte or more."
    ),
    codes.HTTP_MALFORMED: Explanation(
        "What came isn't an HTTP/1.1 request; the connection is closed after this answer.",
        "Look for characters in path or headers that should have been encoded, and for TLS on a plain port.",
    ),
    codes.LINE_TOO_LONG: Explanation(
        "The request's first line is longer than any key, prefix and cursor need.",
        "Shorten the query, or send less of it.",
    ),
    codes.HEADERS_TOO_LARGE: Explanation(
        "One header field is too long, as cookies of something else on this host may be.", "Leave it out."
    ),
    codes.EXPECTATION_FAILED: Explanation(
        "The request has an Expect header with something else than 100-continue.", "Leave the header out."
    ),
    codes.HEADER_INVALID: Explanation(
        "A header, or a field of the query, isn't what it must be: the text says which.",
        "Write it as the text says.",
    ),
    codes.QUERY_INVALID: Explanation(
        "The query string can't be read.",
        "Percent-encode its fields as UTF-8, and send no more of them than needed.",
    ),
    codes.NAMESPACE_ID_LENGTH: Explanation(
        "What stands for the namespace isn't 32 characters long; often it is the title.",
        "Use the id: `kvnet namespace list` shows both.",
    ),
    codes.NAMESPACE_ID_FORMAT: Explanation(
        "The namespace's id has characters that aren't hex digits.", "Copy it from `kvnet namespace list`."
    ),
    codes.NAMESPACE_NOT_FOUND: Explanation(
        "No namespace has this id: it was deleted, is another cluster's, or this PoP hasn't heard of it yet.",
        "`kvnet namespace list`; right after its creation send its KV-Version as KV-At-Least.",
    ),
    codes.TITLE_MISSING: Explanation(
        "The body has no title, or an empty one.", 'Send {"title": "…"} as the body.'
    ),
    codes.TITLE_TOO_LONG: Explanation("The title is too long.", "Shorten it: characters count, not bytes."),
    codes.TITLE_TAKEN: Explanation(
        "Another namespace has this title; titles are unique and case counts.",
        "Use that one, or another title. It may come from a first try whose answer was lost.",
    ),
    codes.NAMESPACE_ID_CHOSEN: Explanation(
        "The id asked for isn't one.",
        "Send 32 hex digits, as another network or a wrangler.jsonc has them, or none.",
    ),
    codes.NAMESPACE_ID_TAKEN: Explanation(
        "A namespace has the id asked for, or had it a moment ago and its deletion isn't through.",
        "Use that one, or leave the id out for a new one.",
    ),
    codes.JURISDICTION: Explanation(
        "A namespace was to be kept in one jurisdiction; here every PoP holds everything.", "Leave the field out."
    ),
    codes.KEY_NOT_FOUND: Explanation(
        "This PoP has no such pair: it was never written, was deleted, has expired, or hasn't arrived yet.",
        "After a write send its KV-Version as KV-At-Least; look for a key encoded twice.",
    ),
    codes.KEY_UNDECODABLE: Explanation(
        "The path's end has a `%` without two hex digits, or doesn't spell UTF-8.",
        "Percent-encode the key exactly once, `%` itself as `%25`.",
    ),
    codes.KEY_NOT_ALLOWED: Explanation("The key is empty, `.` or `..`.", "Choose another name."),
    codes.KEY_TOO_LONG: Explanation(
        "The key has more bytes than this network's limits allow.",
        "Shorten it; the limits are in cluster.json, and are set with `kvnet up --limits`.",
    ),
    codes.VALUE_TOO_LARGE: Explanation(
        "The value has more bytes than this network's limits allow.",
        "Split it, or run the network with `--limits workers-kv`, which allows 25 MiB.",
    ),
    codes.VALUE_MISSING: Explanation("The form has no part named `value`.", "Send one; it may be empty."),
    codes.RANGE_UNSATISFIABLE: Explanation(
        "The part asked for lies behind the value's end, as of another version of it perhaps.",
        "Content-Range says how long the value is; If-Range gives the whole of one that has changed.",
    ),
    codes.METADATA_INVALID: Explanation(
        "The metadata isn't JSON; an empty part isn't either.", 'Send JSON text: a string with its quotes, `"…"`.'
    ),
    codes.METADATA_TOO_LARGE: Explanation(
        "The metadata, as compact JSON, has more bytes than the limits allow.", "Put it into the value."
    ),
    codes.MULTIPART_INVALID: Explanation(
        "Content-Type says that the body is a form, and the body isn't one.",
        "Let the HTTP client make both, or send the value as the body, as any other type.",
    ),
    codes.TTL_NOT_POSITIVE: Explanation(
        "expiration_ttl isn't a whole number above 0.", "Send seconds, in digits."
    ),
    codes.TTL_TOO_SHORT: Explanation(
        "Pairs live for a minimum time, and this is less.", "Send at least the minimum."
    ),
    codes.TTL_TOO_LONG: Explanation("expiration_ttl reaches beyond all calendars.", "Send seconds from now."),
    codes.EXPIRATION_PAST: Explanation(
        "The expiration isn't a whole number, or that time is over.",
        "Send Unix seconds; look at the host's clock.",
    ),
    codes.EXPIRATION_TOO_SOON: Explanation(
        "Pairs live for a minimum time, and this expiration is nearer.", "Send a later one, or an expiration_ttl."
    ),
    codes.EXPIRATION_TOO_LATE: Explanation("The expiration is in milliseconds.", "Divide it by 1000."),
    codes.BULK_TOO_MANY: Explanation("The array is longer than a bulk request may be.", "Send it in several."),
    codes.ELEMENT_TOO_LARGE: Explanation(
        "One element of a bulk request is longer than a pair within the limits can be, however it is spelled.",
        "Make it smaller; write a value that has many escapes as base64.",
    ),
    codes.BULK_ELEMENT: Explanation(
        "One element isn't what it must be; all of the request was refused.", "Mend it as the text says."
    ),
    codes.BULK_GET_COUNT: Explanation("More keys than a bulk get may name.", "Ask in several requests."),
    codes.BULK_GET_NONE: Explanation("The list of keys is empty.", "Name a key or more."),
    codes.BULK_GET_NOT_TEXT: Explanation(
        "One of the values isn't UTF-8, or with `type` json isn't JSON.", "Get that key by itself, as bytes."
    ),
    codes.BULK_GET_TYPE: Explanation("A bulk get gives text or JSON only.", "Get other values key by key."),
    codes.BULK_GET_TOO_LARGE: Explanation("The values together are too large for one answer.", "Ask for fewer."),
    codes.LIMIT_TOO_LOW: Explanation(
        "A page has a least size, and `limit` is less.", "Ask for more and use fewer."
    ),
    codes.LIMIT_TOO_HIGH: Explanation("A page has a greatest size.", "Page on with the cursor."),
    codes.COUNT_TOO_LOW: Explanation(
        "A Worker's list asks for a page of no keys.", "Ask for 1 to 1000, or leave it out."
    ),
    codes.COUNT_TOO_HIGH: Explanation(
        "A Worker's list asks for a page of too many keys.", "Ask for at most 1000."
    ),
    codes.CACHE_TTL_TOO_SHORT: Explanation(
        "A Worker's get has a cacheTtl that Workers KV refuses too.",
        "Leave it out: an edge keeps no answers, what it says is as new as its replica.",
    ),
    codes.CURSOR_INVALID: Explanation(
        "The cursor was cut, or belongs to another namespace or prefix.",
        "Send it unchanged, with the prefix of the page it came with; or begin again without it.",
    ),
    codes.BODY_INVALID: Explanation(
        "The body isn't JSON, or not of the type that this request takes; or a node sent what isn't a write.",
        "Look at what was sent; between nodes, run the same release everywhere.",
    ),
    codes.BODY_TOO_LARGE: Explanation("The body is larger than this request's ever is.", "Send it in several."),
    codes.BODY_BROKEN: Explanation(
        "The connection ended before the body did, or its chunks aren't well-formed.", "Send it again."
    ),
    codes.BODY_TOO_SLOW: Explanation("The client stopped in the middle of its body.", "Send it again."),
    codes.WRITTEN_TOO_SOON: Explanation(
        "This key, or one of a bulk request's, was written a moment ago; nothing of the request was written.",
        "Wait for Retry-After; collect writes of one key, or set `--limit write_interval_ms=0`.",
    ),
    codes.INTERNAL: Explanation("A bug.", "`kvnet logs NODE` has the traceback: report it."),
    codes.NOT_READY: Explanation(
        "The node has started, and its replica isn't filled yet or is being checked.",
        "Ask another PoP, or wait: `kvnet status` shows how far it is.",
    ),
    codes.TOO_STALE: Explanation(
        "The replica may be further behind than KV-Max-Staleness-Ms allows, as after a cut or its start, "
        "and no node that it can reach answered in its place.",
        "Ask another PoP, or allow more. The coordinator is never stale.",
    ),
    codes.STILL_BEHIND: Explanation(
        "The replica didn't reach the version of KV-At-Least in time, and no node that it can reach has it.",
        "`kvnet why-stale` shows where it is held up. Wait longer with KV-Wait-Timeout-Ms, or ask another PoP; "
        "a version that was never given out never comes.",
    ),
    codes.DAMAGED: Explanation(
        "Stored bytes aren't those that were written: the disk is failing, or was written by something else.",
        "Ask another PoP. The node makes its replica anew by itself; look at the disk if it happens again.",
    ),
    codes.SPOOL_FULL: Explanation(
        "A long body is kept in a temporary file while it is read, and that disk is full.",
        "Free some of that node's disk, set TMPDIR to another, or send less at once.",
    ),
    codes.UNREACHABLE: Explanation(
        "No connection to the coordinator: it is down, restarting, or cut off from this PoP. Nothing was written.",
        "`kvnet ps` and `kvnet status` show which; reads go on meanwhile. Try again later.",
    ),
    codes.NODE_REFUSED: Explanation(
        "The coordinator doesn't accept this node's signature: another secret or topology, or clocks that differ.",
        "Compare `secret` and topology of both hosts; operations.md tells how. The write was not made.",
    ),
    codes.UNKNOWN_OUTCOME: Explanation(
        "The write was sent to the coordinator and no answer came; it may or may not be durable.",
        "Ask again with the same KV-Request-Id, or read the key: never assume either.",
    ),
    codes.TOO_MANY_WRITES: Explanation("Writes come faster than they are answered.", _LATER),
    codes.TOO_MANY_LARGE: Explanation("Large values take memory, and so many are under way.", _LATER),
    codes.DISK_FULL: Explanation(
        "The coordinator's disk, or its map, is full.",
        "Free some of it, delete namespaces and `kvnet compact`; writes go on by themselves.",
    ),
    codes.DISK_BEHIND: Explanation("The coordinator's disk syncs more slowly than writes come.", _LATER),
    codes.NOT_WRITING: Explanation(
        "The coordinator is starting or stopping, its disk failed, or it refuses because others are ahead of it.",
        "The text says which, operations.md what to do. After a failed disk the write may have been made.",
    ),
    MONITOR_ROUTE: Explanation("The monitor has no data and no such path.", "Ask a PoP or the coordinator."),
    MONITOR_MARK: Explanation(
        "The monitor doesn't know this mark, as after its restart.", "Set it again, and measure from there."
    ),
    TOKEN_AMBIGUOUS: Explanation("Several tokens have this name.", "Name the id: `kvnet token list` shows them."),
    NO_ANSWER: Explanation(
        "The client's own words: no edge, or not the node it needs, could be reached.",
        "`kvnet ps` shows what runs; `kvnet up` starts it.",
    ),
    NOT_AN_ANSWER: Explanation(
        "The client's own words: another program answers at that address, or a proxy in front of it.",
        "Look at the URL: a node's has no path, or `/client/v4`.",
    ),
    CHANGED_MEANWHILE: Explanation(
        "A value changed during each of several reads, or a node that is being filled was to be compacted.",
        "Try again.",
    ),
    METHOD_OF_NODES: Explanation(_SENT, "Use the `kvnet` command for it."),
    FOUND_BEFORE: Explanation(
        "What a verification had found was overtaken by writes.", "Run `kvnet verify` again."
    ),
    UNDER_WAY: Explanation("The node does this once at a time.", "Wait for the first, or take another node."),
    NODE_TASK_FAILED: Explanation(
        "What was asked of the node failed there.", "The text and `kvnet logs` say why."
    ),
    NODE_TASK_UNREADY: Explanation("The node can't do this at present.", "Take another node, or wait."),
    NODE_TASK_ROOM: Explanation("A copy needs as much room as what is copied.", "Free some of the node's disk."),
}
"""By problem. Two problems that look the same are one."""


def explanations_of(code: int) -> list[tuple[Problem, Explanation]]:
    """Return every problem with this code, in the order of the table."""
    return [(problem, told) for problem, told in EXPLANATIONS.items() if problem.code == code]
