// The server's page: the form, and the view of the index's kind.
import { $, ask, counted, say } from "./common.js";

let view; // texts.js or pages.js
let waiting = false; // a search before the view is there
let latest = 0;

// The body of a search.
function body(query) {
  const where = $("where").value.trim();
  const group = $("group").value.trim();
  const asked = { query, ...view.options(), ...(group && { group_by: group }) };
  if (!where) return asked;
  try {
    return { ...asked, where: JSON.parse(where) };
  } catch {
    throw new Error("The filter must be JSON, such as {\"year\": {\"$gte\": 2000}}.");
  }
}

async function search(event) {
  event?.preventDefault();
  const query = $("query").value.trim();
  waiting = !view;
  if (!query || !view) return;
  const turn = ++latest;
  say("Searching …");
  try {
    const asked = body(query);
    const answer = await ask("search", asked);
    if (turn !== latest) return; // a newer search was started
    history.replaceState(null, "", "?" + new URLSearchParams({ q: query }) + location.hash);
    clear();
    const { seconds, results: [hits] } = answer;
    say(hits.length ? `Found in ${seconds < 1 ? `${Math.ceil(1e3 * seconds)} ms` : `${seconds.toFixed(1)} s`}` : asked.where ? "No results with this filter." : "No results.");
    await view.show(asked, hits, () => turn === latest);
  } catch (error) {
    if (turn !== latest) return;
    clear();
    say(error.message, true);
  }
}

function clear() {
  for (const id of ["hits", "asked"]) $(id).replaceChildren();
  $("hint").textContent = "";
  $("next").hidden = true;
  view.clear();
}

$("form").addEventListener("submit", search);
$("next").addEventListener("click", () => view.next().catch((error) => say(error.message, true)));
const given = new URLSearchParams(location.search).get("q");
if (given) $("query").value = given;
ask("info").then(async (info) => {
  view = await import(info.kind === "pages" ? "./pages.js" : "./texts.js");
  const noun = info.kind === "pages" ? "page" : "document";
  if (info.name) document.title = $("name").textContent = info.name;
  $("about").textContent = counted(info.documents, noun) + (info.text_encoder ? `, encoded by ${info.text_encoder}` : "; no encoder: search by vectors through the API");
  $("recall").textContent = info.measured_recall?.sentence ?? "";
  if (!info.text_encoder) for (const part of $("form").elements) part.disabled = true;
  else if (given || waiting) search();
}).catch((error) => say(error.message, true));
