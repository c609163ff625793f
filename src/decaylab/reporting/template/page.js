"use strict";
// Draws each chart when it comes near the screen, and lets the legends of a figure speak to all of its panels.
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const options = {
    renderer: "svg",
    actions: false,
    tooltip: { theme: "custom" },
  };
  const views = new WeakMap(); // figure element -> promises of its views

  async function draw(element) {
    const figure = element.closest("[data-figure]");
    const promise = vegaEmbed(element, specs[element.dataset.spec], options).then((result) => result.view);
    views.set(figure, [...(views.get(figure) || []), promise]);
    try {
      const view = await promise;
      element.dataset.drawn = "yes";
      pick(figure, [view]);
    } catch (error) {
      element.textContent = "This chart could not be drawn: " + error.message;
      console.error(error);
    }
  }

  function pick(figure, only) {
    for (const legend of figure.querySelectorAll(".legend")) {
      const pressed = [...legend.querySelectorAll("button[aria-pressed=true]")].map((b) => b.dataset.value);
      for (const view of only) view.signal(legend.dataset.param, pressed).runAsync();
    }
  }

  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        near.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "600px" },
  );
  document.querySelectorAll(".chart").forEach((element) => near.observe(element));
  // Paper has no scrolling: what is printed must be drawn.
  window.addEventListener("beforeprint", () =>
    document.querySelectorAll(".chart:not([data-drawn])").forEach((element) => {
      near.unobserve(element);
      draw(element);
    }),
  );

  document.addEventListener("click", async (event) => {
    const entry = event.target.closest(".legend button");
    if (entry) {
      entry.setAttribute("aria-pressed", String(entry.getAttribute("aria-pressed") !== "true"));
      const figure = entry.closest("[data-figure]");
      pick(figure, await Promise.all(views.get(figure) || []));
      return;
    }
    const copy = event.target.closest("button.copy");
    if (copy && navigator.clipboard) {
      await navigator.clipboard.writeText(copy.dataset.copy);
      copy.textContent = "copied";
      setTimeout(() => (copy.textContent = "copy"), 1500);
    }
  });

  // A link to a claim opens what hides it.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
  };
  window.addEventListener("hashchange", reveal);
  reveal();
})();
