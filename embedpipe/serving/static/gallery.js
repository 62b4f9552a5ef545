// A gallery of any length: only the tiles in sight exist, and rows are loaded in pages and dropped again.

import { el } from "./dom.js";
import { pictureOf } from "./api.js";

const GAP = 10;
const PAGE = 100;
const PAGES_KEPT = 30;
// Browsers cut taller elements off. A longer gallery is scrolled in proportion, and by the wheel still row by row.
const TALLEST = 8_000_000;
const MARGIN = 14;

/** The label of a row, and what a head says instead, on a line of its own; `separator` stands between several labels. */
function captionOf(row, separator) {
  const label = row.label ?? "";
  if (row.prediction === null || typeof row.prediction === "number") return { words: label, instead: "" };
  const prediction = `→ ${row.prediction}`;
  if (label === "") return { words: prediction, instead: "" };
  return { words: label, instead: inOrder(label, separator) === inOrder(row.prediction, separator) ? "" : prediction };
}

const inOrder = (labels, separator) => (separator ? labels.split(separator).map((label) => label.trim()).filter(Boolean).sort().join(separator) : labels);

export class Gallery {
  constructor(root, sheet, { load, open, focus, colourOf }) {
    Object.assign(this, { root, sheet, load, open, focus, colourOf });
    this.total = 0;
    this.pages = new Map();
    this.tiles = new Map();
    this.spare = [];
    this.current = -1;
    this.size = 170;
    this.isText = this.predicts = false;
    this.separator = null;
    this.top = this.scrolled = 0;
    root.addEventListener("scroll", () => this.scroll());
    root.addEventListener("keydown", (event) => this.key(event));
    sheet.addEventListener("click", (event) => {
      const tile = event.target.closest(".tile");
      if (!tile) return;
      this.root.focus({ preventScroll: true });
      this.setCurrent(Number(tile.dataset.index), false);
      this.openCurrent();
    });
    new ResizeObserver(() => this.layout()).observe(root);
  }

  /** Show a new selection of `total` rows. */
  reset(total, first) {
    this.total = total;
    this.pages.clear();
    if (first) this.pages.set(0, first);
    this.generation = (this.generation || 0) + 1;
    for (const index of [...this.tiles.keys()]) this.drop(index);
    this.current = -1;
    this.top = this.scrolled = 0;
    this.layout();
    this.root.scrollTop = 0;
  }

  layout() {
    const width = this.root.clientWidth - 2 * MARGIN;
    if (width <= 0) return;
    // Two columns on a phone: three have no room for the names of classes.
    const wanted = this.isText ? this.size * 1.5 : this.predicts ? Math.max(this.size, 165) : this.size;
    const anchor = this.columns ? Math.floor((this.top + 1) / this.pitch) * this.columns : 0;
    this.columns = Math.max(1, Math.round((width + GAP) / (wanted + GAP)));
    this.across = (width - GAP * (this.columns - 1)) / this.columns;
    const caption = this.predicts ? 44 : 26;
    this.down = this.isText ? Math.max(84, this.size * 0.8 - 26) + caption : this.across + caption;
    this.pitch = this.down + GAP;
    this.sheet.classList.toggle("predicted", this.predicts);
    this.sheet.style.setProperty("--lines", Math.max(2, Math.floor((this.down - caption - 20) / 20)));
    this.height = Math.ceil(this.total / this.columns) * this.pitch + 2 * MARGIN;
    this.ratio = Math.max(1, (this.height - this.root.clientHeight) / (TALLEST - this.root.clientHeight));
    this.sheet.style.height = `${Math.min(this.height, TALLEST)}px`;
    this.goTo(Math.floor(anchor / this.columns) * this.pitch);
    for (const index of [...this.tiles.keys()]) this.drop(index);
    this.render();
  }

  goTo(top) {
    this.top = Math.max(0, Math.min(top, this.height - this.root.clientHeight));
    this.root.scrollTop = this.scrolled = Math.round(this.top / this.ratio);
    this.scrolled = this.root.scrollTop;
  }

