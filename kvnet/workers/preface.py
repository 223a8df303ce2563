"""The preface: a few lines of JavaScript before each Worker, which say where it runs and what it threw.

`request.cf` becomes the PoP's place, overlaid with what the client sent in the header `KV-Cf`; the colo is always
the PoP's own. What the Worker throws is logged and answered as text; what it logs says at which PoP.
"""

from __future__ import annotations

import json
from typing import Any, Final

from kvnet.topology.geography import Located

CF_HEADER: Final = "KV-Cf"
"""Request header with JSON for `request.cf`; the runtime takes it away."""
PREFACE: Final = "kvnet-preface.js"
PLACE: Final = "kvnet-place.json"

_COMMON: Final = """\
for (const level of ["debug", "info", "log", "warn", "error"]) {
  const log = console[level].bind(console);
  const mark = `[${place.colo.toLowerCase()}]`;
  console[level] = (first, ...rest) =>
    typeof first === "string" ? log(`${mark} ${first}`, ...rest) : log(mark, first, ...rest);
}
const answered = async (request, ask) => {
  let cf;
  try {
    cf = { ...place, ...request.cf, colo: place.colo };
  } catch {
    return new Response("the header KV-Cf must hold a JSON object\\n", { status: 400 });
  }
  try {
    return await ask(new Request(request, { cf }));
  } catch (error) {
    const told = String(error?.stack ?? error);
    console.error("%s", told);
    return new Response(`${told}\\n`, { status: 500, headers: { "Content-Type": "text/plain;charset=utf-8" } });
  }
};
"""

_MODULE: Final = """\
import place from "./kvnet-place.json";
import * as worker from %(main)s;
export * from %(main)s;

%(common)s
const own = worker.default;
if (own === undefined) throw new Error(%(no_default)s);
let wrapped;
if (typeof own === "function") {
  wrapped = class extends own {
    fetch(request) { return answered(request, (placed) => super.fetch(placed)); }
  };
} else {
  wrapped = Object.create(own);
  if (typeof own.fetch === "function") {
    const value = (request, env, context) => answered(request, (placed) => own.fetch(placed, env, context));
    Object.defineProperty(wrapped, "fetch", { value });
  }
}
export default wrapped;
"""

_SERVICE: Final = """\
import place from "./kvnet-place.json";

%(common)s
export default {
  fetch(request, env) { return answered(request, (placed) => env.WORKER.fetch(placed)); },
};
"""


def module_preface(main: str) -> str:
    """Return the preface of a Worker whose main module is called so; it runs in the same isolate."""
    hint = f"{main} has no default export: write `export default {{ fetch(request, env) {{ … }} }}`"
    return _MODULE % {"main": json.dumps(f"./{main}"), "no_default": json.dumps(hint), "common": _COMMON}


def service_preface() -> str:
    """Return the preface of a Worker that adds event listeners: a Worker of its own, with that one as `WORKER`."""
    return _SERVICE % {"common": _COMMON}


def place_of(pop: Located) -> dict[str, Any]:
    """Return `request.cf` as a client in this PoP's city has it, as far as a PoP tells."""
    lat, lon = pop.place
    return {
        "colo": pop.code.upper(),
        "country": pop.country,
        "city": pop.city,
        "latitude": f"{lat:.5f}",
        "longitude": f"{lon:.5f}",
    }
