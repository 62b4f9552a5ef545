/* Points on a canvas: drawn, zoomed, moved, and found under the pointer. The page of `map` and the map of `view` use it.

   A point is a stamp, drawn once per look, which is blended into the pixels: paths take a hundred times as long. Points of a
   pixel are written as they are. What a page draws over the points is on a second canvas, so that a moving pointer redraws no points.

   new Scatter(canvas, {
     colours(ground): [[r, g, b]] of the looks on a ground, and with `faint` of points outside of the mask;
     over(context): draws over the points, in pixels of the page;
     hover(row, x, y), pick(row, x, y): the pointer is over a point, a point is clicked; row -1 for none;
     moved(): the view has moved;
     strokes(event), stroke(corners, done): whether a drag draws a line instead of moving the view, and that line;
     wheel: whether the wheel zooms without Ctrl; near: pixels in which a point is found; triangles: [look]; faint: bool }) */
export class Scatter {
  static MOST_ZOOM = 400;
  static CELLS = 256;

  constructor(canvas, options) {
    const nothing = () => {};
    Object.assign(this, { canvas, hover: nothing, pick: nothing, moved: nothing, over: nothing, strokes: () => false, stroke: nothing, near: 16, triangles: [] }, options);
    this.layer = document.createElement("canvas");
    this.layer.className = "over";
    this.layer.setAttribute("aria-hidden", "true");
    this.layer.style.cssText = "position: absolute; left: 0; top: 0; pointer-events: none;";
    canvas.after(this.layer);
    this.look = this.mask = this.shades = null;
    this.pointers = new Map();
    this.fill(new Uint16Array(), new Uint16Array(), 1, 1);
    this.listen();
    new ResizeObserver(() => this.redraw()).observe(canvas);
  }

  /** Show points in a box of wide by tall units, y downwards. */
  setPoints(x, y, wide, tall) {
    this.fill(x, y, wide, tall);
    this.showAll();
  }

  fill(x, y, wide, tall) {
    Object.assign(this, { x, y, wide, tall, view: { x: wide / 2, y: tall / 2, zoom: 1 } });
    this.order = shuffled(x.length);
    this.drawnX = Uint16Array.from(this.order, i => x[i]); // in the order of drawing: memory is read in one go
    this.drawnY = Uint16Array.from(this.order, i => y[i]);
    this.sortIntoCells();
  }

  /** Give points their looks: the places of their colours, null for the first one. */
  setLook(look) {
    this.look = look;
    this.redraw();
  }

  /** Show some points only, those whose bits are set; null for all. */
  setMask(bits) {
    this.mask = bits;
    this.redraw();
  }

  isShown(i) { return !this.mask || Boolean(this.mask[i >> 3] >> (i & 7) & 1); }

