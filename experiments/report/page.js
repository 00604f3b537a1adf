"use strict";
(async () => {
  // The plotting library and the plots are compressed within the page.
  async function unpack(id) {
    const text = document.getElementById(id).textContent;
    const bytes = Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }
  const { plots, systems } = JSON.parse(await unpack("data"));
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

  // Vega-Lite's field of a plot; numbers have up to four digits.
  const nominal = (field, more) => ({ field, type: "nominal", ...more });
  const quantitative = (field, more) => ({ field, type: "quantitative", ...more });
  const format = ",.4~r";
  const axis = { format, labelOverlap: "greedy", labelSeparation: 6, tickCount: 5 };

  // The points of each group that no point of equal or better quality beats in cost.
  function front(better, groupby) {
    const sort = [{ field: "x", order: "descending" }, { field: "gain", order: "descending" }];
    const window = { frame: [null, 0], sort, groupby };
    return [ // in the order of descending quality, a point is kept if it improves on the best one before it
      { calculate: better === "more" ? "datum.y" : "-datum.y", as: "gain" },
      { window: [{ op: "max", field: "gain", as: "reached" }], ...window },
      { window: [{ op: "lag", field: "reached", as: "before" }], ...window },
      { filter: "!isValid(datum.before) || datum.gain > datum.before" },
    ];
  }

  // A plot as Vega-Lite, without the systems that are filtered out.
  function specification({ quality, cost, better, points, marks }, off) {
    const scale = (key) => ({ domain: Object.keys(marks), range: Object.values(marks).map((mark) => mark[key]) });
    const line = { type: "line", strokeWidth: 1.5 };
    const band = { ...line, strokeWidth: 7, opacity: 0.16, strokeCap: "round", strokeJoin: "round" };
    const point = { type: "point", filled: true, opacity: 1, size: 100, stroke: "var(--paper)", strokeWidth: 1 };
    const tooltip = [
      nominal("name", { title: "configuration" }), quantitative("x", { title: quality, format }),
      quantitative("y", { title: cost, format }), nominal("interval", { title: "95% interval" }),
    ];
    const room = { nice: false, padding: 14 };
    const interval = "isValid(datum.low) ? format(datum.low, '.3f') + ' - ' + format(datum.high, '.3f') : ''";
    return {
      width: "container", height: 260, autosize: { type: "fit", contains: "padding" },
      data: { values: points.filter(({ system }) => !off.has(system)) },
      transform: [{ calculate: interval, as: "interval" }],
      encoding: {
        x: quantitative("x", { title: quality, scale: { ...room, zero: false }, axis }),
        y: quantitative("y", { title: cost, scale: { ...room, type: "log" }, axis }),
        color: nominal("label", { scale: scale("color") }),
      },
      layer: [
        { transform: front(better, []), mark: band, encoding: { color: { value: "var(--ink)" } } },
        { transform: front(better, ["label"]), mark: line, encoding: { detail: nominal("label") } },
        {
          transform: [{ filter: "isValid(datum.low) && isValid(datum.high)" }],
          mark: { type: "rule", opacity: 0.4 },
          encoding: { x: quantitative("low"), x2: { field: "high" } },
        },
        { mark: point, encoding: { shape: nominal("label", { scale: scale("shape") }), tooltip } },
      ],
    };
  }

  const config = {
    background: "transparent",
    font: "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif",
    view: { stroke: null },
    aria: false, // the page has one description per chart
    axis: {
      labelColor: "var(--muted)", titleColor: "var(--ink)", gridColor: "var(--rule)", tickColor: "var(--muted)",
      titleFontWeight: "normal", domain: false, titlePadding: 8, labelFontSize: 11, titleFontSize: 12, labelBound: 4,
    },
    axisX: { titleLimit: 280 },
    axisY: { titleLimit: 210 },
    legend: { disable: true },
  };
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
      const view = specification(plots[Number(element.dataset.chart)], off);
      if (view.data.values.length) await vegaEmbed(element, view, options);
      else element.replaceChildren("Nothing to show with these filters.");
      await new Promise((resolve) => setTimeout(resolve)); // clicks and scrolling go first
    }
    document.body.dataset.drawn = round;
  }

  document.getElementById("filters").addEventListener("change", () => { filter(); draw(); });
  draw();
})();
