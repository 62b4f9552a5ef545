// Findings of `clean`: items side by side, and one key to accept a label, to exclude an item, or to dismiss a finding.

import { el, number } from "./dom.js";
import { pictureOf, read, store } from "./api.js";

const PAGE = 50;

export class FindingsView {
  /** `set(row, value)` and `exclude(row, reason)` change an item, where that is allowed; `remember(back)` is how to undo a
   * dismissal; `open(row)` shows an item. */
  constructor(root, { kinds, edit, isText, set, exclude, remember, choose, open, report }) {
    Object.assign(this, { root, kinds, edit, isText, set, exclude, remember, choose, open, report });
    this.dismissed = new Set(JSON.parse(kept(this.place()) || "[]"));
    this.chips = el("div", { className: "kinds", role: "group", "aria-label": "Kinds of findings" });
    this.meaning = el("p", { className: "note" });
    this.list = el("div", { className: "found" });
    this.more = el("button", { onclick: () => this.load().catch(report) });
    root.replaceChildren(this.chips, this.meaning, this.list, this.more);
    this.root.addEventListener("focusin", (event) => this.mark(event.target.closest(".finding")));
  }

  place = () => `dismissed ${store.key}`;

  /** Show the findings of a kind, fetched anew. */
  async show(name) {
    this.kind = this.kinds.find((each) => each.kind === name) ?? this.kinds[0];
    this.chips.replaceChildren(...this.kinds.map((each) => el("button", { "aria-pressed": String(each === this.kind), onclick: () => this.choose(each.kind) }, each.heading, el("span", { className: "count" }, number(each.count)))));
    this.meaning.textContent = this.kind.meaning;
    this.found = [];
    this.list.replaceChildren();
    if (!(await this.load())) return;
    this.root.scrollTop = 0;
    this.mark(this.list.firstElementChild);
  }

  /** Load more findings; return whether they are still those to show. */
  async load() {
    const { found } = this;
    const { total, findings } = await read("findings", { kind: this.kind.kind, start: found.length, count: PAGE });
    if (found !== this.found) return false;
    for (const finding of findings) {
      const card = el("article", { className: "finding", tabIndex: 0 });
      card.finding = finding;
      this.found.push(finding);
      this.list.append(card);
      this.draw(card);
    }
    this.more.hidden = this.found.length >= total;
    this.more.textContent = `Show more of ${number(total)}`;
    return true;
  }

  /** Draw what has changed again: all cards of a row. */
  refresh(row) {
    for (const card of this.list.children) {
      const { finding } = card;
      if (finding.row.row === row || finding.related?.row === row) this.draw(card);
    }
  }

  /** Take over a value of a row that was changed, in all findings on it. */
  put(row, what, value) {
    for (const finding of this.found ?? []) for (const each of [finding.row, finding.related]) if (each?.row === row) each[what] = value;
    if (this.found) this.refresh(row);
  }

  draw(card) {
    const { finding } = card;
    const { row, related, proposed, score } = finding;
    const propose = this.proposes(finding);
    const state = this.state(finding);
    const focused = card.contains(document.activeElement) ? [...card.querySelectorAll("button")].indexOf(document.activeElement) : -1;
    card.classList.toggle("done", Boolean(state));
    card.setAttribute("aria-label", [row.id, state].filter(Boolean).join(", "));
    const accept = propose && this.edit ? el("button", { className: state ? "" : "primary", "aria-pressed": String(row.label === proposed), onclick: () => this.accept(finding) }, el("kbd", {}, "a"), `Accept ${proposed}`) : null;
    const dismiss = el("button", { "aria-pressed": String(this.dismissed.has(this.name(finding))), onclick: () => this.dismiss(finding) }, el("kbd", {}, "d"), "Dismiss");
    card.replaceChildren(
      el("div", { className: "pair" }, this.item(row, "x"), related ? this.item(related, "y") : finding.elsewhere ? el("p", { className: "note" }, finding.elsewhere) : null),
      el("div", { className: "about" },
        el("span", { className: "what" }, ...(propose ? [finding.label ?? "no label", " → ", el("strong", {}, proposed)] : [])),
        el("span", { className: "count", title: "How sure the finding is" }, score === null ? "" : score.toFixed(2)),
        el("span", { className: "state", role: "status" }, state)),
      el("div", { className: "actions" }, accept, dismiss),
    );
    if (focused >= 0) card.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
  }

  item(row, key) {
    const shown = this.isText ? el("span", { className: "whole", dir: "auto" }, row.text ?? "") : el("img", { alt: "", loading: "lazy", src: pictureOf(row.row) });
    if (!this.isText) shown.addEventListener("error", () => shown.replaceWith(el("span", { className: "missing" }, "cannot be read")));
    const exclude = this.edit ? el("button", { "aria-pressed": String(Boolean(row.excluded)), onclick: () => this.toggle(row) }, el("kbd", {}, key), row.excluded ? "Use again" : "Exclude") : null;
    return el("figure", { className: row.excluded ? "excluded" : "" },
      el("button", { className: "look", title: row.id, "aria-label": `Show ${row.id}`, onclick: () => this.open(row.row) }, shown),
      el("figcaption", {}, el("strong", {}, row.label ?? ""), el("span", { className: "id", title: row.id }, row.id), row.excluded ? el("em", { title: row.excluded }, "excluded") : null),
      exclude);
  }

  /** Whether a finding proposes another label than the one that its item had. */
  proposes = (finding) => finding.proposed !== null && finding.proposed !== finding.label;

  state(finding) {
    const { row, related, proposed } = finding;
    if (row.excluded || related?.excluded) return "excluded";
    if (this.proposes(finding) && row.label === proposed) return "accepted";
    return this.dismissed.has(this.name(finding)) ? "dismissed" : "";
  }

  name = (finding) => [this.kind.kind, finding.row.row, finding.related?.row ?? finding.elsewhere].join("|");

  accept(finding) {
    const { row, proposed, label } = finding;
    this.set(row, row.label === proposed ? label : proposed);
  }

  toggle(row) {
    this.exclude(row, row.excluded ? null : this.kind.kind);
  }

  dismiss(finding) {
    const name = this.name(finding);
    const flip = () => {
      if (!this.dismissed.delete(name)) this.dismissed.add(name);
      keep(this.place(), JSON.stringify([...this.dismissed]));
      this.refresh(finding.row.row);
    };
    flip();
    this.remember(flip);
  }

  mark(card) {
    if (!card) return;
    for (const other of this.list.querySelectorAll(".current")) other.classList.remove("current");
    card.classList.add("current");
    this.current = card;
  }

  go(by) {
    const next = by > 0 ? this.current?.nextElementSibling : this.current?.previousElementSibling;
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  /** Act on the current finding, and go on to the next; return whether the key means something here. */
  press(key) {
    const finding = this.current?.finding;
    if (!finding) return false;
    const acts = { d: () => this.dismiss(finding) };
    if (this.edit) {
      acts.x = () => this.toggle(finding.row);
      if (finding.related) acts.y = () => this.toggle(finding.related);
      if (this.proposes(finding)) acts.a = () => this.accept(finding);
    }
    const moves = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 };
    if (key in moves) this.go(moves[key]);
    else if (key in acts) {
      acts[key]();
      this.go(1);
    } else return false;
    return true;
  }
}

function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // the browser keeps nothing
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // what is dismissed is dismissed until the page is closed
  }
}
