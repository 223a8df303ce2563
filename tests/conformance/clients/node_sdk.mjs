// Carries out calls of the official npm SDK: one JSON object a line on stdin, one answer a line on stdout.
//
// Operations and arguments have the Python SDK's names. The client reads its address and its token from the
// variables that each call names, as a user's program would.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// The packages are in the environment that the tests name, not beside this file.
const require = createRequire(process.env.KVNET_CLIENTS + "/package.json");
const Cloudflare = require("cloudflare");

const TIMEOUT_MS = 30_000;
const clients = new Map();

function client(variables) {
  const key = JSON.stringify(variables);
  if (!clients.has(key)) {
    Object.assign(process.env, variables);
    clients.set(key, new Cloudflare({ timeout: TIMEOUT_MS }));
  }
  return clients.get(key);
}

const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

async function argument(name, value) {
  if (value?.base64 === undefined) return value;
  return Cloudflare.toFile(Buffer.from(value.base64, "base64"), "value");
}

async function carryOut({ variables, operation, arguments: given, max_retries: maxRetries }) {
  const namespaces = client(variables).kv.namespaces;
  const path = operation.split(".").map(camel);
  const target = path.length === 2 ? namespaces[path[0]] : namespaces;
  const { key_name, with_metadata, ...params } = given;
  const positional = [];
  if (key_name !== undefined) {
    positional.push(key_name);
  } else if (params.namespace_id !== undefined) {
    positional.push(params.namespace_id);
    delete params.namespace_id;
  }
  if (with_metadata !== undefined) params.withMetadata = with_metadata;
  for (const name of Object.keys(params)) params[name] = await argument(name, params[name]);
  const promise = target[path.at(-1)](...positional, params, { maxRetries });
  return path.at(-1) === "list" ? everyPage(promise) : plain(await promise);
}

async function everyPage(pages) {
  const items = [];
  for await (const item of pages) items.push(item);
  return items;
}

async function plain(result) {
  if (!(result instanceof Response)) return result ?? null;
  const body = Buffer.from(await result.arrayBuffer());
  return { base64: body.toString("base64"), headers: Object.fromEntries(result.headers) };
}

async function answer(call) {
  try {
    return { result: await carryOut(call) };
  } catch (error) {
    if (error.status !== undefined) {
      return { error: { status: error.status, codes: error.errors.map((problem) => problem.code) } };
    }
    return { error: { kind: error.constructor.name, text: String(error) } };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
