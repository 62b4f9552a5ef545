// The page of a head: a picture is picked or dropped, or a text written, and its prediction shown.

import { $, el } from "./dom.js";

const about = await (await fetch("health")).json();
$("title").textContent = `${about.head} of ${about.label}`;
$("about").textContent = `Predicts ${about.label} of ${about.modality === "image" ? "a picture" : "a text"}, by vectors of ${about.backbone}.`;

async function predict(body, kind) {
  $("answer").replaceChildren("…");
  const answer = await fetch("api/predict", { method: "POST", body, headers: { "content-type": kind } }).catch(() => null);
  const found = answer ? await answer.json() : { error: "The server does not answer." };
  $("answer").replaceChildren(...(found.error ? [el("p", { className: "wrong" }, found.error)] : shown(found)));
}

function shown({ prediction, probabilities, details }) {
  const best = Object.entries(probabilities).sort((a, b) => b[1] - a[1]).slice(0, 5);
  const shares = best.map(([name, share]) => {
    if (about.output === "scores") return el("li", {}, el("span", { className: "value" }, name), el("span", { className: "count" }, share.toFixed(3)));
    const bar = el("span", { className: "bar" });
    bar.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
    return el("li", {}, el("span", { className: "value" }, name), el("span", { className: "count" }, `${(100 * share).toFixed(1)} %`), el("span", { className: "track" }, bar));
  });
  const rest = Object.entries(details).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]);
  return [el("h3", {}, String(prediction)), el("ul", { className: "shares" }, ...shares), el("dl", {}, ...rest)];
}

function picture(file) {
  if (!file) return;
  $("given").querySelector("img").src = URL.createObjectURL(file);
  predict(file, "application/octet-stream");
}

if (about.modality === "image") {
  const pick = el("input", { type: "file", accept: "image/*", "aria-label": "Picture", onchange: () => picture(pick.files[0]) });
  $("given").append(el("p", {}, "Pick a picture, or drop one here."), pick, el("img", { alt: "" }));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    picture(event.dataTransfer.files[0]);
  });
} else {
  const text = el("textarea", { rows: 4, "aria-label": "Text", placeholder: "A text to predict" });
  const send = () => text.value && predict(JSON.stringify({ text: text.value }), "application/json");
  $("given").append(text, el("button", { className: "primary", onclick: send }, "Predict"));
}
