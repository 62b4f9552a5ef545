// The filters at the side: a condition in words of SQL, and the classes of each column with their counts.

import { $, el, later, number } from "./dom.js";
import { read } from "./api.js";
import { change, current } from "./state.js";
import { classColour } from "./colours.js";

const SHOWN = 12;
const opened = new Set();
let info;

export function setUpFilters(store) {
  info = store;
  const columns = info.columns.filter((column) => column.kind === "class");
  $("filters").replaceChildren(whereBox(), ...columns.map((column) => el("section", { id: `facet-${info.columns.indexOf(column)}` })));
  drawCounts({});
}

function whereBox() {
  const names = info.columns.map((column) => column.name);
  const example = names.includes("split") ? "split = 'train'" : names.includes("label") ? "label = 'cat'" : "id LIKE 'a%'";
  const input = el("input", { id: "where", type: "text", maxLength: 2000, placeholder: example, spellcheck: false, autocomplete: "off", "aria-describedby": "where-problem" });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") change({ where: input.value.trim() });
  });
  input.addEventListener("change", () => change({ where: input.value.trim() }));
  return el("section", {}, el("h2", {}, el("label", { htmlFor: "where" }, "Filter")), input, el("p", { id: "where-problem", className: "problem-text", hidden: true }));
}

export function showWhereProblem(reason) {
  const box = $("where-problem");
  box.hidden = !reason;
  box.textContent = reason;
  $("where").setAttribute("aria-invalid", String(Boolean(reason)));
}

export const filterOf = (state) => ({
  where: state.where,
  classes: Object.keys(state.is).length ? JSON.stringify(state.is) : "",
  within: state.within,
});

/** Fetch the counts of all classes under the filters. */
export const updateCounts = later(async () => {
  $("where").value = current().where;
  try {
    drawCounts(await read("counts", filterOf(current())));
  } catch {
    drawCounts({}); // the gallery says why
  }
}, 30);

function drawCounts(counts) {
  for (const column of info.columns) {
    const section = $(`facet-${info.columns.indexOf(column)}`);
    if (section) drawFacet(section, column, counts[column.name] || []);
  }
}

function drawFacet(section, column, counts) {
  const chosen = current().is[column.name] || [];
  const clear = el("button", { onclick: () => choose(column.name, []) }, "clear");
  const total = counts.length;
  const all = opened.has(column.name);
  const listed = all ? counts : counts.filter((each, i) => i < SHOWN || chosen.includes(each.value));
  const more = el("button", { className: "link", onclick: () => (all ? opened.delete(column.name) : opened.add(column.name), drawFacet(section, column, counts)) });
  more.textContent = all ? "show fewer" : `show all ${number(total)}`;
  const items = listed.map((each) => {
    const box = el("input", { type: "checkbox", checked: chosen.includes(each.value) });
    box.addEventListener("change", () => {
      const others = chosen.filter((value) => value !== each.value);
      choose(column.name, box.checked ? [...others, each.value] : others);
    });
    const dot = el("span", { className: "dot" });
    if (current().colour === column.name) dot.style.background = classColour(each.value === null ? -1 : column.values.indexOf(each.value));
    const name = el("span", { className: each.value === null ? "value none" : "value", title: each.value ?? "" }, each.value ?? "none");
    return el("li", { className: each.count ? "" : "empty" }, el("label", {}, box, dot, name, el("span", { className: "count" }, number(each.count))));
  });
  const focused = section.contains(document.activeElement) ? [...section.querySelectorAll("input, button")].indexOf(document.activeElement) : -1;
  section.replaceChildren(
    column.name === "prediction" && info.head?.note ? el("p", { className: "note" }, info.head.note) : "",
    el("h2", {}, el("span", {}, column.name), chosen.length ? clear : null),
    el("ul", { className: "facet" }, ...items),
    total > SHOWN ? more : "",
  );
  if (focused >= 0) [...section.querySelectorAll("input, button")][focused]?.focus();
}

function choose(name, values) {
  const is = { ...current().is, [name]: values };
  if (!values.length) delete is[name];
  change({ is });
}
