// Answers without reading anything: what workerd itself costs.
export default {
  async fetch() {
    return new Response("v".repeat(100));
  },
};
