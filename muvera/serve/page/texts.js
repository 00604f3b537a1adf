// Found texts: snippets with the words that matched.
import { $, ask, chips, isAddress, make, press, scoreParts, wordButtons } from "./common.js";

const PAGE = 10; // results that are shown at a time
const SNIPPET = 360; // characters of a longer text that are shown first

let isLatest = () => true; // whether no newer search was started
let found = []; // {hit, weak} of each result, also of those that are not shown yet
let shown = []; // {hit, explanation, weights, marks} of each result
let pressed = null; // characters of the selected query word
let asked = {}; // the body of the last search

// Results beyond the first page show how similar an average text is.
export const options = () => ({ k: 3 * PAGE, unit: $("unit").value });

export function clear() {
  found = [];
  shown = [];
  pressed = null;
}

export async function show(body, hits, latest) {
  asked = body;
  isLatest = latest;
  take(hits);
  await next();
}

// Keep all hits of an answer. A hit is weak if its score is nearer to that of the last one than to that of the best.
function take(hits) {
  const best = hits[0]?.score ?? 0;
  const last = hits.at(-1)?.score ?? 0;
  const bound = last < .85 * best ? last + .35 * (best - last) : -Infinity;
  found = hits.map((hit) => ({ hit, weak: hit.score < bound }));
}

// Show and explain more results.
export async function next() {
  const current = isLatest;
  if (found.length < shown.length + PAGE && found.length === asked.k && asked.k < 1000) {
    asked.k = Math.min(1000, 2 * asked.k);
    const answer = await ask("search", asked);
    if (!current()) return;
    take(answer.results[0]);
  }
  const added = found.slice(shown.length, shown.length + PAGE).map((one) => ({ ...one, explanation: null }));
  for (const one of added) {
    if (one.weak && !document.querySelector(".weak")) $("hits").append(make("li", { class: "weak" }, "Weaker matches"));
    $("hits").append(card(one));
    shown.push(one);
  }
  $("next").hidden = shown.length >= found.length && (found.length < asked.k || asked.k >= 1000);
  if (!added.length) return;
  let explained;
  try { explained = await ask("explain", { query: asked.query, ids: added.map((one) => one.hit.id) }); } catch { return; }
  if (!current()) return;
  added.forEach((one, i) => { one.explanation = explained.explanations[i]; one.weights = weigh(one); scale(one); });
  // One maximum for all results, so that shades are comparable.
  const most = Math.max(...shown.flatMap((one) => [...(one.weights ?? new Map()).values()]), 1e-9);
  for (const one of shown) if (one.weights) paint(one, most);
  if ($("asked").children.length) return;
  queryWords(shown[0].explanation);
  const cut = unread(shown[0].explanation);
  $("hint").textContent = [
    cut && `The model reads only a part of a long question. It left out: “${cut}”.`,
    $("asked").children.length && "Select a word to see its matches." + (document.querySelector(".best") ? " Underlined: the best sentence." : ""),
  ].filter(Boolean).join(" ");
}

// The end of the question that no token covers, at most 80 characters.
function unread({ query, matches }) {
  const rest = points(query).slice(Math.max(0, ...matches.map((match) => match.query[1]))).join("");
  return /\p{L}|\p{N}/u.test(rest) ? (rest.trim().length > 80 ? `${rest.trim().slice(0, 80)} …` : rest.trim()) : "";
}

// The server counts code points, JavaScript counts code units.
const points = (text) => Array.from(text);

function card(one) {
  const { hit } = one;
  const title = typeof hit.metadata.title === "string" && hit.metadata.title.trim() ? hit.metadata.title : null;
  const text = points(hit.text);
  // Characters of the title at the start of the text, which are shown as the title alone.
  one.head = title && !hit.span && hit.text.startsWith(`${title}\n`) ? points(title).length : 0;
  const [from, to] = [one.head, text.length];
  one.title = make("span", {}, title ?? String(hit.id));
  const heading = [isAddress(hit.id) ? make("a", { href: hit.id, rel: "noreferrer" }, one.title) : one.title];
  if (title !== null && title !== String(hit.id)) heading.push(make("span", { class: "id" }, String(hit.id)));
  const whole = text.slice(from).join("").trim();
  const start = to - from > SNIPPET ? `${whole.slice(0, SNIPPET)} …` : whole;
  one.text = make("p", { class: "text" }, start);
  one.pair = make("p", { class: "pair" });
  one.more = make("button", { type: "button", class: "more", "aria-expanded": "false" }, "More");
  one.more.hidden = to - from <= SNIPPET;
  one.more.addEventListener("click", () => {
    one.whole = !one.whole;
    one.more.textContent = one.whole ? "Less" : "More";
    one.more.setAttribute("aria-expanded", String(Boolean(one.whole)));
    if (one.explanation) paint(one, one.most);
    else one.text.textContent = one.whole ? whole : start;
  });
  const meta = chips(hit.metadata, title === null ? [] : ["title"]);
  one.score = make("span", { class: "score", title: scoreParts(hit) }, hit.score.toFixed(3));
  const header = make("h2", {}, make("span", { class: "name" }, ...heading), one.score);
  return make("li", { class: "hit" }, header, one.text, one.more, one.pair, meta);
}

