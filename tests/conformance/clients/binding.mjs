// Makes one call of the KV binding that a request names, and tells what it returned or threw.

const from = (argument) => {
  if (Array.isArray(argument)) return argument.map(from);
  if (argument === null || typeof argument !== "object") return argument;
  if ("$undefined" in argument) return undefined;
  if ("$number" in argument) return Number(argument.$number);
  if ("$buffer" in argument) return bytes(argument.$buffer).buffer;
  if ("$view" in argument) return bytes(`ff${argument.$view}ff`).subarray(1, argument.$view.length / 2 + 1);
  if ("$zeros" in argument) return new ArrayBuffer(argument.$zeros);
  if ("$stream" in argument) return stream(argument.$stream, argument.length);
  return Object.fromEntries(Object.entries(argument).map(([name, value]) => [name, from(value)]));
};

const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

const stream = (parts, length) => {
  const { readable, writable } = length === undefined ? new TransformStream() : new FixedLengthStream(length);
  const writer = writable.getWriter();
  (async () => {
    for (const part of parts) await writer.write(bytes(part));
    await writer.close();
  })().catch(() => {});
  return readable;
};

const told = async (result) => {
  if (result === undefined) return { $undefined: true };
  if (result instanceof ArrayBuffer) {
    return result.byteLength > 1_000_000 ? { $length: result.byteLength } : { $buffer: hex(result) };
  }
  if (result instanceof ReadableStream) return { $stream: hex(await new Response(result).arrayBuffer()) };
  if (result instanceof Map) {
    return { $map: await Promise.all([...result].map(async ([key, value]) => [key, await told(value)])) };
  }
  if (result !== null && typeof result === "object" && "value" in result) {
    return { ...result, value: await told(result.value) };
  }
  return result;
};

export default {
  async fetch(request, env) {
    const { call, given } = await request.json();
    try {
      return Response.json({ result: await told(await env.KV[call](...given.map(from))) });
    } catch (error) {
      return Response.json({ error: { name: error.name, message: error.message } });
    }
  },
};
