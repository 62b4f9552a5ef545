// Queries: words, and pictures that are picked, dropped or pasted.

import { $, el } from "./dom.js";
import { pictureOf, read, send, store, upload, uploadedPicture } from "./api.js";
import { change, current } from "./state.js";

let tell;
let loaded = false;

export function setUpSearch(info, notice) {
  tell = notice;
  const words = $("words");
  words.disabled = !info.words;
  if (!info.words && !info.pictures) words.placeholder = "Click an item to search: no backbone made these vectors";
  else if (!info.words) words.placeholder = "Drop, paste or pick a picture to search";
  else words.placeholder = info.modality === "text" ? "Search by words" : "Search by words, or drop a picture";
  $("pick").hidden = !info.pictures;
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    if (words.value.trim()) byWords(words.value.trim());
    else change({ near: "", words: "" });
  });
  $("picker").addEventListener("change", () => {
    if ($("picker").files.length) byPicture($("picker").files[0]);
    $("picker").value = "";
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files || [])].find((each) => each.type.startsWith("image/"));
    if (file) byPicture(file);
  });
  let depth = 0;
  const hasFile = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  const over = (by) => (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    depth = by === 0 ? 0 : depth + by;
    $("drop").hidden = depth <= 0;
    if (by === 0 && event.dataTransfer.files.length) byPicture(event.dataTransfer.files[0]);
  };
  addEventListener("dragenter", over(1));
  addEventListener("dragleave", over(-1));
  addEventListener("dragover", (event) => hasFile(event) && event.preventDefault());
  addEventListener("drop", over(0));
}

async function embed(what, send) {
  tell(`Searching${what}…${loaded ? "" : " The first time, the backbone is loaded."}`, false);
  try {
    const query = await send();
    loaded = true;
    tell("");
    return query;
  } catch (error) {
    tell(error.message, true);
    return null;
  }
}

/** Search by words; `again` embeds those of a link. */
export async function byWords(words, again = false) {
  const query = await embed("", () => send("queries/words", { words }));
  if (query) change({ near: `query:${query.key}`, words, item: again ? current().item : "" }, again);
  return query;
}

async function byPicture(file) {
  const query = await embed(" by the picture", () => upload("queries/picture", file));
  if (query) change({ near: `query:${query.key}`, words: "", item: "" });
}

/** Show what is searched for, above the gallery. */
export async function showQuery(state) {
  const box = $("query");
  box.hidden = true;
  if (document.activeElement !== $("words")) $("words").value = state.words;
  if (!state.near) return;
  const [kind, name] = state.near.split(":");
  const clear = el("button", { "aria-label": "End the search", title: "End the search (Esc)", onclick: () => change({ near: "", words: "" }) }, "✕");
  const what = el("div", { className: "what" });
  if (kind === "query") {
    what.textContent = state.words ? `“${state.words}”` : "Similar to your picture";
    box.replaceChildren(state.words ? "" : el("img", { alt: "", src: uploadedPicture(name) }), what, clear);
    box.hidden = false;
    return;
  }
  const item = await read(`rows/${name}`);
  if (current().near !== state.near) return;
  const label = item.values[store.label];
  what.append(label ? `Similar to ${label}` : "Similar to", el("small", {}, item.text ?? item.id));
  const details = el("button", { onclick: () => change({ item: name }) }, "Details");
  box.replaceChildren(item.text === null ? el("img", { alt: "", src: pictureOf(Number(name)) }) : "", what, details, clear);
  box.hidden = false;
}

export const hasKey = (state) => !state.key || state.key === store.key;
