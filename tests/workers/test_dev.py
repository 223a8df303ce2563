from __future__ import annotations

import os
import signal
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import pytest

from tests.support.network import kvnet
from tests.workers.dev import alive, children_of

PLACE = """
export default {
  fetch(request) { return Response.json(request.cf); },
};
"""
STORE = """
export default {
  async fetch(request, env) {
    const key = new URL(request.url).pathname.slice(1);
    if (request.method === "PUT") await env.KV.put(key, request.body);
    return new Response(await env.KV.get(key) ?? "nothing");
  },
};
"""
HELLO = "export default { fetch() { return new Response('%s'); } };\n"


def test_each_pop_has_a_worker_that_knows_its_place(dev, network, write):
    worker = dev(write("app.js", PLACE)).ready()
    assert worker.codes == network.pops
    for code, pop in network.folder.cluster()["pops"].items():
        place = worker.ask("/", at=code).json
        assert place == {
            "colo": code.upper(),
            "country": pop["country"],
            "city": pop["city"],
            "latitude": f"{pop['lat']:.5f}",
            "longitude": f"{pop['lon']:.5f}",
        }


def test_a_client_may_say_where_it_is_but_not_which_pop_it_reached(dev, write):
    worker = dev(write("app.js", PLACE)).ready()
    place = worker.ask("/", KV_Cf='{"city": "Osaka", "asn": 64512, "colo": "XXX"}').json
    assert (place["city"], place["asn"], place["colo"]) == ("Osaka", 64512, worker.codes[0].upper())


@pytest.mark.parametrize("sent", ["nonsense", "5", "{"])
def test_a_place_that_is_no_place_is_refused(dev, write, sent):
    refused = dev(write("app.js", PLACE)).ready().ask("/", KV_Cf=sent)
    assert refused.status == 400
    assert "KV-Cf" in refused.text


def test_what_is_written_at_one_pop_is_read_at_another(dev, write, namespace):
    worker = dev(write("app.js", STORE), "--bind", f"KV={namespace}").ready()
    here, *others = worker.codes
    assert worker.ask("/a%20b", at=here, method="PUT", body="héllo").status == 200
    for there in others:
        worker.until_answer("héllo", "/a%20b", at=there)


def test_a_binding_whose_edge_dies_answers_again_once_it_is_back(dev, network, write, namespace):
    """The connection that the runtime keeps to the edge is dead by then; the Worker is the same all along."""
    caught = STORE.replace("return new Response(await", "try { return new Response(await").replace(
        'nothing");', 'nothing"); } catch (error) { return new Response(error.message, { status: 502 }); }'
    )
    worker = dev(write("app.js", caught), "--bind", f"KV={namespace}").ready()
    here, there, *_ = worker.codes
    assert worker.ask("/k", at=here, method="PUT", body="v").status == 200
    worker.until_answer("v", "/k", at=there)
    network.kvnet("stop", there)
    lost = worker.ask("/k", at=there)
    assert (lost.status, lost.text) == (502, "Network connection lost.")
    assert worker.ask("/k", at=here).text == "v", "another PoP's Worker has its own edge"
    network.kvnet("start", there)
    worker.until_answer("v", "/k", at=there)


def test_it_runs_only_where_it_was_asked_to(dev, network, write):
    first, _, last = network.pops
    worker = dev(write("app.js", PLACE), "--at", f"{last.upper()}, {first}").ready()
    assert worker.codes == [last, first]


def test_ctrl_c_ends_it_and_takes_its_traces_away(dev, network, write):
    worker = dev(write("traces.js", PLACE)).ready()
    running = network.folder.path / "workers" / "traces" / "running.json"
    assert running.exists()
    runtimes = children_of(worker.pid)
    assert runtimes
    worker.signal(signal.SIGINT)
    assert worker.ended() == 0
    assert not any(map(alive, runtimes))
    assert not running.exists()


def test_a_request_that_hangs_does_not_keep_it_from_ending(dev, write):
    source = "export default { async fetch() { console.log('it came'); await scheduler.wait(600_000); } };"
    worker = dev(write("app.js", source)).ready()
    [runtime] = children_of(worker.pid)
    hanging = HTTPConnection(str(urlsplit(worker.url()).netloc))
    hanging.request("GET", "/")
    worker.until_heard("it came")
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    assert not alive(runtime)
    with pytest.raises(OSError, match=r"reset|closed"):
        hanging.getresponse()
    hanging.close()


