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
  const scatter = new Scatter(canvas, {
    x: Uint16Array.from(items.x), y: Uint16Array.from(items.y), look: Uint8Array.from(items.look),
    looks: items.looks, ringed: Object.keys(items.doubt).map(Number), names: items.names, radius: items.radius,
  }, describe);
  document.getElementById("closer").addEventListener("click", () => scatter.zoom(1.6, scatter.centre));
  document.getElementById("wider").addEventListener("click", () => scatter.zoom(1 / 1.6, scatter.centre));
  for (const button of document.querySelectorAll("button[data-look]"))
    button.addEventListener("click", () => button.setAttribute("aria-pressed", String(scatter.toggle(Number(button.dataset.look)))));
  for (const link of document.querySelectorAll("a[data-item]"))
    link.addEventListener("click", () => { scatter.move(0, 0, 1); scatter.held = true; scatter.show(Number(link.dataset.item)); });
  window.scatter = scatter;
  document.body.classList.add("live");
})();
