// The server's page. Texts are inserted as text nodes, never as HTML.
const $ = (id) => document.getElementById(id);
const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

// A server with a read token is opened as /#token=TOKEN; what follows # is not sent or logged.
const token = new URLSearchParams(location.hash.slice(1)).get("token");

async function ask(address, body) {
  const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  const response = await fetch(address, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const content = await response.json();
  if (!response.ok) throw new Error(content.detail || response.statusText);
  return content;
}

function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

let latest = 0;
let shown = []; // {hit, explanation, weights, marks} of each result
let pressed = null; // characters of the selected query word

async function search(event) {
  event?.preventDefault();
  const query = $("query").value.trim();
  if (!query) return;
  const turn = ++latest;
  say("Searching …");
  try {
    const body = { query, k: Math.min(100, Math.max(1, Number($("k").value) || 10)), unit: $("unit").value };
    const where = $("where").value.trim();
    if (where) {
      try { body.where = JSON.parse(where); } catch { throw new Error("The filter must be JSON, such as {\"year\": {\"$gte\": 2000}}."); }
    }
    const answer = await ask("search", body);
    if (turn !== latest) return; // a newer search was started
    const hits = answer.results[0];
    history.replaceState(null, "", "?" + new URLSearchParams({ q: query }) + location.hash);
    say(hits.length ? `${hits.length} result${hits.length === 1 ? "" : "s"} in ${answer.seconds < 1 ? `${Math.ceil(1e3 * answer.seconds)} ms` : `${answer.seconds.toFixed(1)} s`}` : "No results.");
    pressed = null;
    forget();
    shown = hits.map((hit) => ({ hit, explanation: null }));
    $("hits").replaceChildren(...shown.map(card));
    if (!hits.length) return;
    let explained;
    try { explained = await ask("explain", { query, ids: hits.map((hit) => hit.id) }); } catch { return; }
    if (turn !== latest) return;
    shown.forEach((one, i) => { one.explanation = explained.explanations[i]; one.weights = weigh(one); });
    // One maximum for all results, so that shades are comparable.
    const most = Math.max(...shown.flatMap((one) => [...one.weights.values()]), 1e-9);
    for (const one of shown) paint(one, most);
    queryWords(shown[0].explanation);
    if ($("asked").children.length) {
      $("hint").textContent = "Select a word to see its matches." + (document.querySelector(".best") ? " Underlined: the best sentence." : "");
    }
  } catch (error) {
    if (turn !== latest) return;
    $("hits").replaceChildren();
    forget();
    say(error.message, true);
  }
}

function forget() {
  $("asked").replaceChildren();
  $("hint").textContent = "";
}

function card(one) {
  const { hit } = one;
  const title = make("h2", {}, String(hit.id), make("span", { class: "score" }, hit.score.toFixed(3)));
  one.text = make("p", { class: "text" }, hit.text);
  one.pair = make("p", { class: "pair" });
  const meta = make("ul", { class: "meta" });
  for (const [key, value] of Object.entries(hit.metadata)) {
    if (value === null) continue;
    const shownValue = Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : String(value);
    const button = make("button", { type: "button", title: `Show only ${key} = ${shownValue}` }, `${key}: ${shownValue}`);
    button.addEventListener("click", () => {
      if (typeof value === "object" && !Array.isArray(value)) return;
      $("where").value = JSON.stringify({ [key]: Array.isArray(value) ? value[0] : value });
      $("more").open = true;
      search();
    });
    meta.append(make("li", {}, button));
  }
  return make("li", { class: "hit" }, title, one.text, one.pair, meta);
}

// The server counts code points, JavaScript counts code units.
const points = (text) => Array.from(text);

// Characters of the text that a result shows.
const range = ({ hit, explanation }) => hit.span ?? [0, points(explanation.text).length];

// Sum of similarities of each matched word of a result.
function weigh(one) {
  const [from, to] = range(one);
  const weights = new Map();
  for (const match of one.explanation.matches) {
    const [a, b] = match.document;
    if (b > a && a >= from && b <= to) {
      const key = `${a},${b}`;
      weights.set(key, (weights.get(key) ?? 0) + Math.max(0, match.similarity));
    }
  }
  return weights;
}

function paint(one, most) {
  const { hit, explanation, weights } = one;
  const [from, to] = range(one);
  const text = points(explanation.text);
  const best = explanation.sentences.length > 1
    ? explanation.sentences.reduce((a, b) => (b.score > a.score ? b : a)) : null;
  one.marks = new Map();
  const parts = document.createDocumentFragment();
  let at = from;
  const plain = (start, stop) => {
    if (stop <= start) return;
    const cut = best && !hit.span ? [best.start, best.stop] : [0, 0];
    for (const [a, b, isBest] of [[start, Math.min(stop, cut[0]), false], [Math.max(start, cut[0]), Math.min(stop, cut[1]), true], [Math.max(start, cut[1]), stop, false]]) {
      if (b <= a) continue;
      const piece = text.slice(a, b).join("");
      parts.append(isBest ? make("span", { class: "best" }, piece) : piece);
    }
  };
  for (const key of [...weights.keys()].sort((a, b) => parseInt(a) - parseInt(b))) {
    const [a, b] = key.split(",").map(Number);
    plain(at, a);
    const mark = make("mark", { class: best && !hit.span && a >= best.start && b <= best.stop ? "best" : "" }, text.slice(a, b).join(""));
    mark.style.setProperty("--weight", (weights.get(key) / most).toFixed(3));
    one.marks.set(key, mark);
    parts.append(mark);
    at = b;
  }
  plain(at, to);
  one.text.replaceChildren(parts);
  if (best && !hit.span) one.text.title = `Underlined: the best matching sentence (${best.score.toFixed(3)})`;
  point();
}

function queryWords(explanation) {
  const query = points(explanation.query);
  const seen = new Set();
  for (const { query: [a, b] } of explanation.matches) {
    if (b <= a || seen.has(`${a},${b}`)) continue;
    seen.add(`${a},${b}`);
    const button = make("button", { type: "button", "aria-pressed": "false" }, query.slice(a, b).join(""));
    const look = () => { pressed = [a, b]; press(button); };
    button.addEventListener("mouseenter", look);
    button.addEventListener("focus", look);
    button.addEventListener("click", look);
    $("asked").append(button);
  }
}

function press(button) {
  for (const other of $("asked").children) other.setAttribute("aria-pressed", String(other === button));
  point();
}

// Mark the match of the selected query word in each result, and show its similarity.
function point() {
  for (const one of shown) {
    if (!one.marks) continue;
    for (const mark of one.marks.values()) mark.classList.remove("partner");
    one.pair.textContent = "";
    if (!pressed) continue;
    const own = one.explanation.matches.filter(({ query: [a, b] }) => a === pressed[0] && b === pressed[1]);
    const words = [];
    for (const match of own) {
      one.marks.get(match.document.join(","))?.classList.add("partner");
      const [a, b] = match.document;
      words.push(`${b > a ? points(one.explanation.text).slice(a, b).join("") : "(no word)"} ${match.similarity.toFixed(3)}`);
    }
    one.pair.textContent = words.length ? `${points(one.explanation.query).slice(...pressed).join("")} → ${[...new Set(words)].join(", ")}` : "";
  }
}

$("form").addEventListener("submit", search);
const given = new URLSearchParams(location.search).get("q");
if (given) $("query").value = given;
ask("info").then((info) => {
  const texts = info.text_encoder !== null;
  $("about").textContent = `${info.documents.toLocaleString("en")} documents` + (texts ? `, encoded by ${info.text_encoder}` : "; no texts: search by vectors through the API");
  if (!texts) for (const part of $("form").elements) part.disabled = true;
  else if (given) search();
}).catch((error) => say(error.message, true));
