// Answers with one value of the namespace it is bound to: the Worker that bench.workers measures.
export default {
  async fetch(request, env) {
    return new Response(await env.KV.get("hot"));
  },
};
