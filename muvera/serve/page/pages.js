// Found pages: thumbnails with a map of what matched.
import { $, chips, fetched, make, press, scoreParts, wordButtons } from "./common.js";

const COLOR = [255, 120, 0];
const OPACITY = .65; // of a map at its maximum
const THUMBNAIL = 400, LARGE = 1200; // widths of pictures, in pixels
const COUNT = 12; // hits

let shown = []; // {hit, canvas, picture} of each result
let words = [];
let pressed = null; // position of the selected word
let large = null; // what the dialog shows

export const options = () => ({ k: COUNT });

export function clear() {
  shown = [];
  pressed = null;
}

export function show(asked, hits) {
  shown = hits.map(card);
  $("hits").replaceChildren(...shown.map((one) => one.item));
  words = (hits.find((hit) => hit.page.maps)?.page.maps.words ?? []).map(({ word }) => word);
  wordButtons(words, look, ["click"]);
  $("hint").textContent = words.length ? "Select a word to see where it matched." : "";
  for (const one of shown) load(one);
}

function card(hit) {
  const canvas = make("canvas", { width: 3, height: 4, role: "img", "aria-label": `Page ${hit.page.number} of ${hit.page.document}` });
  const facts = make("span", { class: "facts", title: scoreParts(hit) }, `page ${hit.page.number} · ${hit.score.toFixed(2)}`);
  const name = make("span", { class: "name", title: hit.page.document }, hit.page.document.split("/").at(-1));
  const button = make("button", { type: "button", class: "page" }, canvas, name, facts);
  const one = { hit, canvas, button, picture: null, item: make("li", {}, button, chips(hit.metadata)) };
  button.addEventListener("click", () => open(one));
  return one;
}

async function picture(hit, width) {
  const response = await fetched("picture?" + new URLSearchParams({ id: hit.id, width }));
  return createImageBitmap(await response.blob());
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
  const { maps } = hit.page;
  if (!maps) return;
  const [rows, columns] = maps.grid;
  const bytes = atob(maps.words[pressed]?.map ?? maps.query);
  const cells = new ImageData(columns, rows);
  for (let i = 0; i < rows * columns; i += 1) cells.data.set([...COLOR, OPACITY * bytes.charCodeAt(i)], 4 * i);
  const small = make("canvas", { width: columns, height: rows });
  small.getContext("2d").putImageData(cells, 0, 0);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  if (pressed !== null) return;
  pen.strokeStyle = `rgb(${COLOR})`;
  pen.lineWidth = Math.max(2, canvas.width / 300);
  for (const [x0, y0, x1, y1] of maps.boxes) {
    pen.strokeRect(x0 * canvas.width, y0 * canvas.height, (x1 - x0) * canvas.width, (y1 - y0) * canvas.height);
  }
}

// Show the map of a word, or of the query if the word is shown already.
function look(word, button) {
  pressed = pressed === word ? null : word;
  press(pressed === null ? null : button);
  for (const one of shown) if (one.picture) paint(one.canvas, one.picture, one.hit);
  if (large?.picture) paint($("canvas"), large.picture, large.hit);
}

async function open(one) {
  const turn = { hit: one.hit, picture: null };
  large = turn;
  $("title").textContent = `${one.hit.page.document}, page ${one.hit.page.number}`;
  $("note").textContent = !one.hit.page.maps ? "This page has no map." : pressed === null ? "Shaded: where the query matched. Boxes: the best regions." : `Shaded: where “${words[pressed]}” matched.`;
  $("large").showModal();
  if (one.picture) paint($("canvas"), one.picture, one.hit);
  try {
    turn.picture = await picture(one.hit, LARGE);
    if (large === turn) paint($("canvas"), turn.picture, turn.hit);
  } catch (error) {
    if (large === turn) $("note").textContent = error.message;
  }
}

$("hits").classList.add("pages");
$("unit").parentElement.hidden = true;
$("query").placeholder = "What do you look for?";
$("group").placeholder = "document";
$("where").placeholder = '{"document": "2024.pdf"}';
$("close").addEventListener("click", () => $("large").close());
$("large").addEventListener("close", () => { large = null; });
