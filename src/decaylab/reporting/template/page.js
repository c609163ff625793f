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
    element.dataset.begun = "yes";
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
  // Charts that nobody has scrolled to yet are drawn when there is nothing else to do, so that printing finds them.
  const idle = window.requestIdleCallback || ((action) => setTimeout(action, 200));
  const rest = () => {
    const element = document.querySelector(".chart:not([data-drawn]):not([data-begun])");
    if (!element) return;
    near.unobserve(element);
    draw(element);
    idle(rest);
  };
  window.addEventListener("load", () => idle(rest));
  const opened = [];
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll(".chart:not([data-begun])").forEach((element) => {
      near.unobserve(element);
      draw(element);
    });
    // Nor can it be clicked on: the rules and the seeds of the claims are printed, the long tables of settings are not.
    document.querySelectorAll("details.evidence:not([open])").forEach((element) => {
      element.open = true;
      opened.push(element);
    });
  });
  window.addEventListener("afterprint", () => {
    for (const element of opened.splice(0)) element.open = false;
  });

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
