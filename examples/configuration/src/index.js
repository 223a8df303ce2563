// Configuration at the edge: devices that are banned, and features that are on for a share of the others.

const DEVICE = /^[\w-]{1,64}$/;

export default {
  async fetch(request, env) {
    const device = request.headers.get("X-Device-Id") ?? "";
    if (!DEVICE.test(device)) return new Response("X-Device-Id is missing\n", { status: 400 });
    const banned = `banned:${device}`;
    const found = await env.CONFIG.get([banned, "flags"], "json"); // one question for both
    const ban = found.get(banned);
    if (ban) return Response.json({ banned: ban.why }, { status: 403 });
    const flags = found.get("flags") ?? {};
    const on = Object.keys(flags).filter((flag) => share(`${flag}:${device}`) < flags[flag]);
    return Response.json({ flags: on.sort() });
  },
};

// The same device gets the same answer at every PoP, whatever is on for others: FNV-1a, as a number from 0 to 1.
const share = (text) => {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash / 2 ** 32;
};
