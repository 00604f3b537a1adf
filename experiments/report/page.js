"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const tip = document.getElementById("tip");
  const filters = document.getElementById("filters");
  const measure = document.getElementById("measure");
  const plots = [...document.querySelectorAll(".plot")].map((element) => ({
    element,
    about: data.plots[Number(element.dataset.plot)],
    caption: element.closest("figure").querySelector("figcaption"),
    drawnWidth: 0, // of the last drawing; 0 where it has to be drawn again
    points: [], // within the element: {row, left, top}
    chosen: -1,
  }));
  const HEIGHT = 290;
  const REACH = 24; // pixels between the pointer and a point that it still means

  // ---- Theme: the system's, until the reader chooses.
  const button = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const remember = (theme) => {
    try { localStorage.setItem("theme", theme); } catch { /* a file may have no storage */ }
  };
  const showTheme = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    button.textContent = isDark() ? "Light theme" : "Dark theme";
  };
  try { root.dataset.theme = localStorage.getItem("theme") || ""; } catch { /* as above */ }
  dark.addEventListener("change", showTheme);
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    showTheme();
  });
  showTheme();

  // ---- Filters
  const boxes = (name) => [...document.querySelectorAll(`input[name="${name}"]`)];
  const chosen = (name) => new Set(boxes(name).filter((box) => box.checked).map((box) => Number(box.value)));
  let systems = chosen("system");
  let collections = chosen("collection");

  function applyFilters() {
    systems = chosen("system");
    collections = chosen("collection");
    const kept = (list, set) => !list || list.split(" ").every((value) => set.has(Number(value)));
    for (const element of document.querySelectorAll("main [data-collection], main [data-system]")) {
      const { collection, system } = element.dataset;
      element.hidden = !(kept(collection, collections) && kept(system, systems));
    }
    const shown = data.rows.filter((row) => systems.has(row.system) && collections.has(row.collection)).length;
    for (const element of document.querySelectorAll(".status")) {
      element.textContent = `${shown.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} measurements shown`;
    }
    redraw();
  }

  // ---- The plotting library is compressed within the page.
  let loading = null;

  async function load() {
    const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (byte) => byte.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  function say(plot, text) {
    const line = document.createElement("p");
    line.className = "none";
    line.textContent = text;
    plot.element.replaceChildren(line);
  }

  // ---- Plots: those in sight first, then the others while the reader reads.
  let round = 0;

  async function drawAll() {
    if (!("DecompressionStream" in window)) {
      for (const plot of plots) say(plot, "This browser is too old to draw; the tables below hold all values.");
      return;
    }
    const mine = ++round;
    await (loading ??= load());
    const isInSight = ({ element }) => {
      const box = element.getBoundingClientRect();
      return box.bottom > 0 && box.top < window.innerHeight;
    };
    const [first, others] = [plots.filter(isInSight), plots.filter((plot) => !isInSight(plot))];
    for (const plot of [...first, ...others]) {
      if (mine !== round) return;
      await draw(plot);
      await new Promise((resolve) => setTimeout(resolve)); // clicks and scrolling go before
    }
  }

  function redraw() {
    hideTip();
    for (const plot of plots) plot.drawnWidth = 0;
    drawAll();
  }

  // The reader's measure where the experiment has it, else the experiment's own.
  function measureOf({ experiment }) {
    const own = data.experiments[experiment];
    const wanted = measure.value === "" ? null : Number(measure.value);
    return own.measures.includes(wanted) ? wanted : own.measure;
  }

  function pointsOf(about) {
    const points = [];
    about.rows.forEach((position, k) => {
      const row = data.rows[position];
      if (!systems.has(row.system) || !collections.has(row.collection)) return;
      const [mean, low, high] = row.measures[about.measures[k] ?? measureOf(about)] || [null, null, null];
      const [x, y] = {
        speed: [mean, row.speed], size: [mean, row.size],
        sweep: [about.values[k], mean], "sweep-speed": [about.values[k], row.speed], depth: [about.values[k], mean],
      }[about.kind];
      if (x === null || y === null) return;
      const series = data.experiments[about.experiment].series[row.series];
      points.push({
        x, y, low, high, row: position, variant: about.variants[k] ?? 0, family: data.families[row.system],
        series: series.name, color: series.color, shape: series.shape,
      });
    });
    return points;
  }

  const within = (text) => JSON.stringify(text).slice(1, -1); // for a place inside a JSON string

  async function draw(plot) {
    const { element, about } = plot;
    const width = element.clientWidth;
    if (!width || plot.drawnWidth === width) return;
    plot.drawnWidth = width;
    const turn = (plot.turn = (plot.turn || 0) + 1);
    const name = about.title || data.measures[measureOf(about)] || "";
    plot.caption.querySelector(".measure")?.replaceChildren(name);
    const caption = plot.caption.cloneNode(true);
    caption.querySelector("small")?.remove();
    element.setAttribute("aria-label", `${caption.textContent.trim()} ${element.dataset.about}`);
    plot.points = [];
    plot.chosen = -1;
    const values = pointsOf(about);
    if (!values.length) {
      say(plot, "Nothing to show with these filters.");
      return;
    }
    const text = data.drawings[about.drawing]
      .replaceAll("__quality__", () => within(name))
      .replaceAll("__parameter__", () => within(about.parameter))
      .replaceAll("__ticks__", JSON.stringify([...new Set(about.values)]));
    const drawing = { ...JSON.parse(text), width, height: HEIGHT, data: { name: "points", values } };
    drawing.autosize = { type: "fit", contains: "padding" };
    const stage = document.createElement("div");
    const { view } = await vegaEmbed(stage, drawing, {
      renderer: "svg", actions: false, tooltip: false, hover: false, defaultStyle: false,
    });
    view.finalize();
    if (turn !== plot.turn) return; // a later drawing has overtaken this one
    stage.querySelector("svg").setAttribute("aria-hidden", "true");
    element.replaceChildren(stage);
    const margin = view.padding();
    const [left, top] = [view.origin()[0] + margin.left, view.origin()[1] + margin.top];
    const [x, y] = [view.scale("x"), view.scale("y")];
    plot.points = values.map(({ row, ...point }) => ({ row, left: left + x(point.x), top: top + y(point.y) }));
    plot.points.sort((a, b) => a.left - b.left || a.top - b.top);
  }

  // ---- Details of a point: what its row in the table of measurements says.
  function showTip(plot, position) {
    hideTip();
    const point = plot.points[position];
    plot.chosen = position;
    const row = document.getElementById(`row-${point.row}`);
    const names = [...row.closest("table").tHead.rows[0].cells].map((cell) => cell.textContent);
    const cells = [...row.cells].map((cell) => cell.textContent);
    const value = (name) => cells[names.indexOf(name)] || "";
    const title = document.createElement("b");
    const system = value("system");
    const configuration = value("configuration") || system;
    title.textContent = configuration.startsWith(system) ? configuration : `${system}: ${configuration}`;
    const list = document.createElement("dl");
    names.forEach((name, k) => {
      if (["system", "configuration"].includes(name) || !cells[k] || cells[k] === "\u2013") return;
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      text.textContent = cells[k];
      list.append(term, text);
    });
    tip.replaceChildren(title, list);
    const ring = document.createElement("div");
    ring.className = "ring";
    ring.style.left = `${point.left}px`;
    ring.style.top = `${point.top}px`;
    plot.element.append(ring);
    tip.hidden = false;
    const box = plot.element.getBoundingClientRect();
    const { width, height } = tip.getBoundingClientRect();
    const [x, y] = [box.left + point.left, box.top + point.top];
    const left = x + 18 + width < window.innerWidth - 8 ? x + 18 : x - 18 - width;
    tip.style.left = `${Math.min(Math.max(8, left), Math.max(8, window.innerWidth - width - 8))}px`;
    const above = left < 8 ? y - height - 18 : y - height / 2; // beside the point, else over it
    const below = left < 8 && above < 8 ? y + 18 : above;
    tip.style.top = `${Math.min(Math.max(8, below), Math.max(8, window.innerHeight - height - 8))}px`;
  }

  function hideTip() {
    tip.hidden = true;
    for (const ring of document.querySelectorAll(".ring")) ring.remove();
  }

  function nearest(plot, event) {
    const box = plot.element.getBoundingClientRect();
    let [best, least] = [-1, REACH];
    plot.points.forEach((point, k) => {
      const distance = Math.hypot(event.clientX - box.left - point.left, event.clientY - box.top - point.top);
      if (distance < least) [best, least] = [k, distance];
    });
    return best;
  }

  for (const plot of plots) {
    const { element } = plot;
    const point = (event) => {
      const position = nearest(plot, event);
      if (position < 0) hideTip(); else if (tip.hidden || position !== plot.chosen) showTip(plot, position);
    };
    element.addEventListener("pointermove", point);
    element.addEventListener("pointerdown", point);
    element.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hideTip(); });
    element.addEventListener("blur", hideTip);
    element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hideTip();
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step || !plot.points.length) return;
      event.preventDefault();
      const count = plot.points.length;
      showTip(plot, plot.chosen < 0 ? 0 : (plot.chosen + step + count) % count);
      document.getElementById("spoken").textContent = tip.innerText;
    });
  }
  window.addEventListener("scroll", hideTip, { passive: true });
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });

  for (const box of [...boxes("system"), ...boxes("collection")]) box.addEventListener("change", applyFilters);
  for (const all of document.querySelectorAll("[data-all]")) {
    all.addEventListener("click", () => {
      for (const box of boxes(all.closest("fieldset").dataset.filter)) box.checked = all.dataset.all === "true";
      applyFilters();
    });
  }
  measure.addEventListener("change", redraw);

  // ---- Small screens begin with the results; paper has everything.
  const wide = window.matchMedia("(min-width: 56.01rem)");
  const fitFilters = () => { filters.open = wide.matches; };
  wide.addEventListener("change", fitFilters);
  fitFilters();
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("main details:not([open])")];
    for (const one of closed) one.open = true;
    if (window.vegaEmbed) for (const plot of plots) draw(plot);
  });
  window.addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
  applyFilters();
})();