  scroll() {
    const to = this.root.scrollTop;
    const by = to - this.scrolled;
    if (by === 0) return;
    const far = Math.abs(by) > 3 * this.root.clientHeight;
    const atEnd = to === 0 || to >= this.root.scrollHeight - this.root.clientHeight - 1;
    this.top = this.ratio === 1 || far || atEnd ? to * this.ratio : this.top + by;
    this.top = Math.max(0, Math.min(this.top, this.height - this.root.clientHeight));
    this.scrolled = to;
    this.fast = far;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.render());
    clearTimeout(this.still);
    this.still = setTimeout(() => {
      if (this.ratio > 1) this.goTo(this.top); // the bar shows again where the rows are
      this.fast = false;
      this.render();
    }, 120);
  }

  render() {
    if (!this.pitch) return;
    const view = this.root.clientHeight;
    const first = Math.max(0, Math.floor((this.top - MARGIN) / this.pitch) - 1) * this.columns;
    const last = Math.min(this.total, (Math.floor((this.top + view) / this.pitch) + 2) * this.columns);
    for (const index of [...this.tiles.keys()]) if (index < first || index >= last) this.drop(index);
    for (let index = first; index < last; index++) this.place(index);
    for (let page = Math.floor(first / PAGE); page * PAGE < last; page++) this.want(page);
  }

  place(index) {
    const tile = this.tiles.get(index) || this.make(index);
    const x = MARGIN + (index % this.columns) * (this.across + GAP);
    const y = MARGIN + Math.floor(index / this.columns) * this.pitch - this.top + this.scrolled;
    tile.style.width = `${this.across}px`;
    tile.style.height = `${this.down}px`;
    tile.style.transform = `translate(${x}px, ${y}px)`;
    if (!tile.row) this.fill(tile, index);
  }

  make(index) {
    const tile = this.spare.pop() || this.build();
    tile.id = `tile-${index}`;
    tile.dataset.index = index;
    tile.row = null;
    tile.setAttribute("aria-posinset", index + 1);
    tile.setAttribute("aria-setsize", this.total);
    this.mark(tile, index === this.current);
    this.tiles.set(index, tile);
    if (!tile.parentNode) this.sheet.append(tile);
    return tile;
  }

  build() {
    const parts = { dot: el("span", { className: "dot" }), label: el("span", { className: "label" }), instead: el("span", { className: "label wrong" }), score: el("span", { className: "score" }) };
    const tile = el("div", { className: "tile", role: "option" });
    parts.image = el("img", { alt: "", decoding: "async", draggable: false });
    parts.image.addEventListener("error", () => tile.row && tile.classList.add("missing"));
    parts.words = el("span");
    parts.text = el("div", { className: "text" }, parts.words);
    parts.picture = el("div", { className: "picture" }, parts.image, parts.text);
    tile.append(parts.picture, el("div", { className: "caption" }, parts.dot, parts.label, parts.instead, parts.score));
    tile.parts = parts;
    return tile;
  }

  fill(tile, index) {
    const row = this.rowAt(index);
    const { image, text, words: beginning, label, instead, score, dot } = tile.parts;
    tile.classList.remove("missing", "excluded", "mistaken");
    image.hidden = this.isText;
    text.hidden = !this.isText;
    if (!row || (this.fast && !this.isText)) {
      image.removeAttribute("src");
      beginning.textContent = label.textContent = instead.textContent = score.textContent = "";
      tile.removeAttribute("aria-label");
      dot.hidden = true;
      if (!row) return;
    } else if (!this.isText) {
      image.src = pictureOf(row.row);
    }
    if (!this.fast || this.isText) tile.row = row;
    if (this.isText) beginning.textContent = row.text ?? row.id;
    const caption = captionOf(row, this.separator);
    label.textContent = caption.words;
    instead.textContent = caption.instead;
    tile.classList.toggle("mistaken", caption.instead !== "");
    score.textContent = row.score !== null ? row.score.toFixed(3) : row.confidence !== null ? `${Math.round(100 * row.confidence)} %` : "";
    const colour = this.colourOf(row);
    dot.hidden = !colour;
    if (colour) dot.style.background = colour;
    tile.classList.toggle("excluded", Boolean(row.excluded));
    tile.title = row.excluded ? `${row.id}, excluded: ${row.excluded}` : row.id;
    tile.setAttribute("aria-label", [row.label, row.id, row.excluded && "excluded"].filter(Boolean).join(", "));
  }

  drop(index) {
    const tile = this.tiles.get(index);
    this.tiles.delete(index);
    tile.row = null;
    tile.parts.image.removeAttribute("src");
    if (this.spare.length < 40) {
      this.spare.push(tile);
      tile.style.transform = "translate(-9999px, 0)";
      tile.id = "";
      this.mark(tile, false);
    } else {
      tile.remove();
    }
  }

  rowAt(index) {
    const rows = this.pages.get(Math.floor(index / PAGE));
    return rows && !rows.loading ? rows[index % PAGE] : undefined;
  }

  async want(page) {
    const known = this.pages.get(page);
    if (known) {
      this.pages.delete(page); // the last used is the last to go
      this.pages.set(page, known);
      return;
    }
    if (this.fast) return;
    const generation = this.generation;
    this.pages.set(page, { loading: true });
    for (const old of this.pages.keys()) {
      if (this.pages.size <= PAGES_KEPT) break;
      this.pages.delete(old);
    }
    try {
      const rows = await this.load(page * PAGE, PAGE);
      if (generation !== this.generation) return;
      this.pages.set(page, rows);
      this.render();
    } catch (error) {
      if (generation === this.generation) this.pages.delete(page);
      throw error;
    }
  }

  /** Show rows again whose label or colour has changed. */
  refresh() {
    for (const [index, tile] of this.tiles) {
      tile.row = null;
      this.fill(tile, index);
    }
  }

  /** Fetch the rows again, without moving. */
  reload() {
    this.pages.clear();
    this.generation++;
    for (const index of [...this.tiles.keys()]) this.drop(index);
    this.render();
  }

  mark(tile, current) {
    tile.classList.toggle("current", current);
    tile.setAttribute("aria-selected", String(current));
  }

  setCurrent(index, told = true) {
    if (this.tiles.has(this.current)) this.mark(this.tiles.get(this.current), false);
    this.current = Math.max(0, Math.min(index, this.total - 1));
    const y = MARGIN + Math.floor(this.current / this.columns) * this.pitch;
    if (y - MARGIN < this.top) this.goTo(y - MARGIN);
    else if (y + this.down > this.top + this.root.clientHeight) this.goTo(y + this.down + MARGIN - this.root.clientHeight);
    this.render();
    const tile = this.tiles.get(this.current);
    if (tile) this.mark(tile, true);
    this.root.setAttribute("aria-activedescendant", `tile-${this.current}`);
    if (told) this.whenLoaded((row) => this.focus(row, this.current));
  }

  whenLoaded(run) {
    const index = this.current;
    const row = this.rowAt(index);
    if (row) run(row);
    else if (index >= 0 && index < this.total) setTimeout(() => index === this.current && this.whenLoaded(run), 60);
  }

  openCurrent() {
    this.whenLoaded((row) => this.open(row, this.current));
  }

  key(event) {
    if (event.target !== this.root || event.ctrlKey || event.metaKey || event.altKey || !this.total) return;
    const page = Math.max(1, Math.floor(this.root.clientHeight / this.pitch)) * this.columns;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns, PageDown: page, PageUp: -page };
    if (event.key in steps) this.setCurrent(this.current < 0 ? 0 : this.current + steps[event.key]);
    else if (event.key === "Home") this.setCurrent(0);
    else if (event.key === "End") this.setCurrent(this.total - 1);
    else if (event.key === "Enter" || event.key === " ") this.openCurrent();
    else return;
    event.preventDefault();
  }
}
