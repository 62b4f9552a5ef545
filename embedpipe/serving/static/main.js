// The page: what the address says is shown, and what the reader does changes the address.

import { $, el, later, number } from "./dom.js";
import { openStore, read, readBytes, Refused, store } from "./api.js";
import { change, current, onChange } from "./state.js";
import { Gallery } from "./gallery.js";
import { MapView } from "./map.js";
import { FindingsView } from "./findings.js";
import { filterOf, setUpFilters, showWhereProblem, updateCounts } from "./filters.js";
import { byWords, hasKey, setUpSearch, showQuery } from "./search.js";
import { assign, canUndo, onSaved, remember, undo } from "./labels.js";
import { editLabels, rowOf, showItem } from "./panel.js";
import { classColour, GREY, onTheme, scaleColour } from "./colours.js";

const KEYS = [
  [["← ↑ ↓ →"], "move between items"],
  [["Enter"], "show what is similar to an item"],
  [["Esc"], "close the item, then end the search"],
  [["/"], "search by words"],
  [["f"], "filter"],
  [["v"], "gallery, both, or the map"],
  [["+", "-"], "larger or smaller pictures"],
  [["?"], "these keys"],
];
const phone = matchMedia("(max-width: 760px)");
let info;
let gallery;
let map;
let findings;
let version = 0;
let newest = 0;

/** Show a message above everything; an empty one takes it away. */
function notice(text, problem = true, action = null) {
  const box = $("notice");
  box.hidden = !text;
  box.classList.toggle("problem", problem);
  const close = el("button", { onclick: () => notice("") }, "Close");
  box.replaceChildren(...(text ? [el("span", {}, text), action, close].filter(Boolean) : []));
}

function report(error) {
  if (error.name === "AbortError") return;
  if (error instanceof Refused && error.status === 410 && error.message.includes("load the page")) {
    itemsChanged();
  } else {
    notice(error.message);
  }
}

const itemsChanged = () => notice("The items of the store have changed.", false, el("button", { className: "primary", onclick: reload }, "Show them"));

async function reload() {
  notice("");
  change({ near: "", words: "", item: "" }, true);
  await open();
  await select();
  await awaitHead();
}

/** Show what the server has, after a change was refused. */
async function showAgain() {
  if ((await read("store")).key !== store.key) return itemsChanged();
  await open();
  await select();
  if (current().view === "findings") await findings.show(current().kind);
  if (current().item !== "") await showItem(Number(current().item));
}

async function open() {
  info = await openStore();
  newest = info.at;
  document.title = `${info.name} · embedpipe`;
  $("name").textContent = $("name").title = info.name;
  $("facts").textContent = `${number(info.rows)} ${info.modality === "image" ? "pictures" : "texts"} · ${info.backbone}`;
  $("facts").title = $("facts").textContent;
  setUpFilters(info);
  if (map) {
    map.forget();
    await showMap(current());
  }
}

const query = (state) => ({ ...filterOf(state), near: state.near, order: state.order, at: version });

let loading = 0;
async function select() {
  const mine = ++loading;
  version = newest; // rows stay where they are while labels change, until others are selected
  const state = current();
  updateCounts();
  $("order-box").hidden = Boolean(state.near);
  $("order").value = state.order;
  showQuery(state).catch(report);
  try {
    const found = await read("rows", { ...query(state), start: 0, count: 100 });
    if (mine !== loading) return;
    showWhereProblem("");
    showTotal(found);
    gallery.reset(found.total, found.rows);
    map.mark(state.near ? found.rows.slice(0, 30).map((row) => row.row) : []);
  } catch (error) {
    if (mine !== loading) return;
    if (error instanceof Refused && error.status === 410 && state.near.startsWith("query:")) {
      if (state.words) await byWords(state.words, true);
      else change({ near: "" }, true);
    } else if (error instanceof Refused && error.status === 400 && state.where) {
      showWhereProblem(error.message);
    } else {
      report(error);
    }
  }
}

