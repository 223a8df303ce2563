from __future__ import annotations

import json
import os

import pytest

ID = "0123456789abcdef0123456789abcdef"
PREVIEW = "fedcba9876543210fedcba9876543210"


@pytest.fixture
def titles(network):
    """Return the account's namespaces, titles by id."""

    def titles() -> dict[str, str]:
        return {each["id"]: each["title"] for each in json.loads(network.kvnet("namespace", "list", "--json"))}

    return titles


def test_a_wrangler_project_runs_from_its_own_folder(dev, write, titles):
    write(
        "wrangler.jsonc",
        f"""{{
          // as `wrangler init` writes it
          "name": "project",
          "main": "src/index.js",
          "compatibility_date": "2026-11-01",
          "compatibility_flags": ["nodejs_compat"],
          "kv_namespaces": [
            {{ "binding": "TEXTS", "id": "{ID}", "preview_id": "{PREVIEW}" }},
            {{ "binding": "HITS" }},
          ],
          "vars": {{ "GREETING": "hi \\"there\\"", "LIMITS": {{ "most": 5 }} }},
          "d1_databases": [{{ "binding": "DB" }}],
        }}""",
    )
    write(".dev.vars", "SECRET='s3cret'\n")
    write(
        "src/index.js",
        """
        import { Buffer } from "node:buffer";
        export default {
          async fetch(request, env) {
            await env.TEXTS.put("a", "1", { metadata: { by: "ada" } });
            return Response.json({
              greeting: env.GREETING, limits: env.LIMITS, secret: env.SECRET, db: env.DB ?? null,
              hits: await env.HITS.get("none"), text: Buffer.from("x").toString("hex"),
            });
          },
        };
        """,
    )
    worker = dev().ready()
    assert worker.told["name"] == "project"
    for code in worker.codes:  # each of them knows the new namespaces already
        assert worker.ask("/", at=code).json == {
            "greeting": 'hi "there"',
            "limits": {"most": 5},
            "secret": "s3cret",
            "db": None,
            "hits": None,
            "text": "78",
        }
    assert "d1_databases" in worker.heard()
    found = titles()
    assert found[ID] == "TEXTS"
    assert "HITS" in found.values()
    assert PREVIEW not in found
    worker.close()

    dev("--preview").ready()
    assert titles()[PREVIEW] == f"TEXTS {PREVIEW}"


def test_typescript_is_bundled_by_the_projects_own_wrangler(dev, node, packages, write, tmp_path):
    (tmp_path / "node_modules").symlink_to(packages)
    write("wrangler.toml", 'name = "typed"\nmain = "src/index.ts"\ncompatibility_date = "2026-11-01"\n')
    write("src/text.txt", "text")
    write(
        "src/index.ts",
        """
        import { greet } from "./greet";
        import text from "./text.txt";
        export default {
          async fetch(request: Request): Promise<Response> { return new Response(greet(text as string)); },
        } satisfies ExportedHandler;
        """,
    )
    greet = "export const greet = (name: string): string => `%s ${name}`;"
    write("src/greet.ts", greet % "hello")
    path = f"{node.program.parent}{os.pathsep}{os.environ['PATH']}"
    worker = dev(PATH=path, HOME=str(tmp_path), KVNET_WORKERD="").ready()  # the project's own workerd too
    assert worker.ask("/").text == "hello text"
    write("src/greet.ts", greet % "hi")
    worker.until_answer("hi text")
    write("src/greet.ts", "export const greet = ;")
    worker.until_heard("the Worker from before goes on")
    assert "greet.ts:1" in worker.heard()
    assert worker.ask("/").text == "hi text"


def test_typescript_without_wrangler_names_the_command_that_installs_it(dev, write):
    worker = dev(write("app.ts", "export default {} satisfies object;"))
    assert worker.ended() == 2
    assert "app.ts is not plain JavaScript" in worker.heard()
    assert "`npm install --save-dev wrangler`" in worker.heard()