def test_no_runtime_is_left_when_it_is_killed(dev, network, write):
    worker = dev(write("killed.js", PLACE)).ready()
    [runtime] = children_of(worker.pid)
    worker.signal(signal.SIGKILL)
    worker.ended()
    worker.until(lambda: not alive(runtime), "workerd has ended")
    assert (network.folder.path / "workers" / "killed" / "running.json").exists()
    again = dev(write("killed.js", PLACE)).ready()  # what a killed one has left is in nobody's way
    assert again.ask("/").status == 200


def test_when_the_runtime_ends_by_itself_so_does_the_command(dev, write):
    worker = dev(write("app.js", PLACE)).ready()
    [runtime] = children_of(worker.pid)
    os.kill(runtime, signal.SIGKILL)
    assert worker.ended() == 1
    assert "workerd killed by SIGKILL" in worker.heard()


def test_a_port_that_is_taken_is_named(dev, write):
    worker = dev(write("app.js", PLACE)).ready()
    base = urlsplit(worker.url()).port
    other = dev(write("b.js", PLACE), "--port-base", base)
    assert other.ended() == 2
    assert f"port {base} is taken" in other.heard()
    assert other.heard().count("\n") == 1


def test_a_name_is_run_once(dev, write):
    worker = dev(write("app.js", PLACE)).ready()
    other = dev(write("app.js", PLACE))
    assert other.ended() == 2
    assert f"pid {worker.pid}" in other.heard()
    assert dev(write("app.js", PLACE), "--name", "second").ready().ask("/").status == 200


def test_a_runtime_that_is_missing_names_the_command_that_installs_it(dev, write):
    worker = dev(write("app.js", PLACE), KVNET_WORKERD="", PATH="/nowhere")
    assert worker.ended() == 2
    assert worker.heard().startswith("kvnet: workerd")
    assert "`npm install --save-dev workerd`" in worker.heard()


def test_an_unknown_namespace_names_the_command_that_creates_it(dev, write):
    worker = dev(write("app.js", STORE), "--bind", "KV=no such one")
    assert worker.ended() == 1
    assert "kvnet namespace create 'no such one'" in worker.heard()


def test_a_binding_that_is_missing_is_the_workers_own_readable_error(dev, write):
    worker = dev(write("app.js", STORE)).ready()
    answer = worker.ask("/x")
    assert answer.status == 500
    assert "Cannot read properties of undefined (reading 'get')" in answer.text
    assert "app.js:6" in answer.text
    worker.until_heard(f"[{worker.codes[0]}] TypeError: Cannot read properties of undefined")


def test_what_a_worker_throws_is_answered_and_heard(dev, write):
    source = "export default { fetch() { console.log('before', 1); throw new RangeError('100% %s wrong'); } };"
    worker = dev(write("app.js", source)).ready()
    code = worker.codes[-1]
    answer = worker.ask("/", at=code)
    assert answer.status == 500
    assert answer.text.startswith("RangeError: 100% %s wrong\n    at ")
    worker.until_heard(f"[{code}] before 1\n")
    worker.until_heard(f"[{code}] RangeError: 100% %s wrong\n")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("export default {", "SyntaxError"),
        ('import "./gone.js"; export default {};', "Module not found: file:///bundle/gone.js"),
        ('import "node:fs/gone"; export default {};', "nodejs_compat"),
        ("export const x = 1;", "no default export"),
        ("undefined.x; export default {};", "TypeError"),
        ('import { Hono } from "hono"; export default {};', "npm install --save-dev wrangler"),
    ],
)
def test_a_worker_that_cannot_start_says_why_once(dev, write, source, told):
    worker = dev(write("app.js", source))
    assert worker.ended() in {1, 2}
    assert worker.heard().count(told) == 1


def test_a_change_is_taken_up(dev, write):
    worker = dev(write("app.js", HELLO % "one")).ready()
    assert worker.ask("/").text == "one"
    write("app.js", HELLO % "two")
    worker.until_heard("reloaded")
    for code in worker.codes:
        assert worker.ask("/", at=code).text == "two"
    assert len(children_of(worker.pid)) == 1


def test_a_change_that_is_no_worker_leaves_the_one_before(dev, write):
    worker = dev(write("app.js", HELLO % "one")).ready()
    write("app.js", "export default {")
    worker.until_heard("the Worker from before goes on")
    assert "SyntaxError" in worker.heard()
    assert worker.ask("/").text == "one"
    write("app.js", 'import { text } from "./text.js"; export default { fetch() { return new Response(text); } };')
    worker.until_heard("Module not found: file:///bundle/text.js")
    write("text.js", 'export const text = "three";')  # only this file has changed
    worker.until_answer("three")


