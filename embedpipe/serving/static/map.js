// The map: a point for each item, with the item under the pointer, the neighbours of a query, and a lasso.

import { el, later } from "./dom.js";
import { pictureOf, read, readBytes, store } from "./api.js";
import { classColour, GREY, PLAIN, scaleColour } from "./colours.js";
import { rgb, Scatter } from "./scatter.js";

const NONE = 65535; // of a row without a value
const UNITS = 65534; // of the whole map
const MOST_CORNERS = 80;

export class MapView {
  constructor(root, { open, lasso, colour, report }) {
    Object.assign(this, { root, lasso, report });
    this.marked = [];
    this.corners = [];
    this.hovered = -1;
    this.build(colour);
    const ask = later((row, at) => this.hover(row, at), 40);
    this.scatter = new Scatter(this.canvas, {
      wheel: true,
      faint: true,
      colours: () => [...this.colours(), style("--pale")].map(rgb),
      over: (context) => this.drawOver(context),
      hover: (row, ...at) => ask(row, at),
      pick: (row) => row >= 0 && open(row),
      strokes: (event) => this.lassoOn || event.shiftKey,
      stroke: (line, done) => this.draw(line, done),
    });
  }

  build(colour) {
    this.canvas = el("canvas", { tabIndex: 0, role: "img", "aria-label": "Map of the items. Arrow keys move it, plus and minus zoom, 0 shows all." });
    this.tip = el("div", { className: "tip", hidden: true });
    this.note = el("p", { className: "map-note", role: "status" });
    this.select = el("select", { "aria-label": "Colour by" });
    this.select.addEventListener("change", () => colour(this.select.value));
    const button = (words, label, run) => el("button", { title: label, "aria-label": label, onclick: run }, words);
    this.lassoButton = el("button", { "aria-pressed": "false", title: "Draw around items to select them (or Shift and drag)", onclick: () => this.setLasso(!this.lassoOn) }, "Lasso");
    this.clearButton = el("button", { hidden: true, onclick: () => this.lasso("") }, "Clear");
    const zoom = el("div", { className: "segments" }, button("−", "Zoom out", () => this.scatter.zoomBy(1 / 1.6)), button("+", "Zoom in", () => this.scatter.zoomBy(1.6)), button("All", "Show all", () => this.scatter.showAll()));
    const tools = el("div", { className: "map-tools" }, el("label", {}, "Colour ", this.select), this.lassoButton, this.clearButton, zoom);
    this.stage = el("div", { className: "stage" }, this.canvas, this.tip);
    this.root.append(tools, this.stage, this.note);
  }

  /** Fetch the points, waiting for them while they are computed. */
  async load() {
    if (this.points || this.waiting) return;
    this.waiting = true;
    try {
      let state = await read("map");
      while (state.state === "computing") {
        this.note.textContent = "The map is being computed…";
        await new Promise((done) => setTimeout(done, 1000));
        state = await read("map");
      }
      this.note.textContent = state.state === "failed" ? `There is no map: ${state.note}` : state.note;
      if (state.state === "ready") this.setPoints(new Uint16Array(await readBytes("map/points")));
    } finally {
      this.waiting = false;
    }
  }

  forget() {
    this.setMask(null);
    this.setCodes(null, null);
    this.setPoints(new Uint16Array());
    this.points = null;
  }

  /** Show points: x and y of each, from 0 to UNITS. */
  setPoints(points) {
    this.points = points;
    const [x, y] = [0, 1].map((axis) => Uint16Array.from({ length: points.length / 2 }, (_, i) => points[2 * i + axis]));
    this.scatter.setPoints(x, y, UNITS, UNITS);
    this.recolour();
  }

  /** Show the columns that can be chosen as colours. */
  setColumns(columns, chosen) {
    const names = columns.map((column) => el("option", { value: column.name }, column.name));
    this.select.replaceChildren(el("option", { value: "-" }, "none"), ...names);
    this.select.value = columns.some((column) => column.name === chosen) ? chosen : "-";
  }

