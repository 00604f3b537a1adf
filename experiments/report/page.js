"use strict";
(async () => {
  // The plotting library and the plots are compressed within the page.
  async function unpack(id) {
    const text = document.getElementById(id).textContent;
    const bytes = Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }
  const { plots, systems, config } = JSON.parse(await unpack("data"));
  const script = document.createElement("script");
  script.textContent = await unpack("library");
  document.head.append(script);

  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const hidden = () => new Set(all("#filters input:not(:checked)").map((box) => box.value));

  function filter() {
    const off = hidden();
    for (const element of all("[data-name]")) element.hidden = off.has(element.dataset.name);
    for (const { tHead, tBodies } of all("main table")) {
      const columns = [...tHead.rows[0].cells].map((cell) => off.has(cell.textContent));
      for (const row of [tHead.rows[0], ...tBodies[0].rows]) {
        [...row.cells].forEach((cell, k) => { cell.hidden = columns[k]; });
      }
      for (const row of tBodies[0].rows) {
        const names = [...row.cells].flatMap((cell) => cell.textContent.split(/ minus | over /));
        row.hidden = names.some((name) => off.has(systems[name] ?? name));
      }
    }
  }

  // A plot without the systems that are filtered out.
  function visible(plot, off) {
    return { ...plot, data: { values: plot.data.values.filter(({ system }) => !off.has(system)) } };
  }

  const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const actions = { export: true, source: false, compiled: false, editor: false };
  const options = { config, tooltip: { theme }, renderer: "svg", actions };
  let round = 0;
  async function draw() {
    const mine = ++round;
    const off = hidden();
    for (const element of all(".chart")) {
      if (mine !== round) return; // a later drawing has begun
      if (!element.clientWidth) continue;
      const view = visible(plots[Number(element.dataset.chart)], off);
      if (view.data.values.length) await vegaEmbed(element, view, options);
      else element.replaceChildren("Nothing to show with these filters.");
      await new Promise((resolve) => setTimeout(resolve)); // clicks and scrolling go first
    }
    document.body.dataset.drawn = round;
  }

  document.getElementById("filters").addEventListener("change", () => { filter(); draw(); });
  draw();
})();
