// A table of which only the cells that changed are touched.
import { el, empty, write } from "./dom.js";

export class Rows {
  /** `numbers`: positions of the columns of numbers. On a phone each row folds into a block. */
  constructor(place, label, heads, numbers = []) {
    this.place = place;
    this.heads = heads;
    this.numbers = new Set(numbers);
    this.rows = new Map();
    this.body = el("tbody", { role: "rowgroup" });
    const head = heads.map((text, at) => el("th", { scope: "col", role: "columnheader", className: this.numbers.has(at) ? "n" : "" }, text));
    const table = el("table", { className: "table folds", role: "table", "aria-label": label }, el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)), this.body);
    this.frame = el("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
  }

  none(text) {
    if (this.place.textContent !== text) this.place.replaceChildren(empty(text));
  }

  /** `told`: {key, cells} in their order; a cell is a text or an element. */
  show(told) {
    if (this.frame.parentNode !== this.place) this.place.replaceChildren(this.frame);
    const keys = new Set(told.map((one) => one.key));
    for (const [key, row] of this.rows) if (!keys.has(key)) { row.remove(); this.rows.delete(key); }
    told.forEach(({ key, cells }, position) => {
      let row = this.rows.get(key);
      if (!row) this.rows.set(key, (row = this.rowOf()));
      cells.forEach((cell, at) => put(row.children[at], cell));
      if (this.body.children[position] !== row) this.body.insertBefore(row, this.body.children[position] || null);
    });
  }

  rowOf() {
    return el("tr", { role: "row" }, this.heads.map((text, at) => (at === 0 ? el("th", { scope: "row", role: "rowheader" })
      : el("td", { role: "cell", "data-label": text, className: this.numbers.has(at) ? "n" : "full" }))));
  }
}

/** What has the focus stays: an element that says the same as before is not replaced. */
function put(cell, value) {
  if (typeof value === "string") { write(cell, value); return; }
  const same = cell.firstElementChild;
  if (same && cell.childNodes.length === 1 && same.isEqualNode(value)) return;
  cell.replaceChildren(value);
}
