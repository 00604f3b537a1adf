// What the page shows of texts and of pages alike. Texts are inserted as text nodes, never as HTML.
export const $ = (id) => document.getElementById(id);

export const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

// A server with a read token is opened as /#token=TOKEN; what follows # is not sent or logged.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const headers = token ? { Authorization: `Bearer ${token}` } : {};

// Send a request, and return the response or throw the server's message.
export async function fetched(address, options = {}) {
  const response = await fetch(address, { ...options, headers: { ...headers, ...options.headers } });
  if (response.ok) return response;
  const content = await response.json().catch(() => ({}));
  throw new Error(content.detail || response.statusText);
}

export async function ask(address, body) {
  const sent = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return (await fetched(address, body ? sent : {})).json();
}

export function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

export const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export const scoreParts = ({ parts }) => Object.entries(parts ?? {}).map(([name, value]) => `${name} ${value.toFixed(3)}`).join(" + ");

export const isAddress = (value) => typeof value === "string" && /^https?:\/\/[^\s]+$/.test(value);

// Buttons for the words of the query; `look` is called with a word's position and its button.
export function wordButtons(words, look, events) {
  $("asked").replaceChildren(...words.map((word, i) => {
    const button = make("button", { type: "button", "aria-pressed": "false" }, word);
    for (const event of events) button.addEventListener(event, () => look(i, button));
    return button;
  }));
}

// Mark one button of a word as pressed, or none.
export function press(button) {
  for (const other of $("asked").children) other.setAttribute("aria-pressed", String(other === button));
}

// The fields of metadata: a link, or a button that filters by the value.
export function chips(metadata, left = []) {
  const list = make("ul", { class: "meta" });
  for (const [key, value] of Object.entries(metadata)) {
    if (value === null || value === "" || left.includes(key)) continue;
    const shown = Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : String(value);
    const label = `${key}: ${shown.length > 60 ? `${shown.slice(0, 60)} …` : shown}`;
    if (isAddress(value)) {
      list.append(make("li", {}, make("a", { href: value, rel: "noreferrer" }, label)));
      continue;
    }
    const button = make("button", { type: "button", title: `Show only ${key} = ${shown}` }, label);
    button.addEventListener("click", () => {
      if (typeof value === "object" && !Array.isArray(value)) return;
      $("where").value = JSON.stringify({ [key]: Array.isArray(value) ? value[0] : value });
      $("more").open = true;
      $("form").requestSubmit();
    });
    list.append(make("li", {}, button));
  }
  return list;
}
