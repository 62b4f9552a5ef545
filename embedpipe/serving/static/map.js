// The map: a point for each item on a canvas, drawn pixel by pixel; zoom, pan, hover and a lasso.

import { el, later } from "./dom.js";
import { pictureOf, read, readBytes, store } from "./api.js";
import { classColour, GREY, onTheme, PLAIN, scaleColour } from "./colours.js";

const NONE = 65535; // of a row without a value
const CELLS = 256;
const NEAR = 12;
const MOST_CORNERS = 80;
// So many points are drawn as smooth discs; more are drawn pixel by pixel.
const DISCS = 30_000;

export class MapView {
  constructor(root, { open, lasso, colour, report }) {
    Object.assign(this, { root, open, lasso, report });
    this.points = this.codes = this.bits = null;
    this.zoom = 1;
    this.middle = [0.5, 0.5];
    this.marked = [];
    this.corners = [];
    this.drawing = null;
    this.build(colour);
    new ResizeObserver(() => this.resize()).observe(root);
    onTheme(() => (this.recolour(), this.draw()));
    this.ask = later((point) => this.hover(point), 40);
  }

  build(colour) {
    this.canvas = el("canvas", { tabIndex: 0, role: "img", "aria-label": "Map of the items. Arrow keys move it, plus and minus zoom, 0 shows all." });
    this.over = el("canvas", { className: "over", "aria-hidden": "true" });
    this.tip = el("div", { className: "tip", hidden: true });
    this.note = el("p", { className: "map-note", role: "status" });
    this.select = el("select", { "aria-label": "Colour by" });
    this.select.addEventListener("change", () => colour(this.select.value));
    const button = (words, label, run) => el("button", { title: label, "aria-label": label, onclick: run }, words);
    this.lassoButton = el("button", { "aria-pressed": "false", title: "Draw around items to select them (or Shift and drag)", onclick: () => this.setLasso(!this.lassoOn) }, "Lasso");
    this.clearButton = el("button", { hidden: true, onclick: () => this.lasso("") }, "Clear");
    const zoom = el("div", { className: "segments" }, button("−", "Zoom out", () => this.zoomBy(1 / 1.6)), button("+", "Zoom in", () => this.zoomBy(1.6)), button("All", "Show all", () => this.showAll()));
    const tools = el("div", { className: "map-tools" }, el("label", {}, "Colour ", this.select), this.lassoButton, this.clearButton, zoom);
    this.stage = el("div", { className: "stage" }, this.canvas, this.over, this.tip);
    this.root.append(tools, this.stage, this.note);
    this.stage.addEventListener("pointerdown", (event) => this.down(event));
    this.stage.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) this.stage.addEventListener(kind, (event) => this.up(event));
    this.stage.addEventListener("pointerleave", () => this.hover(-1));
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.pointers = new Map();
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
    this.points = this.codes = this.bits = null;
    this.draw();
  }

  setPoints(points) {
    this.points = points;
    const count = points.length / 2;
    this.count = count;
    // A step that shares no divisor with the count visits all points in an order in which no class hides another.
    let step = Math.max(1, Math.floor(count * 0.618));
    const divisor = (a, b) => (b ? divisor(b, a % b) : a);
    while (divisor(step, count) !== 1) step++;
    this.order = new Uint32Array(count);
    for (let i = 0, at = 0; i < count; i++, at = (at + step) % count) this.order[i] = at;
    this.shuffled = new Uint16Array(2 * count); // in the order of drawing, so that a drawing reads memory in one go
    for (let k = 0; k < count; k++) {
      this.shuffled[2 * k] = points[2 * this.order[k]];
      this.shuffled[2 * k + 1] = points[2 * this.order[k] + 1];
    }
    this.cells();
    this.recolour();
    this.draw();
  }

  /** Sort the points into cells, so that the one under the pointer is found at once. */
  cells() {
    const { points, count } = this;
    const cell = (i) => Math.min(CELLS - 1, (points[2 * i] * CELLS) >> 16) + CELLS * Math.min(CELLS - 1, (points[2 * i + 1] * CELLS) >> 16);
    this.starts = new Uint32Array(CELLS * CELLS + 1);
    for (let i = 0; i < count; i++) this.starts[cell(i) + 1]++;
    for (let i = 1; i <= CELLS * CELLS; i++) this.starts[i] += this.starts[i - 1];
    const next = this.starts.slice();
    this.members = new Uint32Array(count);
    for (let i = 0; i < count; i++) this.members[next[cell(i)]++] = i;
  }

  /** Show the columns that can be chosen as colours. */
  setColumns(columns, chosen) {
    const names = columns.map((column) => el("option", { value: column.name }, column.name));
    this.select.replaceChildren(el("option", { value: "-" }, "none"), ...names);
    this.select.value = columns.some((column) => column.name === chosen) ? chosen : "-";
  }

  async colourBy(column) {
    this.column = column;
    this.codes = column ? new Uint16Array(await readBytes("codes", { column: column.name })) : null;
    this.recolour();
    this.draw();
  }

  recolour() {
    const rgb = (colour) => {
      const probe = el("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
      probe.fillStyle = colour;
      probe.fillRect(0, 0, 1, 1);
      return new Uint32Array(probe.getImageData(0, 0, 1, 1).data.buffer)[0];
    };
    const levels = !this.column ? 0 : this.column.kind === "number" ? 256 : this.column.values.length;
    this.palette = Uint32Array.from({ length: levels }, (_, level) => rgb(this.colour(level)));
    this.grey = rgb(GREY());
    this.plain = rgb(PLAIN());
    this.faint = rgb(getComputedStyle(document.documentElement).getPropertyValue("--pale").trim());
  }

  /** Rows that satisfy the filters, as bits; null for all. */
  setMask(bytes) {
    this.bits = bytes && new Uint8Array(bytes);
    this.draw();
  }

  setLassoCorners(text) {
    const values = text ? text.split(",").map(Number) : [];
    this.corners = values.length ? Array.from({ length: values.length / 2 }, (_, i) => [values[2 * i], values[2 * i + 1]]) : [];
    this.clearButton.hidden = !text;
    this.drawOver();
  }

  /** Ring these rows: the query and its neighbours. */
  mark(rows) {
    this.marked = rows;
    this.drawOver();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return;
    this.density = Math.min(2, devicePixelRatio || 1);
    for (const canvas of [this.canvas, this.over]) {
      canvas.width = Math.round(width * this.density);
      canvas.height = Math.round(height * this.density);
    }
    this.image = null;
    this.draw();
  }

  /** Pixels of the canvas for a unit of the map, and where its corner is. */
  frame() {
    const { width, height } = this.canvas;
    const scale = Math.min(width, height) * this.zoom;
    return { scale, x: width / 2 - this.middle[0] * scale, y: height / 2 - this.middle[1] * scale };
  }

  draw() {
    cancelAnimationFrame(this.next);
    this.next = requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    if (!this.points || !width) {
      context.clearRect(0, 0, width, height);
      return;
    }
    const start = performance.now();
    if (this.count <= DISCS) {
      context.clearRect(0, 0, width, height);
      if (this.bits) this.drawDiscs(context, false);
      this.drawDiscs(context, true);
      this.milliseconds = performance.now() - start;
      this.drawOver();
      return;
    }
    if (!this.image) this.image = context.createImageData(width, height);
    const pixels = new Uint32Array(this.image.data.buffer);
    pixels.fill(0);
    const spots = this.spots();
    if (this.bits) this.plot(pixels, spots, false);
    this.plot(pixels, spots, true);
    context.putImageData(this.image, 0, 0);
    this.milliseconds = performance.now() - start;
    this.drawOver();
  }

  /** The radius of a point in pixels of the canvas. */
  get radius() {
    return Math.min(8, Math.min(5.5, Math.max(0.5, 190 / Math.sqrt(this.count))) * this.density * Math.min(2.5, this.zoom ** 0.35));
  }

  /** Draw smooth discs: one picture of each colour, placed again and again. */
  drawDiscs(context, chosen) {
    const { points, codes, bits, order, count } = this;
    const { scale, x: left, y: top } = this.frame();
    const size = 2 * Math.ceil(this.radius + 1.5);
    const paper = getComputedStyle(document.documentElement).getPropertyValue("--card").trim();
    const discs = new Map();
    const disc = (code) => {
      if (discs.has(code)) return discs.get(code);
      const canvas = el("canvas", { width: size, height: size });
      const pen = canvas.getContext("2d");
      pen.arc(size / 2, size / 2, this.radius, 0, 7);
      pen.fillStyle = code === "faint" ? getComputedStyle(document.documentElement).getPropertyValue("--pale") : code === NONE ? GREY() : this.colour(code);
      pen.fill();
      pen.strokeStyle = paper;
      pen.lineWidth = 0.7 * this.density;
      pen.stroke();
      discs.set(code, canvas);
      return canvas;
    };
    for (let k = 0; k < count; k++) {
      const i = order[k];
      if (bits && Boolean((bits[i >> 3] >> (i & 7)) & 1) !== chosen) continue;
      const x = (points[2 * i] / 65534) * scale + left - size / 2;
      const y = (points[2 * i + 1] / 65534) * scale + top - size / 2;
      if (x > -size && y > -size && x < this.canvas.width && y < this.canvas.height) context.drawImage(disc(chosen ? (codes ? codes[i] : 0) : "faint"), x, y);
    }
  }

  /** The colour of a class or level of the chosen column. */
  colour(code) {
    if (!this.column) return PLAIN();
    return this.column.kind === "number" ? scaleColour(code) : classColour(code);
  }

  /** The pixels of a point around its middle: one for a million, a disc for a few. */
  spots() {
    const radius = this.radius;
    const reach = Math.ceil(radius - 0.5);
    const spots = [];
    for (let y = -reach; y <= reach; y++) for (let x = -reach; x <= reach; x++) if (x * x + y * y <= radius * radius) spots.push([x, y]);
    return spots;
  }

  plot(pixels, spots, chosen) {
    const { shuffled, codes, bits, order, palette, count, grey, plain, faint } = this;
    const { width, height } = this.canvas;
    const { scale, x: left, y: top } = this.frame();
    const unit = scale / 65534;
    const reach = Math.max(...spots.map(([x]) => x));
    const offsets = Int32Array.from(spots, ([x, y]) => y * width + x);
    const right = width - reach;
    const bottom = height - reach;
    const single = offsets.length === 1;
    for (let k = 0; k < count; k++) {
      const px = shuffled[2 * k];
      const x = (px * unit + left) | 0;
      const y = (shuffled[2 * k + 1] * unit + top) | 0;
      if (x < reach || y < reach || x >= right || y >= bottom) continue;
      const i = order[k];
      if (bits && Boolean((bits[i >> 3] >> (i & 7)) & 1) !== chosen) continue;
      let colour = plain;
      if (!chosen) colour = faint;
      else if (codes) colour = codes[i] === NONE ? grey : palette[codes[i]];
      const at = y * width + x;
      if (single) pixels[at] = colour;
      else for (let j = 0; j < offsets.length; j++) pixels[at + offsets[j]] = colour;
    }
  }

  drawOver() {
    const context = this.over.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink").trim();
    const { scale, x, y } = this.frame();
    context.clearRect(0, 0, this.over.width, this.over.height);
    context.lineWidth = 2 * this.density;
    const corners = this.drawing || this.corners;
    if (corners.length > 1) {
      context.beginPath();
      for (const [a, b] of corners) context.lineTo(a * scale + x, b * scale + y);
      context.closePath();
      context.strokeStyle = style.getPropertyValue("--blue").trim();
      context.globalAlpha = 0.12;
      context.fillStyle = context.strokeStyle;
      context.fill();
      context.globalAlpha = 1;
      context.stroke();
    }
    if (!this.points) return;
    context.strokeStyle = ink;
    for (const [place, row] of [...this.marked, this.hovered].entries()) {
      if (row === undefined || row < 0) continue;
      const first = place === 0 || place === this.marked.length;
      context.lineWidth = (first ? 2.5 : 1.2) * this.density;
      context.beginPath();
      context.arc((this.points[2 * row] / 65534) * scale + x, (this.points[2 * row + 1] / 65534) * scale + y, (first ? 9 : 6) * this.density, 0, 7);
      context.stroke();
    }
  }

  place(event) {
    const box = this.stage.getBoundingClientRect();
    return [(event.clientX - box.left) * this.density, (event.clientY - box.top) * this.density];
  }

  toMap([px, py]) {
    const { scale, x, y } = this.frame();
    return [(px - x) / scale, (py - y) / scale];
  }

  /** The row under a place of the canvas, -1 for none. */
  find(place) {
    if (!this.points) return -1;
    const { scale } = this.frame();
    const reach = (NEAR * this.density) / scale;
    const [x, y] = this.toMap(place);
    const cell = (value) => Math.max(0, Math.min(CELLS - 1, Math.floor(value * CELLS)));
    let best = -1;
    let least = (reach * 65534) ** 2;
    for (let b = cell(y - reach); b <= cell(y + reach); b++) {
      for (let a = cell(x - reach); a <= cell(x + reach); a++) {
        for (let k = this.starts[a + CELLS * b]; k < this.starts[a + CELLS * b + 1]; k++) {
          const i = this.members[k];
          if (this.bits && !((this.bits[i >> 3] >> (i & 7)) & 1)) continue;
          const far = (this.points[2 * i] - x * 65534) ** 2 + (this.points[2 * i + 1] - y * 65534) ** 2;
          if (far < least) [best, least] = [i, far];
        }
      }
    }
    return best;
  }

  down(event) {
    if (event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
    this.moved = 0;
    if (this.pointers.size === 1 && (this.lassoOn || event.shiftKey)) this.drawing = [this.toMap(this.place(event))];
    else this.drawing = null;
  }

  move(event) {
    const to = this.place(event);
    const from = this.pointers.get(event.pointerId);
    if (!from) {
      this.tipAt = to;
      this.ask(this.find(to));
      return;
    }
    this.moved += Math.hypot(to[0] - from[0], to[1] - from[1]);
    if (this.drawing) {
      this.drawing.push(this.toMap(to));
      this.drawOver();
    } else if (this.pointers.size === 1 && this.moved > 3 * this.density) {
      const { scale } = this.frame();
      this.middle = [this.middle[0] - (to[0] - from[0]) / scale, this.middle[1] - (to[1] - from[1]) / scale];
      this.draw();
    } else if (this.pointers.size === 2) {
      const other = [...this.pointers.entries()].find(([id]) => id !== event.pointerId)[1];
      const length = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]);
      this.zoomBy(length(to) / Math.max(1, length(from)), other);
    }
    this.pointers.set(event.pointerId, to);
  }

  up(event) {
    const was = this.pointers.delete(event.pointerId);
    if (this.drawing) {
      const step = Math.ceil(this.drawing.length / MOST_CORNERS);
      const corners = this.drawing.filter((_, i) => i % step === 0);
      this.drawing = null;
      this.setLasso(false);
      if (corners.length >= 3) this.lasso(corners.flat().map((value) => value.toFixed(4)).join(","));
      else this.drawOver();
    } else if (was && event.type === "pointerup" && this.moved <= 3 * this.density) {
      const row = this.find(this.place(event));
      if (row >= 0) this.open(row);
    }
  }

  setLasso(on) {
    this.lassoOn = on;
    this.lassoButton.setAttribute("aria-pressed", String(on));
    this.stage.classList.toggle("lasso", on);
  }

  wheel(event) {
    event.preventDefault();
    this.zoomBy(Math.exp(-Math.sign(event.deltaY) * Math.min(0.4, Math.abs(event.deltaY) / 300)), this.place(event));
  }

  zoomBy(factor, place = [this.canvas.width / 2, this.canvas.height / 2]) {
    const before = this.toMap(place);
    this.zoom = Math.max(0.6, Math.min(400, this.zoom * factor));
    const after = this.toMap(place);
    this.middle = [this.middle[0] + before[0] - after[0], this.middle[1] + before[1] - after[1]];
    this.draw();
  }

  showAll() {
    this.zoom = 1;
    this.middle = [0.5, 0.5];
    this.draw();
  }

  key(event) {
    const step = 0.1 / this.zoom;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) {
      this.middle = [this.middle[0] + moves[event.key][0], this.middle[1] + moves[event.key][1]];
      this.draw();
    } else if (event.key === "+" || event.key === "=") this.zoomBy(1.6);
    else if (event.key === "-") this.zoomBy(1 / 1.6);
    else if (event.key === "0") this.showAll();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  async hover(row) {
    if (row === this.hovered) return;
    this.hovered = row;
    this.drawOver();
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
    const [x, y] = this.tipAt.map((value) => value / this.density);
    const { clientWidth: width, clientHeight: height } = this.stage;
    this.tip.style.left = `${Math.max(4, Math.min(x + 16, width - 176))}px`;
    this.tip.style.top = `${y > height / 2 ? Math.max(4, y - this.tip.offsetHeight - 14) : y + 16}px`;
  }
}
