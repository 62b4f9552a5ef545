"use strict";
(() => {
  const items = JSON.parse(document.getElementById("items").textContent);
  const svg = document.getElementById("map"), card = document.getElementById("card");
  const mark = document.getElementById("mark"), picture = document.getElementById("picture");
  const sprite = document.getElementById("sprite");
  const whole = svg.viewBox.baseVal, width = whole.width, height = whole.height;
  let view = { x: 0, y: 0, zoom: 1 }, hidden = new Set(), pinned = false, drag = null;

  function toMap(event) {
    const box = svg.getBoundingClientRect(), scale = width / view.zoom / box.width;
    return { x: view.x + (event.clientX - box.left) * scale, y: view.y + (event.clientY - box.top) * scale, scale };
  }
  function nearest(at) {
    let best = -1, least = (22 * at.scale) ** 2;
    for (let i = 0; i < items.x.length; i++) {
      if (hidden.has(items.kind[i])) continue;
      const d = (items.x[i] - at.x) ** 2 + (items.y[i] - at.y) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }
  function write(id, text) {
    const element = document.getElementById(id);
    element.textContent = text || "";
    element.hidden = !text;
  }
  function show(i) {
    card.hidden = i < 0;
    mark.toggleAttribute("hidden", i < 0);
    if (i < 0) return;
    mark.setAttribute("cx", items.x[i]);
    mark.setAttribute("cy", items.y[i]);
    const tile = items.tile[i];
    picture.hidden = tile < 0;
    if (tile >= 0) {
      const side = 144, scale = side / items.side;
      sprite.style.width = `${items.columns * side}px`;
      sprite.style.transform = `translate(${-(tile % items.columns) * side}px, ${-Math.floor(tile / items.columns) * side}px)`;
    }
    write("label", items.label[i] === null ? "no label" : items.label[i]);
    write("doubt", items.doubt[i]);
    write("text", items.text[i]);
    write("name", items.id[i]);
    const box = svg.getBoundingClientRect(), frame = svg.parentElement.getBoundingClientRect();
    const x = (items.x[i] - view.x) / width * view.zoom * box.width, y = (items.y[i] - view.y) / width * view.zoom * box.width;
    const left = x + 16 + card.offsetWidth < frame.width ? x + 16 : x - 16 - card.offsetWidth;
    card.style.left = `${Math.max(0, Math.min(left, frame.width - card.offsetWidth))}px`;
    card.style.top = `${Math.max(0, Math.min(y - card.offsetHeight / 2, box.height - card.offsetHeight))}px`;
  }
  function look() {
    view.zoom = Math.min(40, Math.max(1, view.zoom));
    view.x = Math.min(width - width / view.zoom, Math.max(0, view.x));
    view.y = Math.min(height - height / view.zoom, Math.max(0, view.y));
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${width / view.zoom} ${height / view.zoom}`);
    svg.style.touchAction = view.zoom > 1 ? "none" : "";
    svg.style.setProperty("--zoom", view.zoom ** 0.7);
    show(-1);
  }
  function zoom(factor, at) {
    const before = view.zoom;
    view.zoom = Math.min(40, Math.max(1, view.zoom * factor));
    view.x = at.x - (at.x - view.x) * before / view.zoom;
    view.y = at.y - (at.y - view.y) * before / view.zoom;
    look();
  }
  const centre = () => ({ x: view.x + width / view.zoom / 2, y: view.y + height / view.zoom / 2 });

  svg.addEventListener("pointermove", event => {
    if (drag) {
      const scale = width / view.zoom / svg.getBoundingClientRect().width;
      view.x = drag.x - (event.clientX - drag.at.clientX) * scale;
      view.y = drag.y - (event.clientY - drag.at.clientY) * scale;
      drag.moved ||= Math.hypot(event.clientX - drag.at.clientX, event.clientY - drag.at.clientY) > 4;
      look();
    } else if (!pinned && event.pointerType === "mouse") show(nearest(toMap(event)));
  });
  svg.addEventListener("pointerdown", event => {
    if (view.zoom > 1) drag = { x: view.x, y: view.y, at: event, moved: false };
  });
  addEventListener("pointerup", () => setTimeout(() => { drag = null; }));
  svg.addEventListener("pointerleave", () => { if (!pinned) show(-1); });
  svg.addEventListener("click", event => {
    if (drag && drag.moved) return;
    const i = nearest(toMap(event));
    pinned = i >= 0;
    show(i);
  });
  svg.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), toMap(event));
  }, { passive: false });
  document.getElementById("closer").addEventListener("click", () => zoom(1.6, centre()));
  document.getElementById("wider").addEventListener("click", () => zoom(1 / 1.6, centre()));
  for (const button of document.querySelectorAll("button[data-kind]")) {
    button.addEventListener("click", () => {
      const kind = Number(button.dataset.kind), shown = hidden.delete(kind);
      if (!shown) hidden.add(kind);
      button.setAttribute("aria-pressed", String(shown));
      for (const point of svg.querySelectorAll(`.k${kind}`)) point.style.display = shown ? "" : "none";
      pinned = false;
      show(-1);
    });
  }
  for (const link of document.querySelectorAll("a[data-item]")) {
    link.addEventListener("click", () => { view.zoom = 1; look(); pinned = true; show(Number(link.dataset.item)); });
  }
  document.body.classList.add("live");
})();
