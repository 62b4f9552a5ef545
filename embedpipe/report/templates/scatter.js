"use strict";
/* Points on a canvas: drawn, zoomed, moved, and found under the pointer. A million points are redrawn at each step.

   Each point is a stamp, drawn once per look, which is blended into the pixels: canvas paths take a hundred times as
   long. The page makes one: new Scatter(canvas, {x, y, look, looks, ringed, names, radius}, changed).
   x, y: Uint16Array, 0 to 65535 across the longer side, y downwards; look: Uint8Array, index into looks;
   looks: [{colour: [r, g, b], triangle}]; ringed: [row]; names: [{text, x, y, look}]; radius: of a point in pixels.
   changed(row or -1, x, y): the point under the pointer, and where it is in pixels of the canvas. */
class Scatter {
  static MOST_ZOOM = 200;

  constructor(canvas, data, changed) {
    Object.assign(this, { canvas, changed, ...data });
    this.hidden = new Set();
    this.order = shuffled(this.x.length);
    this.view = { x: 0, y: 0, zoom: 1 };
    this.pinned = -1;
    this.drag = null;
    this.listen();
    new ResizeObserver(() => this.redraw()).observe(canvas);
  }

  /* Pixels of the canvas for each unit. */
  get scale() { return this.canvas.clientWidth / 65535 * this.view.zoom; }
  get tall() { return this.canvas.clientHeight / this.canvas.clientWidth * 65535; }
  place(x, y) { return [(x - this.view.x) * this.scale, (y - this.view.y) * this.scale]; }
  unplace(event) {
    const box = this.canvas.getBoundingClientRect();
    return [this.view.x + (event.clientX - box.left) / this.scale, this.view.y + (event.clientY - box.top) / this.scale];
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = null; this.draw(); });
  }

  draw() {
    const density = Math.min(devicePixelRatio || 1, 2), canvas = this.canvas;
    const width = canvas.width = Math.max(1, Math.round(canvas.clientWidth * density));
    const height = canvas.height = Math.max(1, Math.round(canvas.clientHeight * density));
    const context = canvas.getContext("2d", { alpha: false });
    const style = getComputedStyle(canvas), ground = rgb(style.backgroundColor), dark = ground[0] + ground[1] + ground[2] < 384;
    const image = context.createImageData(width, height), out = image.data;
    new Uint32Array(out.buffer).fill(new Uint32Array(new Uint8ClampedArray([...ground, 255]).buffer)[0]);
    const radius = this.radius * Math.min(width / density / 1000 + 0.45, 1.4) * this.view.zoom ** 0.35 * density;
    const colours = this.looks.map(look => dark ? look.colour.map(c => Math.round(0.72 * c + 0.28 * 255)) : look.colour);
    const stamps = [false, true].map(triangle => stamp(radius, triangle));
    const scale = this.scale * density, left = this.view.x, top = this.view.y;
    const { x, y, look, order, hidden, looks } = this;
    for (let step = 0; step < order.length; step++) {
      const i = order[step], kind = look[i];
      const px = (x[i] - left) * scale, py = (y[i] - top) * scale;
      if (px < -9 || py < -9 || px > width + 9 || py > height + 9 || hidden.has(kind)) continue;
      const { side, fill, rim } = stamps[looks[kind].triangle ? 1 : 0], colour = colours[kind];
      const x0 = Math.round(px - side / 2), y0 = Math.round(py - side / 2);
      for (let row = 0; row < side; row++) {
        const yy = y0 + row;
        if (yy < 0 || yy >= height) continue;
        for (let column = 0; column < side; column++) {
          const xx = x0 + column, cell = row * side + column;
          if (xx < 0 || xx >= width || !fill[cell] && !rim[cell]) continue;
          const at = 4 * (yy * width + xx), f = fill[cell], r = rim[cell], rest = 1 - f - r;
          out[at] = colour[0] * f + ground[0] * r + out[at] * rest;
          out[at + 1] = colour[1] * f + ground[1] * r + out[at + 1] * rest;
          out[at + 2] = colour[2] * f + ground[2] * r + out[at + 2] * rest;
        }
      }
    }
    context.putImageData(image, 0, 0);
    context.setTransform(density, 0, 0, density, 0, 0);
    this.write(context, style, ground, colours, radius / density);
  }

  write(context, style, ground, colours, radius) {
    const paper = `rgb(${ground})`;
    context.lineWidth = 1.7;
    context.strokeStyle = style.color;
    for (const i of this.ringed) if (!this.hidden.has(this.look[i])) this.ring(context, i, Math.max(2 * radius, 6));
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    const size = Math.min(17, Math.max(12, this.canvas.clientWidth / 52));
    context.font = `700 ${size}px ${style.fontFamily}`;
    for (const name of this.names) {
      if (this.hidden.has(name.look)) continue;
      const at = this.place(name.x, name.y);
      context.strokeStyle = paper;
      context.lineWidth = 4;
      context.strokeText(name.text, ...at);
      context.fillStyle = `rgb(${colours[name.look]})`;
      context.fillText(name.text, ...at);
    }
    if (this.pinned >= 0) {
      context.strokeStyle = style.color;
      context.lineWidth = 2.5;
      this.ring(context, this.pinned, Math.max(1.7 * radius, 5));
    }
  }

  ring(context, i, radius) {
    const [x, y] = this.place(this.x[i], this.y[i]);
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.stroke();
  }

  nearest(event) {
    const [x, y] = this.unplace(event);
    let best = -1, least = (22 / this.scale) ** 2;
    for (let i = 0; i < this.x.length; i++) {
      const d = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
      if (d < least && !this.hidden.has(this.look[i])) { least = d; best = i; }
    }
    return best;
  }

  show(i) {
    this.pinned = i;
    this.changed(i, ...(i < 0 ? [0, 0] : this.place(this.x[i], this.y[i])));
    this.redraw();
  }

  move(x, y, zoom) {
    zoom = Math.min(Scatter.MOST_ZOOM, Math.max(1, zoom));
    const clamp = (value, whole) => Math.min(whole - whole / zoom, Math.max(0, value));
    this.view = { x: clamp(x, 65535), y: clamp(y, this.tall), zoom };
    this.canvas.style.touchAction = zoom > 1 ? "none" : "";
    this.held = false;
    this.show(-1);
  }

  zoom(factor, [x, y]) {
    const zoom = Math.min(Scatter.MOST_ZOOM, Math.max(1, this.view.zoom * factor)), share = this.view.zoom / zoom;
    this.move(x - (x - this.view.x) * share, y - (y - this.view.y) * share, zoom);
  }

  get centre() { return [this.view.x + 65535 / this.view.zoom / 2, this.view.y + this.tall / this.view.zoom / 2]; }

  toggle(look) {
    const shown = this.hidden.delete(look);
    if (!shown) this.hidden.add(look);
    this.held = false;
    this.show(-1);
    return shown;
  }

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("pointermove", event => {
      if (this.drag) {
        const { x, y, from } = this.drag, dx = event.clientX - from.clientX, dy = event.clientY - from.clientY;
        this.drag.moved ||= Math.hypot(dx, dy) > 4;
        this.move(x - dx / this.scale, y - dy / this.scale, this.view.zoom);
      } else if (!this.held && event.pointerType === "mouse") {
        const i = this.nearest(event);
        if (i !== this.pinned) this.show(i);
      }
    });
    canvas.addEventListener("pointerdown", event => {
      if (this.view.zoom > 1) this.drag = { x: this.view.x, y: this.view.y, from: event, moved: false };
    });
    addEventListener("pointerup", () => setTimeout(() => { this.drag = null; }));
    canvas.addEventListener("pointerleave", () => { if (!this.held && !this.drag) this.show(-1); });
    canvas.addEventListener("click", event => {
      if (this.drag && this.drag.moved) return;
      const i = this.nearest(event);
      this.held = i >= 0;
      this.show(i);
    });
    canvas.addEventListener("wheel", event => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 200), this.unplace(event));
    }, { passive: false });
    canvas.addEventListener("keydown", event => {
      const step = 65535 / this.view.zoom / 8, { x, y, zoom } = this.view;
      const steps = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (event.key === "+" || event.key === "=") this.zoom(1.6, this.centre);
      else if (event.key === "-") this.zoom(1 / 1.6, this.centre);
      else if (steps[event.key]) this.move(x + steps[event.key][0], y + steps[event.key][1], zoom);
      else return;
      event.preventDefault();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }
}