  /* Pixels for each unit, and where a point is in pixels of the canvas. */
  get scale() { return Math.min(this.canvas.clientWidth / this.wide, this.canvas.clientHeight / this.tall) * this.view.zoom; }
  place(x, y) { return [(x - this.view.x) * this.scale + this.canvas.clientWidth / 2, (y - this.view.y) * this.scale + this.canvas.clientHeight / 2]; }
  placeOf(i) { return this.place(this.x[i], this.y[i]); }
  unplace(x, y) { return [this.view.x + (x - this.canvas.clientWidth / 2) / this.scale, this.view.y + (y - this.canvas.clientHeight / 2) / this.scale]; }
  pixel(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = null; this.draw(); });
  }

  draw() {
    const start = performance.now(), density = Math.min(devicePixelRatio || 1, 2), { canvas, layer } = this;
    const width = canvas.width = layer.width = Math.max(1, Math.round(canvas.clientWidth * density));
    const height = canvas.height = layer.height = Math.max(1, Math.round(canvas.clientHeight * density));
    layer.style.width = `${canvas.clientWidth}px`;
    layer.style.height = `${canvas.clientHeight}px`;
    this.density = density;
    const context = canvas.getContext("2d", { alpha: false }), image = context.createImageData(width, height);
    const ground = this.ground = rgb(getComputedStyle(canvas).backgroundColor), colours = this.shades = this.colours(ground);
    new Uint32Array(image.data.buffer).fill(packed([ground])[0]);
    for (const inside of this.mask && this.faint ? [false, true] : [true]) {
      if (this.radius * density < 1.5) this.dot(image, colours, inside);
      else this.blend(image, colours, inside);
    }
    context.putImageData(image, 0, 0);
    this.milliseconds = performance.now() - start;
    this.redrawOver();
  }

  /** The radius of a point in pixels of the page. */
  get radius() {
    const usual = Math.min(6.5, Math.max(0.6, 160 / Math.sqrt(this.x.length)));
    return usual * Math.min(this.canvas.clientWidth / 1000 + 0.45, 1.4) * Math.min(2.5, this.view.zoom ** 0.35);
  }

  /** Draw the points inside of the mask, or those outside, as one pixel or four: a million in a tenth of a second. */
  dot({ data, width, height }, colours, inside) {
    const { drawnX, drawnY, order, look, mask, density } = this, out = new Uint32Array(data.buffer), shades = packed(colours);
    const side = this.radius * density < 1 ? 1 : 2, right = width - side, bottom = height - side;
    const scale = this.scale * density, left = width / 2 - this.view.x * scale, top = height / 2 - this.view.y * scale;
    for (let step = 0; step < order.length; step++) {
      const x = Math.floor(drawnX[step] * scale + left), y = Math.floor(drawnY[step] * scale + top);
      if (x < 0 || y < 0 || x > right || y > bottom) continue;
      const i = order[step];
      if (mask && Boolean(mask[i >> 3] >> (i & 7) & 1) !== inside) continue;
      const at = y * width + x, shade = shades[!inside ? colours.length - 1 : look ? look[i] : 0];
      out[at] = shade;
      if (side === 2) out[at + 1] = out[at + width] = out[at + width + 1] = shade;
    }
  }

  /** Blend the points inside of the mask, or those outside, into an image. */
  blend({ data: out, width, height }, colours, inside) {
    const { drawnX, drawnY, order, look, mask, ground, density } = this;
    const stamps = [false, true].map(triangle => stamp(this.radius * density, triangle, width));
    const kinds = colours.map((_, kind) => stamps[this.triangles.includes(kind) ? 1 : 0]);
    const scale = this.scale * density, left = width / 2 - this.view.x * scale, top = height / 2 - this.view.y * scale;
    for (let step = 0; step < order.length; step++) {
      const px = drawnX[step] * scale + left, py = drawnY[step] * scale + top;
      if (px < -9 || py < -9 || px > width + 9 || py > height + 9) continue;
      const i = order[step];
      if (mask && Boolean(mask[i >> 3] >> (i & 7) & 1) !== inside) continue;
      const kind = !inside ? colours.length - 1 : look ? look[i] : 0, colour = colours[kind];
      const { side, offsets, columns, fill, rim } = kinds[kind];
      const x0 = Math.round(px - side / 2), y0 = Math.round(py - side / 2), corner = y0 * width + x0;
      const whole = x0 >= 0 && x0 + side <= width;
      for (let cell = 0; cell < offsets.length; cell++) {
        const at = 4 * (corner + offsets[cell]), f = fill[cell], r = rim[cell], rest = 1 - f - r;
        if (at < 0 || at >= out.length || !whole && (x0 + columns[cell] < 0 || x0 + columns[cell] >= width)) continue;
        out[at] = colour[0] * f + ground[0] * r + out[at] * rest;
        out[at + 1] = colour[1] * f + ground[1] * r + out[at + 1] * rest;
        out[at + 2] = colour[2] * f + ground[2] * r + out[at + 2] * rest;
      }
    }
  }

  redrawOver() {
    if (!this.shades) return;
    const context = this.layer.getContext("2d");
    context.setTransform(this.density, 0, 0, this.density, 0, 0);
    context.clearRect(0, 0, this.layer.width, this.layer.height);
    this.over(context);
  }

  ring(context, i, radius) {
    context.beginPath();
    context.arc(...this.placeOf(i), radius, 0, 7);
    context.stroke();
  }

  /** Sort the points into cells, so that the one under the pointer is found at once. */
  sortIntoCells() {
    const { x, y, wide, tall } = this, cells = Scatter.CELLS, cell = i => this.cellOf(x[i], wide) + cells * this.cellOf(y[i], tall);
    this.starts = new Uint32Array(cells * cells + 1);
    for (let i = 0; i < x.length; i++) this.starts[cell(i) + 1]++;
    for (let i = 1; i <= cells * cells; i++) this.starts[i] += this.starts[i - 1];
    const next = this.starts.slice();
    this.members = new Uint32Array(x.length);
    for (let i = 0; i < x.length; i++) this.members[next[cell(i)]++] = i;
  }

  cellOf(value, whole) { return Math.max(0, Math.min(Scatter.CELLS - 1, Math.floor(value / whole * Scatter.CELLS))); }

  /** Return the point near a pixel, -1 for none. */
  nearest(pixel) {
    const [x, y] = this.unplace(...pixel), reach = this.near / this.scale, { wide, tall } = this;
    let best = -1, least = reach ** 2;
    for (let b = this.cellOf(y - reach, tall); b <= this.cellOf(y + reach, tall); b++) {
      for (let a = this.cellOf(x - reach, wide); a <= this.cellOf(x + reach, wide); a++) {
        const cell = a + Scatter.CELLS * b;
        for (let k = this.starts[cell]; k < this.starts[cell + 1]; k++) {
          const i = this.members[k], far = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
          if (far < least && this.isShown(i)) [best, least] = [i, far];
        }
      }
    }
    return best;
  }

  /** Move the view to a middle. Where all fits, it stays in the middle; else no edge is left. */
  move(x, y, zoom = this.view.zoom) {
    this.view.zoom = Math.min(Scatter.MOST_ZOOM, Math.max(1, zoom));
    const within = (value, whole, pixels) => {
      const half = pixels / this.scale / 2;
      return 2 * half >= whole ? whole / 2 : Math.min(whole - half, Math.max(half, value));
    };
    this.view.x = within(x, this.wide, this.canvas.clientWidth);
    this.view.y = within(y, this.tall, this.canvas.clientHeight);
    this.canvas.style.touchAction = this.view.zoom > 1 || this.wheel ? "none" : "";
    this.moved();
    this.redraw();
  }

  /** Zoom, and keep what is at a pixel where it is. */
  zoomBy(factor, pixel = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2]) {
    const [x, y] = this.unplace(...pixel), zoom = Math.min(Scatter.MOST_ZOOM, Math.max(1, this.view.zoom * factor));
    const share = this.view.zoom / zoom;
    this.move(x + (this.view.x - x) * share, y + (this.view.y - y) * share, zoom);
  }

  showAll() { this.move(this.wide / 2, this.tall / 2, 1); }

  listen() {
    const canvas = this.canvas, on = (kind, run) => canvas.addEventListener(kind, run);
    on("pointerdown", event => this.press(event));
    on("pointermove", event => this.drag(event));
    on("pointerup", event => this.release(event));
    on("pointercancel", event => this.release(event));
    on("click", event => { if (!(this.travelled > 3)) this.pick(this.nearest(this.pixel(event)), ...this.pixel(event)); });
    on("pointerleave", () => { if (!this.pointers.size) this.hover(-1, 0, 0); });
    canvas.addEventListener("wheel", event => {
      if (!this.wheel && !event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoomBy(Math.exp(-Math.sign(event.deltaY) * Math.min(0.4, Math.abs(event.deltaY) / 250)), this.pixel(event));
    }, { passive: false });
    on("keydown", event => {
      const step = this.wide / this.view.zoom / 8, { x, y } = this.view;
      const steps = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "+" || event.key === "=") this.zoomBy(1.6);
      else if (event.key === "-") this.zoomBy(1 / 1.6);
      else if (event.key === "0") this.showAll();
      else if (steps[event.key]) this.move(x + steps[event.key][0], y + steps[event.key][1]);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  press(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.pixel(event));
    this.travelled = 0;
    this.line = this.pointers.size === 1 && this.strokes(event) ? [this.unplace(...this.pixel(event))] : null;
  }

  drag(event) {
    const to = this.pixel(event), from = this.pointers.get(event.pointerId);
    if (!from) {
      if (event.pointerType !== "touch") this.hover(this.nearest(to), ...to);
      return;
    }
    this.travelled += Math.hypot(to[0] - from[0], to[1] - from[1]);
    this.pointers.set(event.pointerId, to);
    if (this.line) {
      this.line.push(this.unplace(...to));
      this.stroke(this.line, false);
    } else if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const length = place => Math.max(1, Math.hypot(place[0] - other[0], place[1] - other[1]));
      this.zoomBy(length(to) / length(from), other);
    } else if (this.travelled > 3) this.move(this.view.x - (to[0] - from[0]) / this.scale, this.view.y - (to[1] - from[1]) / this.scale);
  }

  release(event) {
    const line = this.line;
    this.pointers.delete(event.pointerId);
    this.line = null;
    if (line) this.stroke(line, true);
  }
}

