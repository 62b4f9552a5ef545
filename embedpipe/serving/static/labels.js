// Labels that are set by the keyboard: shown at once, sent one request after the other, and undone one by one.

import { send } from "./api.js";

const done = [];
const waiting = [];
let sending = false;
let listener = () => {};

/** Call back with the number of labels that are not saved yet, and after each answer with its version or error. */
export const onSaved = (run) => (listener = run);
export const canUndo = () => done.length > 0;

/** Set the label of a row (an object with `row` and `label`); the same label again changes nothing. */
export function assign(row, value, undone = false) {
  if ((row.label ?? null) === value) return false;
  const edit = { row: row.row, value, was: row.label ?? null };
  if (!undone) done.push({ ...edit, target: row });
  row.label = value;
  waiting.push(edit);
  flush();
  return true;
}

/** Take back the last label; return the row that has its old label again, or null. */
export function undo() {
  const last = done.pop();
  if (!last) return null;
  assign({ row: last.row, label: last.value }, last.was, true);
  last.target.label = last.was;
  return last;
}

async function flush() {
  if (sending) return;
  sending = true;
  while (waiting.length) {
    // A row that was labelled twice meanwhile goes into the next request, as all of one are written together.
    const rows = new Set();
    let count = 0;
    while (count < waiting.length && count < 500 && !rows.has(waiting[count].row)) rows.add(waiting[count++].row);
    const edits = waiting.slice(0, count);
    listener(waiting.length);
    try {
      const { at } = await send("labels", { edits }, "PUT");
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
