// The panel of one item: its picture or whole text, and all that is known of it.

import { $, el } from "./dom.js";
import { pictureOf, read } from "./api.js";
import { change, current } from "./state.js";

const HIDDEN = ["text", "source_modified", "picture_counts", "set_by_hand"];
let shown = null;

/** Show an item; null closes the panel. */
export async function showItem(row) {
  const panel = $("item");
  shown = row;
  if (row === null) {
    panel.hidden = true;
    return;
  }
  const item = await read(`rows/${row}`);
  if (shown !== row) return;
  panel.replaceChildren(...contents(item));
  panel.hidden = false;
  panel.scrollTop = 0;
}

function contents(item) {
  const close = el("button", { className: "icon", "aria-label": "Close", title: "Close (Esc)", onclick: () => change({ item: "" }) }, "✕");
  const near = `row:${item.row}`;
  const similar = el("button", { onclick: () => change({ near, words: "", item: matchMedia("(max-width: 760px)").matches ? "" : current().item }) }, "Similar items");
  similar.disabled = current().near === near;
  return [
    el("div", { className: "top" }, el("h2", {}, item.id), close),
    item.text === null ? picture(item.row) : el("div", { className: "whole", tabIndex: 0 }, item.text),
    el("div", { className: "actions" }, similar),
    facts(item.values),
  ];
}

function picture(row) {
  const image = el("img", { alt: "", src: pictureOf(row, "large") });
  image.addEventListener("error", async () => {
    const reason = await read(`rows/${row}/picture`, { size: "large" }).catch((error) => error.message);
    image.replaceWith(el("p", { className: "problem-text" }, `No picture: ${reason}`));
  });
  return image;
}

function facts(values) {
  const list = el("dl");
  for (const [name, value] of Object.entries(values)) {
    if (HIDDEN.includes(name) || value === null) continue;
    list.append(el("dt", {}, name), el("dd", {}, String(value)));
  }
  return list;
}