/** Return red, green and blue of a colour of CSS. */
export function rgb(colour) {
  const pen = rgb.pen ||= Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data.subarray(0, 3)];
}

/* Colours as they lie in the pixels of an image. */
function packed(colours) { return new Uint32Array(new Uint8ClampedArray(colours.flatMap(colour => [...colour, 255])).buffer); }

/* A disc or a triangle with a thin rim of the ground: the pixels of an image that it touches, and how much of them. */
function stamp(radius, triangle, width) {
  const side = Math.max(1, Math.ceil(2 * radius * (triangle ? 1.2 : 1) + 1)), middle = side / 2, opacity = 0.85;
  const rim = radius > 2.5 ? Math.min(0.6, radius / 8) : 0, cells = [];
  const inside = (x, y, r) => triangle ? y <= 0.9 * r && y >= -1.1 * r && Math.abs(x) <= 0.575 * (y + 1.1 * r) : x * x + y * y <= r * r;
  for (let cell = 0; cell < side * side; cell++) {
    const column = cell % side, row = Math.floor(cell / side);
    let fill = 0, edge = 0;
    for (let part = 0; part < 16; part++) {
      const x = column + (part % 4 + 0.5) / 4 - middle, y = row + (Math.floor(part / 4) + 0.5) / 4 - middle;
      if (inside(x, y, radius - rim)) fill++; else if (inside(x, y, radius)) edge++;
    }
    if (fill || edge) cells.push({ offset: row * width + column, column, fill: fill / 16 * opacity, rim: edge / 16 * opacity });
  }
  const list = (type, name) => type.from(cells, cell => cell[name]);
  return { side, offsets: list(Int32Array, "offset"), columns: list(Int32Array, "column"), fill: list(Float32Array, "fill"), rim: list(Float32Array, "rim") };
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
