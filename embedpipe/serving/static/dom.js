// Elements are made by these functions only: what comes from a store becomes text, never HTML.

export const $ = (id) => document.getElementById(id);

/** Make an element with properties (attributes where the name has a hyphen) and children: elements or texts. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const number = (value) => value.toLocaleString("en-US");

/** Call a function once things have been quiet for a while. */
export function later(run, wait) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...values), wait);
  };
}