// A score is a sum over the tokens of the query, so it grows with the question; per token it has a scale.
function scale({ hit, explanation, score }) {
  const tokens = explanation.matches.length;
  score.textContent = `${(hit.score / tokens).toFixed(2)} per query token`;
  score.title = `${scoreParts(hit)} = ${hit.score.toFixed(3)}, for ${tokens} query token${tokens === 1 ? "" : "s"}. Identical tokens have a similarity of 1; the other parts add to it.`;
}

// Characters of the text that a result searches.
const range = ({ hit, explanation }) => hit.span ?? [0, points(explanation.text).length];

// Characters that a result shows below its title: all, or some from its best sentence on.
function snippet(one, text, best) {
  const [from, to] = one.hit.span ?? [one.head, text.length];
  if (one.whole || to - from <= SNIPPET) return [from, to];
  const start = best && best.stop - from > SNIPPET ? Math.min(best.start, to - SNIPPET) : from;
  let stop = Math.min(to, start + SNIPPET);
  while (stop < to && stop > start + SNIPPET / 2 && /\S/.test(text[stop])) stop -= 1; // end after a word
  return [Math.max(from, start), stop];
}

// Shade of each matched word of a result: the largest weight of its matches.
function weigh(one) {
  const [from, to] = range(one);
  const weights = new Map();
  for (const match of one.explanation.matches) {
    const [a, b] = match.document;
    if (b > a && a >= from && b <= to) {
      const key = `${a},${b}`;
      weights.set(key, Math.max(weights.get(key) ?? 0, match.weight));
    }
  }
  return weights;
}

function paint(one, most) {
  const { hit, explanation } = one;
  const text = points(explanation.text);
  const best = !hit.span && explanation.sentences.length > 1
    ? explanation.sentences.reduce((a, b) => (b.score > a.score ? b : a)) : null;
  one.most = most;
  one.marks = new Map();
  if (one.head) one.title.replaceChildren(painted(one, text, 0, one.head, null));
  let [from, to] = snippet(one, text, best);
  while (from < to && /\s/.test(text[from])) from += 1;
  one.text.replaceChildren(painted(one, text, from, to, best));
  if (from > one.head + 1 && !hit.span) one.text.prepend("… ");
  if (to < text.length && !hit.span) one.text.append(" …");
  if (best) one.text.title = `Underlined: the best matching sentence (${best.score.toFixed(3)})`;
  point();
}

// Characters of a text with marks on matched words and a line under the best sentence.
function painted(one, text, from, to, best) {
  const parts = document.createDocumentFragment();
  const cut = best ? [best.start, best.stop] : [0, 0];
  let at = from;
  const plain = (start, stop) => {
    for (const [a, b, isBest] of [[start, Math.min(stop, cut[0]), false], [Math.max(start, cut[0]), Math.min(stop, cut[1]), true], [Math.max(start, cut[1]), stop, false]]) {
      if (b <= a) continue;
      const piece = text.slice(a, b).join("");
      parts.append(isBest ? make("span", { class: "best" }, piece) : piece);
    }
  };
  for (const key of [...one.weights.keys()].sort((a, b) => parseInt(a) - parseInt(b))) {
    const [a, b] = key.split(",").map(Number);
    if (a < at || b > to) continue;
    plain(at, a);
    const mark = make("mark", { class: best && a >= best.start && b <= best.stop ? "best" : "" }, text.slice(a, b).join(""));
    mark.style.setProperty("--weight", (one.weights.get(key) / one.most).toFixed(3));
    one.marks.set(key, mark);
    parts.append(mark);
    at = b;
  }
  plain(at, to);
  return parts;
}

function queryWords(explanation) {
  const query = points(explanation.query);
  const ranges = new Map(explanation.matches.map(({ query: [a, b] }) => [`${a},${b}`, [a, b]]));
  const words = [...ranges.values()].filter(([a, b]) => b > a);
  const look = (i, button) => { pressed = words[i]; press(button); point(); };
  wordButtons(words.map(([a, b]) => query.slice(a, b).join("")), look, ["mouseenter", "focus", "click"]);
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