function showTotal(found) {
  const filtered = found.total < info.rows && !current().near ? ` of ${number(info.rows)}` : "";
  const what = current().near ? `${number(found.total)} nearest, ${found.how}` : `${number(found.total)}${filtered} items`;
  $("total").textContent = found.total ? what : "No items: change the filters";
}

function colourOf(row) {
  const column = info.columns.find((each) => each.name === current().colour);
  if (!column || column.name !== info.label || !row) return "";
  if (column.kind === "class") return classColour(column.values.indexOf(row.label));
  const [low, high] = column.values.map(Number);
  return row.label === null ? GREY() : scaleColour(Math.round((255 * (Number(row.label) - low)) / (high - low || 1)));
}

function showView(view) {
  for (const button of $("views").children) button.setAttribute("aria-pressed", String(button.dataset.view === view));
  $("map").hidden = view === "gallery" || view === "findings";
  $("gallery").hidden = view === "map" || view === "findings";
  $("findings").hidden = view !== "findings";
  document.body.classList.toggle("only-findings", view === "findings");
  if (view === "findings") findings.show(current().kind).catch(report);
  else gallery.layout();
}

/** Bring the map to what the state says; without `before`, all of it. */
async function showMap(state, before = null) {
  if (state.view === "gallery" || state.view === "findings") return;
  const changed = (...names) => !before || ["gallery", "findings"].includes(before.view) || names.some((name) => state[name] !== before[name]);
  const filters = filterOf(state);
  if (changed("within")) map.setLassoCorners(state.within);
  map.load().catch(report);
  if (changed("colour")) {
    map.setColumns(info.columns, state.colour);
    await map.colourBy(info.columns.find((column) => column.name === state.colour) || null);
  }
  if (changed("where", "is", "within")) map.setMask(Object.values(filters).some(Boolean) ? await readBytes("mask", filters) : null);
}

function applySize(state) {
  $("size").value = state.size;
  gallery.size = phone.matches ? 110 : Number(state.size);
}

onChange((state, before) => {
  if (!gallery) return;
  const selected = ["near", "where", "within", "order"].some((name) => state[name] !== before[name]) || state.is !== before.is;
  if (state.view !== before.view) showView(state.view);
  else if (state.view === "findings" && state.kind !== before.kind) findings.show(state.kind).catch(report);
  showMap(state, before).catch(report);
  if (state.size !== before.size) {
    applySize(state);
    gallery.layout();
  }
  if (selected) select();
  else if (state.colour !== before.colour) {
    gallery.refresh();
    updateCounts();
  }
  if (state.item !== before.item || state.near !== before.near) showItem(state.item === "" ? null : Number(state.item)).catch(report);
  if (state.item !== "" || state.near.startsWith("row:")) {
    if (state.key !== store.key) change({ key: store.key }, true);
  }
});

function setUp() {
  gallery = new Gallery($("gallery"), $("sheet"), {
    load: async (start, count) => (await read("rows", { ...query(current()), start, count })).rows,
    open: (row) => change({ near: `row:${row.row}`, words: "", item: phone.matches ? "" : String(row.row) }),
    focus: later((row) => !phone.matches && current().item !== "" && change({ item: String(row.row) }, true), 80),
    colourOf,
  });
  map = new MapView($("map"), {
    open: (row) => change({ near: `row:${row}`, words: "", item: phone.matches ? "" : String(row) }),
    lasso: (within) => change({ within }),
    colour: (colour) => change({ colour }),
    report,
  });
  gallery.isText = info.modality === "text";
  gallery.separator = info.head?.separator ?? null;
  showPredictions();
  if (info.findings.length) setUpFindings();
  applySize(current());
  addEventListener("unhandledrejection", (event) => {
    report(event.reason);
    event.preventDefault();
  });
  for (const button of $("views").children) button.addEventListener("click", () => change({ view: button.dataset.view }));
  $("size").addEventListener("input", () => change({ size: $("size").value }, true));
  if (info.edit) setUpEditing();
  setOrders();
  $("order").addEventListener("change", () => change({ order: $("order").value }));
  $("open-help").addEventListener("click", () => $("help").showModal());
  $("keys").replaceChildren(...KEYS.flatMap(([keys, words]) => [el("dt", {}, ...keys.map((key) => el("kbd", {}, key))), el("dd", {}, words)]));
  $("open-filters").addEventListener("click", () => openFilters(!$("filters").classList.contains("open")));
  $("gallery").addEventListener("click", () => openFilters(false));
  addEventListener("keydown", press);
  onTheme(() => (gallery.refresh(), updateCounts()));
  setUpSearch(info, notice);
}

