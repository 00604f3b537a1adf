// The page of a page index. Texts are inserted as text nodes, never as HTML.
const $ = (id) => document.getElementById(id);
const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

// A server with a read token is opened as /#token=TOKEN; what follows # is not sent or logged.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const headers = token ? { Authorization: `Bearer ${token}` } : {};

async function answered(response) {
  if (response.ok) return response;
  const content = await response.json().catch(() => ({}));
  throw new Error(content.detail || response.statusText);
}

async function ask(address, body) {
  const options = body ? { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) } : { headers };
  return (await answered(await fetch(address, options))).json();
}

function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

const COLOR = [255, 120, 0];
const OPACITY = .65; // of a map at its maximum
const THUMBNAIL = 400, LARGE = 1200; // widths of pictures, in pixels
const COUNT = 12; // hits

let latest = 0;
let shown = []; // {hit, canvas, picture} of each result
let words = [];
let pressed = null; // position of the selected word
let large = null; // what the dialog shows

async function search(event) {
  event?.preventDefault();
  const query = $("query").value.trim();
  if (!query) return;
  const turn = ++latest;
  say("Searching …");
  try {
    const answer = await ask("search", { query, k: COUNT });
    if (turn !== latest) return; // a newer search was started
    history.replaceState(null, "", "?" + new URLSearchParams({ q: query }) + location.hash);
    pressed = null;
    words = answer.words;
    shown = answer.results.map(card);
    $("hits").replaceChildren(...shown.map((one) => one.item));
    buttons();
    say(shown.length ? `Found in ${answer.seconds < 1 ? `${Math.ceil(1e3 * answer.seconds)} ms` : `${answer.seconds.toFixed(1)} s`}` : "No pages.");
    for (const one of shown) load(one);
  } catch (error) {
    if (turn !== latest) return;
    shown = [];
    $("hits").replaceChildren();
    $("asked").replaceChildren();
    $("hint").textContent = "";
    say(error.message, true);
  }
}

function card(hit) {
  const canvas = make("canvas", { width: 3, height: 4, role: "img", "aria-label": `Page ${hit.page} of ${hit.document}` });
  const parts = Object.entries(hit.parts).map(([name, value]) => `${name} ${value.toFixed(3)}`).join(" + ");
  const facts = make("span", { class: "facts", title: parts }, `page ${hit.page} · ${hit.score.toFixed(2)}`);
  const name = make("span", { class: "name" }, hit.document.split("/").at(-1));
  name.title = hit.document;
  const button = make("button", { type: "button", class: "page" }, canvas, name, facts);
  const one = { hit, canvas, button, picture: null, item: make("li", {}, button) };
  button.addEventListener("click", () => open(one));
  return one;
}

async function picture(hit, width) {
  const response = await fetch("picture?" + new URLSearchParams({ id: hit.id, width }), { headers });
  return createImageBitmap(await (await answered(response)).blob());
}

async function load(one) {
  try {
    one.picture = await picture(one.hit, THUMBNAIL);
    paint(one.canvas, one.picture, one.hit);
  } catch (error) {
    one.canvas.replaceWith(make("p", { class: "missing" }, error.message));
  }
}

// Draw a picture, the map of the selected word or of the query, and the best regions.
function paint(canvas, picture, hit) {
  canvas.className = `w${picture.width}`;
  canvas.width = picture.width;
  canvas.height = picture.height;
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0);
  if (!hit.grid) return;
  const [rows, columns] = hit.grid;
  const bytes = atob(pressed === null ? hit.map : hit.word_maps[pressed] ?? hit.map);
  const cells = new ImageData(columns, rows);
  for (let i = 0; i < rows * columns; i += 1) cells.data.set([...COLOR, OPACITY * bytes.charCodeAt(i)], 4 * i);
  const small = make("canvas", { width: columns, height: rows });
  small.getContext("2d").putImageData(cells, 0, 0);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  if (pressed !== null) return;
  pen.strokeStyle = `rgb(${COLOR})`;
  pen.lineWidth = Math.max(2, canvas.width / 300);
  for (const [x0, y0, x1, y1] of hit.boxes) {
    pen.strokeRect(x0 * canvas.width, y0 * canvas.height, (x1 - x0) * canvas.width, (y1 - y0) * canvas.height);
  }
}

function buttons() {
  const all = shown.some((one) => one.hit.grid) ? words : [];
  $("asked").replaceChildren(...all.map((word, i) => {
    const button = make("button", { type: "button", "aria-pressed": "false" }, word);
    button.addEventListener("click", () => press(pressed === i ? null : i));
    return button;
  }));
  $("hint").textContent = all.length ? "Select a word to see where it matched." : "";
}

function press(word) {
  pressed = word;
  [...$("asked").children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === word)));
  for (const one of shown) if (one.picture) paint(one.canvas, one.picture, one.hit);
  if (large?.picture) paint($("canvas"), large.picture, large.hit);
}

async function open(one) {
  const turn = { hit: one.hit, picture: null };
  large = turn;
  $("title").textContent = `${one.hit.document}, page ${one.hit.page}`;
  $("note").textContent = !one.hit.grid ? "This page has no map." : pressed === null ? "Shaded: where the query matched. Boxes: the best regions." : `Shaded: where “${words[pressed]}” matched.`;
  $("large").showModal();
  if (one.picture) paint($("canvas"), one.picture, one.hit);
  try {
    turn.picture = await picture(one.hit, LARGE);
    if (large === turn) paint($("canvas"), turn.picture, turn.hit);
  } catch (error) {
    if (large === turn) $("note").textContent = error.message;
  }
}

$("form").addEventListener("submit", search);
$("close").addEventListener("click", () => $("large").close());
$("large").addEventListener("close", () => { large = null; });
const given = new URLSearchParams(location.search).get("q");
if (given) $("query").value = given;
ask("info").then((info) => {
  if (info.name) document.title = $("name").textContent = info.name;
  $("about").textContent = `${info.pages.toLocaleString("en")} page${info.pages === 1 ? "" : "s"}` + (info.encoder ? `, encoded by ${info.encoder}` : "; no encoder: search by vectors through the API");
  if (!info.encoder) for (const part of $("form").elements) part.disabled = true;
  else if (given) search();
}).catch((error) => say(error.message, true));
