// A table whose heads sort it, by a click or the keyboard.
import { el, empty } from "./dom.js";
import { Rows } from "./rows.js";

export class SortableRows {
  /** `columns`: [name, head, "n" of numbers]; `changed` is called when another order is asked for. */
  constructor(table, label, columns, by, changed) {
    this.by = by;
    this.isUp = false;
    const frame = table.parentNode;
    this.place = el("div");
    frame.replaceWith(this.place);
    this.rows = new Rows(this.place, label, columns.map(([, head]) => head), columns.flatMap(([, , kind], at) => (kind ? [at] : [])));
    this.heads = [...this.rows.frame.querySelectorAll("thead th")];
    this.heads.forEach((head, at) => {
      const [name, text] = columns[at];
      head.replaceChildren(el("button", { type: "button", onclick: () => this.sort(name, changed) }, text));
    });
    this.names = columns.map(([name]) => name);
    this.mark();
  }

  sort(name, changed) {
    this.isUp = this.by === name ? !this.isUp : name === "name" || name === "tier";
    this.by = name;
    this.mark();
    changed();
  }

  mark() {
    this.heads.forEach((head, at) => {
      if (this.names[at] === this.by) head.setAttribute("aria-sort", this.isUp ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  }

  show(told, none) {
    if (told.length) this.rows.show(told);
    else if (this.place.textContent !== none) this.place.replaceChildren(empty(none));
  }
}