function setUpFindings() {
  $("views").querySelector("[data-view=findings]").hidden = false;
  KEYS.push([["↓ ↑"], "of findings: the next and the one before"], [["d"], "dismiss the finding"]);
  if (info.edit) KEYS.push([["a"], "accept the proposed label"], [["y"], "exclude the other item, or use it again"]);
  findings = new FindingsView($("findings"), {
    kinds: info.findings,
    edit: info.edit,
    isText: info.modality === "text",
    set: setLabel,
    exclude: setExcluded,
    remember: info.edit ? (back) => (remember(back), ($("undo").disabled = false)) : () => {},
    choose: (kind) => change({ kind }),
    open: (row) => change({ item: String(row) }),
    report,
  });
}

/** The labels that have a key; those of a column of many numbers are no classes, and its `values` the ends of a scale. */
function classes() {
  const column = info.columns.find((each) => each.name === info.label);
  return column?.kind === "class" ? column.values : [];
}

function setUpEditing() {
  KEYS.push([["1 … 9"], "give the item one of the labels, and go on to the next"], [["0"], "take its label away"], [["e"], "type another label"], [["x"], "exclude the item, or use it again"], [["u"], "undo the last change"]);
  editLabels({ classes, set: (row, value) => setLabel(row, value), exclude: (row) => setExcluded(row) });
  const undoButton = el("button", { id: "undo", disabled: true, title: "Undo the last change (u)", onclick: takeBack }, "Undo");
  const download = el("a", { className: "button", href: "api/labels.csv", download: "labels.csv", title: "Labels that were set by hand, as CSV" }, "Labels ↓");
  const saved = el("span", { id: "saved", role: "status" });
  $("total").after(saved, undoButton, download);
  onSaved((left, at, error) => {
    saved.textContent = left ? `saving ${number(left)}…` : error ? "" : "saved";
    undoButton.disabled = !canUndo();
    if (error) {
      report(error);
      showAgain().catch(report);
    } else if (at) {
      newest = at;
      updateCounts();
    }
  });
}

/** Give a row a label; rows that are shown change at once. */
function setLabel(row, value) {
  if (assign(row, value)) afterChange(row.row, "label", value);
}

/** Exclude a row, by default by hand, or use it again; rows that are shown change at once. */
function setExcluded(row, reason = row.excluded ? null : "by hand") {
  if (assign(row, reason, "excluded")) afterChange(row.row, "excluded", reason);
}

function afterChange(row, what, value) {
  for (const rows of gallery.pages.values()) for (const each of rows.loading ? [] : rows) if (each.row === row) each[what] = value;
  findings?.put(row, what, value);
  const name = what === "label" ? info.label : what;
  const column = info.columns.find((each) => each.name === name);
  if (value !== null && !column) {
    info.columns[what === "label" ? "unshift" : "push"]({ name, kind: "class", values: [value] });
    setUpFilters(info);
  } else if (value !== null && column.kind === "class" && !column.values.includes(value)) column.values.push(value);
  gallery.refresh();
  $("undo").disabled = !canUndo();
  const item = $("item").item;
  if (!$("item").hidden && item?.row === row) {
    item.values[name] = value;
    showItem(row, item);
  }
}

