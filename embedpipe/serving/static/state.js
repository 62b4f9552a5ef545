// What is shown, as the part of the address after #, so that a link shows the same again.

const DEFAULTS = { key: "", near: "", words: "", where: "", is: {}, within: "", order: "id", view: "gallery", colour: "label", size: "170", item: "", kind: "" };
let state = parse();
const listeners = [];

function parse() {
  const given = new URLSearchParams(location.hash.slice(1));
  const found = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) {
    if (!given.has(name)) continue;
    found[name] = name === "is" ? parseClasses(given.get(name)) : given.get(name);
  }
  return found;
}

function parseClasses(text) {
  try {
    const value = JSON.parse(text);
    const lists = Object.entries(value).filter(([, values]) => Array.isArray(values) && values.length);
    return Object.fromEntries(lists);
  } catch {
    return {};
  }
}

function address() {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    const text = name === "is" ? (Object.keys(value).length ? JSON.stringify(value) : "") : value;
    if (text && text !== DEFAULTS[name]) parts.set(name, text);
  }
  return `#${parts}`;
}

export const current = () => state;
export const onChange = (listener) => listeners.push(listener);

/** Change the state. A new entry of the history is made unless the change is a small one. */
export function change(values, small = false) {
  const before = state;
  state = { ...state, ...values };
  const target = address();
  if (target !== (location.hash || "#")) history[small ? "replaceState" : "pushState"](null, "", target);
  for (const listener of listeners) listener(state, before);
}

addEventListener("popstate", () => {
  const before = state;
  state = parse();
  for (const listener of listeners) listener(state, before);
});
