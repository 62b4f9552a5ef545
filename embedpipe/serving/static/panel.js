// The panel of one item: its picture or whole text, and all that is known of it.

import { $, el } from "./dom.js";
import { pictureOf, read, store } from "./api.js";
import { change, current } from "./state.js";

const HIDDEN = ["text", "content_hash", "source_modified", "picture_counts", "set_by_hand"];
const FIRST = ["label", "split", "excluded", "prediction", "confidence", "fitted_on"];
let shown = null;
let editing = null;

/** Let items be edited: `classes()` are the labels with a key, `set(row, value)` and `exclude(row)` are called. */
export const editLabels = (options) => (editing = options);

/** Show an item; null closes the panel. */
export async function showItem(row, known = null) {
  const panel = $("item");
  shown = row;
  if (row === null) {
    panel.hidden = true;
    return;
  }
  const item = known ?? (await read(`rows/${row}`));
  if (shown !== row) return;
  panel.item = item;
  panel.replaceChildren(...contents(item).filter(Boolean));
  panel.hidden = false;
  if (!known) panel.scrollTop = 0;
}

function contents(item) {
  const close = el("button", { className: "icon", "aria-label": "Close", title: "Close (Esc)", onclick: () => change({ item: "" }) }, "✕");
  const near = `row:${item.row}`;
  const similar = el("button", { onclick: () => change({ near, words: "", item: matchMedia("(max-width: 760px)").matches ? "" : current().item }) }, "Similar items");
  similar.disabled = current().near === near;
  return [
    el("div", { className: "top" }, el("h2", {}, item.id), close),
    item.text === null ? picture(item.row) : el("div", { className: "whole", tabIndex: 0 }, item.text),
    editing && labelBox(item),
    el("div", { className: "actions" }, similar),
    probabilities(item),
    facts(item.values),
  ];
}

/** An item as a row of the gallery. */
export function rowOf(item) {
  const label = item.values[store.label] ?? null;
  return { row: item.row, label: label === null ? null : String(label), excluded: item.values.excluded ?? null };
}

function labelBox(item) {
  const row = rowOf(item);
  const buttons = editing.classes().slice(0, 9).map((name, i) => {
    const button = el("button", { "aria-pressed": String(name === row.label), onclick: () => editing.set(row, name) }, el("kbd", {}, String(i + 1)), name);
    return button;
  });
  const input = el("input", { id: "new-label", type: "text", maxLength: 500, placeholder: "another label", "aria-label": "Another label", autocomplete: "off" });
  input.setAttribute("list", "label-names");
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && input.value.trim()) editing.set(row, input.value.trim());
  });
  const names = el("datalist", { id: "label-names" }, ...editing.classes().map((name) => el("option", { value: name })));
  const none = el("button", { "aria-pressed": String(row.label === null), onclick: () => editing.set(row, null) }, el("kbd", {}, "0"), "none");
  const exclude = el("button", { "aria-pressed": String(row.excluded !== null), onclick: () => editing.exclude(row) }, el("kbd", {}, "x"), row.excluded === null ? "Exclude" : "Use again");
  return el("section", { className: "labels" }, el("h3", {}, `Set ${store.label}`), el("div", { className: "choices" }, ...buttons, none), input, names, exclude);
}

function picture(row) {
  const image = el("img", { alt: "", src: pictureOf(row, "large") });
  image.addEventListener("error", async () => {
    const reason = await read(`rows/${row}/picture`, { size: "large" }).catch((error) => error.message);
    image.replaceWith(el("p", { className: "problem-text" }, `No picture: ${reason}`));
  });
  return image;
}

function probabilities(item) {
  const shares = Object.entries(item.probabilities).sort(([, a], [, b]) => b - a); // names that are numbers come first in JavaScript
  if (!shares.length) return null;
  const rows = shares.map(([name, share]) => {
    const bar = el("span", { className: "bar" });
    bar.style.width = `${100 * share}%`;
    const mark = name === String(item.values[store.label]) ? "own" : "";
    return el("li", { className: mark }, el("span", { className: "value" }, name), el("span", { className: "count" }, `${(100 * share).toFixed(1)} %`), el("span", { className: "track" }, bar));
  });
  return el("section", {}, el("h3", {}, "Prediction"), el("ul", { className: "shares" }, ...rows));
}

function facts(values) {
  const list = el("dl");
  const place = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  const known = Object.entries(values).sort(([a], [b]) => place(a) - place(b));
  for (const [name, value] of known) {
    if (HIDDEN.includes(name) || value === null) continue;
    const shown = name === "confidence" && typeof value === "number" ? value.toFixed(4) : String(value);
    list.append(el("dt", {}, name), el("dd", {}, shown));
  }
  return list;
}