function takeBack() {
  const last = undo();
  if (last) afterChange(last.row, last.what, last.was);
  $("undo").disabled = !canUndo();
}

/** Change the current item by a key, and go on to the next one. */
function changeByKey(run) {
  const row = $("gallery").hidden ? undefined : gallery.rowAt(gallery.current);
  if (row) {
    run(row);
    if (gallery.current < gallery.total - 1) gallery.setCurrent(gallery.current + 1);
  } else if (!$("item").hidden) {
    run(rowOf($("item").item));
  }
}

const labelByKey = (value) => changeByKey((row) => setLabel(row, value));

function setOrders() {
  const words = { id: "by name", random: "at random", uncertain: "least certain first", wrong: "most confidently wrong" };
  const orders = ["id", "random", ...(info.head?.orders || [])];
  $("order").replaceChildren(...orders.map((value) => el("option", { value }, words[value])));
  $("order").value = current().order;
}

/** Make room for predicted classes below the items, once there are some. */
function showPredictions() {
  gallery.predicts = info.head?.state === "ready" && !info.columns.some(({ name, kind }) => name === "prediction" && kind === "number");
}

/** Wait for the predictions of the head, then show them. */
async function awaitHead() {
  if (!info.head) return;
  while (info.head.state === "computing") {
    await new Promise((done) => setTimeout(done, 700));
    const now = await read("store");
    if (now.key !== store.key) return itemsChanged();
    info = now;
  }
  setUpFilters(info);
  setOrders();
  if (info.head.state === "failed") notice(info.head.note);
  await showMap(current(), null);
  showPredictions();
  gallery.layout();
  if (info.head.orders.includes(current().order) || "prediction" in current().is) await select();
  else gallery.reload();
  updateCounts();
}

function openFilters(open) {
  $("filters").classList.toggle("open", open);
  $("open-filters").setAttribute("aria-expanded", String(open));
  if (open) $("where").focus();
}

function press(event) {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "checkbox" && event.target.type !== "range";
  if (event.key === "Escape" && !$("help").open) {
    if (typing) event.target.blur();
    else if ($("filters").classList.contains("open")) openFilters(false);
    else if (current().item !== "") change({ item: "" });
    else if (current().near) change({ near: "", words: "" });
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (current().view === "findings" && findings.press(event.key)) {
    event.preventDefault();
    return;
  }
  const views = ["gallery", "both", "map", ...(findings ? ["findings"] : [])];
  const actions = {
    "/": () => $("words").focus(),
    f: () => (phone.matches ? openFilters(true) : $("where").focus()),
    v: () => change({ view: views[(views.indexOf(current().view) + 1) % views.length] }),
    "+": () => change({ size: String(Math.min(360, Number(current().size) + 30)) }, true),
    "-": () => change({ size: String(Math.max(90, Number(current().size) - 30)) }, true),
    "?": () => $("help").showModal(),
  };
  if (info.edit) {
    classes().slice(0, 9).forEach((name, i) => (actions[i + 1] = () => labelByKey(name)));
    actions[0] = () => labelByKey(null);
    actions.u = takeBack;
    actions.x = () => changeByKey((row) => setExcluded(row));
    actions.e = () => $("new-label")?.focus();
  }
  if (!(event.key in actions)) return;
  actions[event.key]();
  event.preventDefault();
}

async function start() {
  await open();
  if (!hasKey(current())) {
    change({ near: "", words: "", item: "", key: "" }, true);
    notice("This link was made for other items of the store: they have changed since.", false);
  }
  setUp();
  if (findings ? !location.hash.includes("view=") : current().view === "findings") change({ view: findings ? "findings" : "gallery" }, true);
  showView(current().view);
  showMap(current()).catch(report);
  await select();
  if (current().item !== "") await showItem(Number(current().item));
  $("gallery").focus({ preventScroll: true });
  await awaitHead();
}

start().catch((error) => notice(error.message));