/* A disc or a triangle with a thin rim of the ground: how much each pixel is covered by fill and by rim. */
function stamp(radius, triangle) {
  const side = Math.max(1, Math.ceil(2 * radius * (triangle ? 1.2 : 1) + 1)), middle = side / 2, opacity = 0.85;
  const rim = radius > 2.5 ? Math.min(0.6, radius / 8) : 0, fills = new Float32Array(side * side), rims = new Float32Array(side * side);
  const inside = (x, y, r) => triangle ? y <= 0.9 * r && y >= -1.1 * r && Math.abs(x) <= 0.575 * (y + 1.1 * r) : x * x + y * y <= r * r;
  for (let cell = 0; cell < side * side; cell++) {
    let fill = 0, edge = 0;
    for (let part = 0; part < 16; part++) {
      const x = cell % side + (part % 4 + 0.5) / 4 - middle, y = Math.floor(cell / side) + (Math.floor(part / 4) + 0.5) / 4 - middle;
      if (inside(x, y, radius - rim)) fill++; else if (inside(x, y, radius)) edge++;
    }
    fills[cell] = fill / 16 * opacity;
    rims[cell] = edge / 16 * opacity;
  }
  return { side, fill: fills, rim: rims };
}

/* The same random order each time, so that no class hides another. */
function shuffled(count) {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  let seed = 1;
  for (let i = count - 1; i > 0; i--) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const j = Math.floor(seed / 4294967296 * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

function rgb(colour) { return colour.match(/[\d.]+/g).slice(0, 3).map(Number); }