  async colourBy(column) {
    const codes = column ? new Uint16Array(await readBytes("codes", { column: column.name })) : null;
    this.setCodes(column, codes);
  }

  /** Colour the points by the values of a column: the place of each value, NONE for a point without. */
  setCodes(column, codes) {
    this.column = column;
    this.codes = codes;
    this.recolour();
  }

  /** Give a point without a value the look after those of the values. */
  recolour() {
    const none = this.colours().length - 1;
    this.scatter.setLook(this.codes && this.codes.map((code) => (code === NONE ? none : code)));
  }

  /** The colours of the classes or levels of the chosen column, and of points without a value. */
  colours() {
    if (!this.column) return [PLAIN()];
    const { kind, values } = this.column;
    const [count, colour] = kind === "number" ? [256, scaleColour] : [values.length, classColour];
    return [...Array.from({ length: count }, (_, level) => colour(level)), GREY()];
  }

  /** Rows that satisfy the filters, as bits; null for all. */
  setMask(bytes) {
    this.scatter.setMask(bytes && new Uint8Array(bytes));
  }

  setLassoCorners(text) {
    const values = text ? text.split(",").map(Number) : [];
    this.corners = Array.from({ length: values.length / 2 }, (_, i) => [values[2 * i] * UNITS, values[2 * i + 1] * UNITS]);
    this.clearButton.hidden = !text;
    this.scatter.redrawOver();
  }

  setLasso(on) {
    this.lassoOn = on;
    this.lassoButton.setAttribute("aria-pressed", String(on));
    this.stage.classList.toggle("lasso", on);
  }

  /** Show the lasso as it is drawn, and select what lies in it. */
  draw(line, done) {
    this.drawn = done ? null : line;
    this.scatter.redrawOver();
    if (!done) return;
    this.setLasso(false);
    const step = Math.ceil(line.length / MOST_CORNERS);
    const corners = line.filter((_, i) => i % step === 0);
    if (corners.length >= 3) this.lasso(corners.flat().map((value) => (value / UNITS).toFixed(4)).join(","));
  }

  /** Ring these rows: the query and its neighbours. */
  mark(rows) {
    this.marked = rows;
    this.scatter.redrawOver();
  }

  drawOver(context) {
    const corners = this.drawn || this.corners;
    if (corners.length > 1) {
      context.beginPath();
      for (const corner of corners) context.lineTo(...this.scatter.place(...corner));
      context.closePath();
      context.lineWidth = 2;
      context.strokeStyle = context.fillStyle = style("--blue");
      context.globalAlpha = 0.12;
      context.fill();
      context.globalAlpha = 1;
      context.stroke();
    }
    if (!this.points) return;
    context.strokeStyle = style("--ink");
    for (const [place, row] of [...this.marked, this.hovered].entries()) {
      if (row < 0) continue;
      const first = place === 0 || place === this.marked.length;
      context.lineWidth = first ? 2.5 : 1.2;
      this.scatter.ring(context, row, first ? 9 : 6);
    }
  }

  async hover(row, [x, y]) {
    if (row === this.hovered) return;
    this.hovered = row;
    this.scatter.redrawOver();
    this.stage.classList.toggle("over-item", row >= 0);
    if (row < 0) {
      this.tip.hidden = true;
      return;
    }
    const item = await read(`rows/${row}`).catch(() => null);
    if (!item || this.hovered !== row) return;
    const label = item.values[store.label];
    const top = item.text === null ? el("img", { alt: "", src: pictureOf(row) }) : el("p", {}, item.text.slice(0, 200));
    this.tip.replaceChildren(top, el("strong", {}, label === null || label === undefined ? "" : String(label)), el("small", {}, item.id));
    this.tip.hidden = false;
    const { clientWidth: width, clientHeight: height } = this.stage;
    this.tip.style.left = `${Math.max(4, Math.min(x + 16, width - 176))}px`;
    this.tip.style.top = `${y > height / 2 ? Math.max(4, y - this.tip.offsetHeight - 14) : y + 16}px`;
  }
}

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
