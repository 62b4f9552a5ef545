// Labels that are set and items that are excluded by the keyboard: shown at once, sent one request after the other, and undone one by one.

import { send } from "./api.js";

const done = [];
const waiting = [];
let sending = false;
let listener = () => {};

/** Call back with the number of changes that are not saved yet, and after each answer with its version or error. */
export const onSaved = (run) => (listener = run);
export const canUndo = () => done.length > 0;

/** Set the `label` of a row, or why it is `excluded`; the same value again changes nothing. */
export function assign(row, value, what = "label", undone = false) {
  if ((row[what] ?? null) === value) return false;
  const edit = { what, row: row.row, value, was: row[what] ?? null };
  if (!undone) done.push({ ...edit, target: row });
  row[what] = value;
  waiting.push(edit);
  flush();
  return true;
}

/** Remember how to take back a change that is not one of a row. */
export const remember = (back) => done.push({ back });

/** Take back the last change; return the row that has its old value again, or null. */
export function undo() {
  const last = done.pop();
  if (!last) return null;
  if (last.back) {
    last.back();
    return null;
  }
  assign({ row: last.row, [last.what]: last.value }, last.was, last.what, true);
  last.target[last.what] = last.was;
  return last;
}

async function flush() {
  if (sending) return;
  sending = true;
  while (waiting.length) {
    // A row that was changed twice meanwhile goes into the next request, as all of one are written together.
    const rows = new Set();
    const { what } = waiting[0];
    let count = 0;
    while (count < waiting.length && count < 500 && waiting[count].what === what && !rows.has(waiting[count].row)) rows.add(waiting[count++].row);
    const edits = waiting.slice(0, count).map(({ row, value, was }) => ({ row, value, was }));
    listener(waiting.length);
    try {
      const { at } = await send(what === "label" ? "labels" : "excluded", { edits }, "PUT");
      waiting.splice(0, count);
      listener(waiting.length, at);
    } catch (error) {
      waiting.length = done.length = 0; // what the page shows is fetched again
      listener(0, null, error);
    }
  }
  sending = false;
}

addEventListener("beforeunload", (event) => waiting.length && event.preventDefault());