def test_what_comes_during_a_reload_is_answered(dev, write):
    worker = dev(write("app.js", HELLO % "one")).ready()
    write("app.js", HELLO % "two")
    heard = []
    worker.until(lambda: heard.append(worker.ask("/").text) or heard[-1] == "two", "the change is taken up")
    assert set(heard) <= {"one", "two"}


def test_modules_of_every_kind_come_along(dev, write, tmp_path):
    write("src/lib/a.js", 'import b from "../../common/b.js"; export const a = `a${b}`;')
    write("common/b.js", 'export default "b";')
    write("src/data.json", '{"x": [1]}')
    write("src/page.html", "<p>")
    (tmp_path / "src" / "bytes.bin").write_bytes(b"\x00\xff")
    (tmp_path / "src" / "add.wasm").write_bytes(b"\x00asm\x01\x00\x00\x00")
    main = write(
        "src/app.js",
        """
        import { a } from "./lib/a.js";
        import data from "./data.json";
        import page from "./page.html";
        import bytes from "./bytes.bin";
        import wasm from "./add.wasm";
        export default {
          fetch() {
            const instance = new WebAssembly.Instance(wasm);
            return Response.json([a, data, page, [...new Uint8Array(bytes)], String(instance)]);
          },
        };
        """,
    )
    assert dev(main).ready().ask("/").json == ["ab", {"x": [1]}, "<p>", [0, 255], "[object WebAssembly.Instance]"]


@pytest.mark.parametrize(
    "worker",
    [
        "Object.freeze({ fetch(request) { return new Response(this === own); } })",
        "new (class { fetch(request) { return new Response(this === own); } })()",
    ],
)
def test_whatever_object_a_worker_is_it_stays_itself(dev, write, worker):
    assert dev(write("app.js", f"const own = {worker};\nexport default own;")).ready().ask("/").text == "true"


def test_a_class_is_a_worker_too(dev, write):
    source = """
    import { WorkerEntrypoint } from "cloudflare:workers";
    export default class extends WorkerEntrypoint {
      greeting() { return "hi"; }
      async fetch(request) { return Response.json([this.greeting(), request.cf.colo]); }
    }
    """
    worker = dev(write("app.js", source)).ready()
    assert worker.ask("/").json == ["hi", worker.codes[0].upper()]


def test_the_older_form_of_a_worker_runs(dev, write, namespace):
    source = """
    addEventListener("fetch", (event) => event.respondWith(answer(event.request)));
    async function answer(request) {
      if (request.method === "POST") throw new TypeError("not so");
      await KV.put("k", "v");
      return Response.json([await KV.get("k") !== undefined, request.cf.colo]);
    }
    """
    worker = dev(write("app.js", source), "--bind", f"KV={namespace}").ready()
    assert worker.ask("/").json == [True, worker.codes[0].upper()]
    assert worker.ask("/", method="POST").text.startswith("TypeError: not so")


def test_a_worker_may_fetch_from_other_services_on_this_host(dev, write):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"from outside")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/"
            worker = dev(write("app.js", f'export default {{ fetch() {{ return fetch("{url}"); }} }};')).ready()
            assert worker.ask("/").text == "from outside"
        finally:
            server.shutdown()


def test_the_token_of_a_variable_takes_the_place_of_the_networks(dev, network, write, namespace):
    cluster = network.folder.cluster()
    worker = dev(
        write("app.js", STORE), "--bind", f"KV={namespace}", "--token-env", "MINE", MINE=cluster["tokens"]["read"]
    ).ready()
    assert worker.ask("/x").text == "nothing"
    refused = worker.ask("/x", method="PUT", body="v")
    assert refused.status == 500
    assert "KV PUT failed: 403" in refused.text
    missing = dev(write("b.js", STORE), "--token-env", "NOT_SET")
    assert missing.ended() == 2
    assert "NOT_SET" in missing.heard()


def test_the_configuration_is_printed_or_written_for_its_owner_alone(network, workerd, write, tmp_path, namespace):
    arguments = ("workers", "config", write("app.js", STORE), "--bind", f"KV={namespace}", "--workerd", workerd)
    printed = network.kvnet(*arguments)
    token = network.folder.cluster()["tokens"]["write"]
    assert printed.count(f"Bearer {token}") == 3
    out = tmp_path / "config.capnp"
    assert network.kvnet(*arguments, "--output", out) == ""
    assert out.read_text() == printed
    assert out.stat().st_mode & 0o777 == 0o600


def test_without_a_network_nothing_is_started(tmp_path, workerd, write):
    ended = kvnet("workers", "dev", write("app.js", PLACE), "--workerd", workerd, "--data", tmp_path / "none")
    assert ended.returncode == 2
    assert "kvnet up" in ended.stderr
    assert not (tmp_path / "none").exists()
