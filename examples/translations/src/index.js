// Dynamic data in a static page: each country reads it in its own words, which change without a deployment.

const PAGE = `<!doctype html>
<html lang="en">
  <title>Tea</title>
  <h1 data-text="greeting">Welcome</h1>
  <p data-text="offer">Today: green tea, half price.</p>
</html>
`;

const TEXTS = ["language", "greeting", "offer"];

export default {
  async fetch(request, env) {
    const country = new URL(request.url).searchParams.get("country") ?? request.cf?.country ?? "US";
    // One question for all texts; what isn't translated stays as the page has it.
    const found = await env.TRANSLATIONS.get(TEXTS.map((text) => `${country}:${text}`));
    const texts = Object.fromEntries(TEXTS.map((text) => [text, found.get(`${country}:${text}`)]));
    return new HTMLRewriter()
      .on("html", {
        element(element) {
          if (texts.language) element.setAttribute("lang", texts.language);
        },
      })
      .on("[data-text]", {
        element(element) {
          const text = texts[element.getAttribute("data-text")];
          if (text) element.setInnerContent(text);
        },
      })
      .transform(new Response(PAGE, { headers: { "Content-Type": "text/html;charset=utf-8" } }));
  },
};
