// An API gateway: a request passes when its token is known at this PoP.

const TOKEN_BYTES_MAX = 512; // the longest key there can be

export default {
  async fetch(request, env) {
    const [, token] = /^Bearer ([\x21-\x7e]+)$/.exec(request.headers.get("Authorization") ?? "") ?? [];
    const known = token !== undefined && token.length <= TOKEN_BYTES_MAX && !/^\.{1,2}$/.test(token);
    const user = known ? await env.TOKEN_STORE.get(token, "json") : null;
    if (user === null) {
      return new Response("unknown token\n", { status: 401, headers: { "WWW-Authenticate": "Bearer" } });
    }
    // A real gateway would now fetch from the API behind it.
    return new Response(`hello ${user.name}, from ${request.cf?.colo}\n`);
  },
};
