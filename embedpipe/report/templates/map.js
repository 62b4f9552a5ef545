(async () => {
  const bytes = Uint8Array.from(atob(document.getElementById("items").textContent), c => c.charCodeAt(0));
  const items = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  const card = document.getElementById("card"), picture = document.getElementById("picture");
  const sprite = document.getElementById("sprite"), canvas = document.getElementById("map");

  function write(id, text) {
    const element = document.getElementById(id);
    element.textContent = text || "";
    element.hidden = !text;
  }
  function describe(i, x, y) {
    card.hidden = i < 0;
    if (i < 0) return;
    const tile = items.tile[i] ?? -1, side = 144;
    picture.hidden = tile < 0;
    if (tile >= 0) {
      sprite.style.width = `${items.columns * side}px`;
      sprite.style.transform = `translate(${-(tile % items.columns) * side}px, ${-Math.floor(tile / items.columns) * side}px)`;
    }
    write("label", items.label && (items.label[i] ?? "no label"));
    write("doubt", items.doubt[i]);
    write("text", items.text && items.text[i]);
    write("name", items.id[i]);
    const width = canvas.clientWidth, height = canvas.clientHeight;
    const left = x + 16 + card.offsetWidth < width ? x + 16 : x - 16 - card.offsetWidth;
    card.style.left = `${Math.max(0, Math.min(left, width - card.offsetWidth))}px`;
    card.style.top = `${Math.max(0, Math.min(y - card.offsetHeight / 2, height - card.offsetHeight))}px`;
  }
  const hidden = new Set(), ringed = Object.keys(items.doubt).map(Number);
  let shown = -1, held = false;

  /* Describe a point and ring it, -1 for none. A point that was clicked is held until the view moves. */
  function show(i, hold = false) {
    held = hold && i >= 0;
    shown = i;
    describe(i, ...(i < 0 ? [0, 0] : scatter.placeOf(i)));
    scatter.redrawOver();
  }
  function drawOver(context) {
    const { ground, shades, radius } = scatter, style = getComputedStyle(canvas);
    context.lineWidth = 1.7;
    context.strokeStyle = style.color;
    for (const i of ringed) if (scatter.isShown(i)) scatter.ring(context, i, Math.max(2 * radius, 6));
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    context.font = `700 ${Math.min(17, Math.max(12, canvas.clientWidth / 52))}px ${style.fontFamily}`;
    context.lineWidth = 4;
    context.strokeStyle = `rgb(${ground})`;
    for (const name of items.names.filter(name => !hidden.has(name.look))) {
      const at = scatter.place(name.x, name.y);
      context.strokeText(name.text, ...at);
      context.fillStyle = `rgb(${shades[name.look]})`;
      context.fillText(name.text, ...at);
    }
    context.lineWidth = 2.5;
    context.strokeStyle = style.color;
    if (shown >= 0) scatter.ring(context, shown, Math.max(1.7 * radius, 5));
  }
  const onDark = colour => colour.map(c => Math.round(0.72 * c + 0.28 * 255));
  const scatter = new Scatter(canvas, {
    colours: ground => items.looks.map(({ colour }) => ground[0] + ground[1] + ground[2] < 384 ? onDark(colour) : colour),
    triangles: items.looks.flatMap(({ triangle }, look) => triangle ? [look] : []),
    near: 22,
    over: drawOver,
    hover: i => { if (!held && i !== shown) show(i); },
    pick: i => show(i, true),
    moved: () => show(-1),
  });
  scatter.setPoints(Uint16Array.from(items.x), Uint16Array.from(items.y), 65535, items.tall);
  scatter.setLook(Uint8Array.from(items.look));
  document.getElementById("closer").addEventListener("click", () => scatter.zoomBy(1.6));
  document.getElementById("wider").addEventListener("click", () => scatter.zoomBy(1 / 1.6));
  for (const button of document.querySelectorAll("button[data-look]"))
    button.addEventListener("click", () => {
      const look = Number(button.dataset.look), isShown = hidden.delete(look);
      if (!isShown) hidden.add(look);
      button.setAttribute("aria-pressed", String(isShown));
      const mask = new Uint8Array((items.look.length >> 3) + 1);
      items.look.forEach((look, i) => { if (!hidden.has(look)) mask[i >> 3] |= 1 << (i & 7); });
      scatter.setMask(mask);
      show(-1);
    });
  for (const link of document.querySelectorAll("a[data-item]"))
    link.addEventListener("click", () => { scatter.showAll(); show(Number(link.dataset.item), true); });
  window.scatter = scatter;
  document.body.classList.add("live");
})();
