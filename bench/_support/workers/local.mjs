// Runs read.js on miniflare with a KV namespace of its own on this disk, and prints its address.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [, , packages, script, folder, value] = process.argv;
const { Miniflare, Log, LogLevel, convertV4MiniflareOptions } = createRequire(join(packages, "x.js"))("miniflare");
const options = {
  modules: true,
  script: readFileSync(script, "utf8"),
  compatibilityDate: "2026-11-01",
  kvNamespaces: ["KV"],
  kvPersist: folder,
  host: "127.0.0.1",
  port: 0,
  log: new Log(LogLevel.ERROR),
};
const miniflare = new Miniflare(convertV4MiniflareOptions?.(options) ?? options); // 5 has other names for them
const url = await miniflare.ready;
const kv = await miniflare.getKVNamespace("KV");
await kv.put("hot", value);
console.log(url.href);
process.stdin.resume();
process.stdin.on("end", async () => {
  await miniflare.dispose();
  process.exit();
});
