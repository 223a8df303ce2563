from __future__ import annotations

import pytest

from kvnet.workers.modules import read_code

EXPORT = "export default {}\n"


def names(code):
    return {module.name: module.kind for module in code.modules}


def test_whatever_is_imported_by_its_path_comes_along(write):
    main = write(
        "src/app.js",
        """
        import { a } from "./lib/a.js";
        import{b}from'./lib/b.mjs';import "./side.js";
        import data from "./data.json" with { type: "json" };
        import page, * as more from "./page.html";
        import query from "./q.sql";
        import wasm from "./x.wasm?module";
        import bytes from "./x.bin";
        import old from "./old.cjs";
        export * from "./lib/c.js";
        const later = () => import("./later.js");
        """
        + EXPORT,
    )
    for name in ("lib/a.js", "lib/b.mjs", "side.js", "data.json", "page.html", "q.sql", "x.wasm", "x.bin"):
        write(f"src/{name}", EXPORT)
    write("src/old.cjs", 'const x = require("./older.cjs");')
    write("src/older.cjs")
    write("src/lib/c.js", 'export { t } from "../t.txt.js"; import t from "./t.txt"')
    for name in ("later.js", "t.txt.js", "lib/t.txt", "unrelated.js", "app.test.js"):
        write(f"src/{name}")
    code = read_code(main)
    assert code.modules[0].name == "app.js"
    assert names(code) == {
        "app.js": "esModule",
        "lib/a.js": "esModule",
        "lib/b.mjs": "esModule",
        "side.js": "esModule",
        "data.json": "json",
        "page.html": "text",
        "q.sql": "text",
        "x.wasm?module": "wasm",
        "x.bin": "data",
        "old.cjs": "commonJsModule",
        "older.cjs": "commonJsModule",
        "lib/c.js": "esModule",
        "t.txt.js": "esModule",
        "lib/t.txt": "text",
        "later.js": "esModule",
    }
    assert code.bundling is None
    assert all(module.path.is_absolute() for module in code.modules)


def test_modules_outside_the_mains_folder_share_one_above_it(write):
    main = write("workers/app/index.js", f'import "../../common/x.js";\n{EXPORT}')
    write("common/x.js", 'import "./index.js"')
    write("common/index.js")
    code = read_code(main)
    assert list(names(code)) == ["workers/app/index.js", "common/x.js", "common/index.js"]


def test_modules_that_import_each_other_come_once(write):
    main = write("a.js", f'import "./b.js";\n{EXPORT}')
    write("b.js", 'import "./a.js"; import "./b.js";')
    assert list(names(read_code(main))) == ["a.js", "b.js"]


@pytest.mark.parametrize(
    "imported", ["hono", "@scope/x", "#internal", "https://esm.sh/x", "./util", "./folder", "./types.ts"]
)
def test_what_only_a_bundler_finds_is_told(write, imported):
    write("util.js")
    write("folder/index.js")
    write("types.ts")
    main = write("a.js", f'import x from "{imported}";\n{EXPORT}')
    bundling = read_code(main).bundling
    assert bundling == f"a.js imports {imported!r}"


@pytest.mark.parametrize("imported", ["node:buffer", "cloudflare:workers", "workerd:unsafe"])
def test_what_the_runtime_has_built_in_needs_no_bundler(write, imported):
    assert read_code(write("a.js", f'import x from "{imported}";\n{EXPORT}')).bundling is None


def test_nodes_modules_are_built_in_once_they_are_asked_for(write):
    main = write("a.js", f'import {{ Buffer }} from "buffer";\n{EXPORT}')
    assert read_code(main).bundling
    assert read_code(main, ["nodejs_compat"]).bundling is None


@pytest.mark.parametrize(
    "text",
    [
        '// import x from "zod"\n',
        ' * import x from "zod"\n',
        'const text = "import x from";\nconst y = "zod";\n',
        'export const from = "zod";\n',
        'export default "zod";\n',
        'exports.from = "zod";\n',
    ],
)
def test_what_only_looks_like_an_import_is_none(write, text):
    assert read_code(write("a.js", text)).bundling is None


def test_a_file_that_is_missing_is_remembered(write, tmp_path):
    code = read_code(write("a.js", f'import "./soon.js";\n{EXPORT}'))
    assert code.missing == [tmp_path / "soon.js"]
    assert code.bundling is None


def test_the_older_form_of_a_worker_is_noticed(write):
    listener = 'addEventListener("fetch", (event) => event.respondWith(new Response("x")));\n'
    assert read_code(write("a.js", listener)).listens
    assert not read_code(write("b.js", listener + EXPORT)).listens
    assert not read_code(write("c.js", "const x = 1;")).listens
