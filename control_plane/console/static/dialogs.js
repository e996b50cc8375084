// Dialogs that ask, and the line that tells what was done.
import { el, find } from "./dom.js";

/** Asks before something is done. `fields`: {name, label, kind, value, min, max, hint}. What `run` throws
 * is shown and the dialog stays; `changed` is called with other values. Answers what it gave, or null where it was cancelled. */
export function ask({ title, text = [], fields = [], action, danger = false, run, changed = () => {} }) {
  return new Promise((resolve) => {
    const problem = el("div", { className: "notice bad", role: "alert", hidden: true });
    const inputs = new Map(fields.map((field) => [field.name, input(field)]));
    const go = el("button", { type: "submit", className: danger ? "danger" : "primary" }, action);
    const form = el("form", { method: "dialog" },
      el("h2", { id: "dialog-title" }, title), ...[text].flat().map((one) => (typeof one === "string" ? el("p", {}, one) : one)),
      ...fields.map((field) => labelled(field, inputs.get(field.name))), problem,
      el("div", { className: "actions" }, el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), go));
    const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, form);
    let result = null;
    form.addEventListener("change", () => changed(valuesOf(inputs)));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (go.disabled) return;
      go.disabled = true;
      problem.hidden = true;
      try {
        result = (await run(valuesOf(inputs))) ?? true;
        dialog.close();
      } catch (error) {
        problem.textContent = error.message;
        problem.hidden = false;
        go.disabled = false;
      }
    });
    dialog.addEventListener("close", () => { dialog.remove(); resolve(result); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function input({ name, kind = "text", value = "", ...more }) {
  const { label, hint, options, ...attributes } = more;
  if (options) return el("select", { name, ...attributes }, options.map((one) => el("option", { value: one, selected: one === value }, one)));
  const made = el("input", { name, type: kind, ...(kind === "checkbox" ? { checked: value } : { value }), ...attributes });
  if (kind === "text") made.autocomplete = "off";
  return made;
}

function labelled({ label, hint, kind }, made) {
  if (hint) made.setAttribute("aria-description", hint);
  const small = hint ? el("span", { className: "small muted" }, hint) : null;
  return kind === "checkbox" ? el("label", {}, made, ` ${label} `, small) : el("label", { className: "field" }, label, made, small);
}

function valuesOf(inputs) {
  const value = (one) => (one.type === "checkbox" ? one.checked : one.type === "number" ? Number(one.value) : one.value.trim());
  return Object.fromEntries([...inputs].map(([name, one]) => [name, value(one)]));
}

/** Tells what was done, for some seconds; a screen reader says it when it has a moment. */
export function tell(text, isBad = false) {
  const line = el("p", { className: isBad ? "bad" : "" }, text);
  find("told").append(line);
  setTimeout(() => line.remove(), isBad ? 15000 : 7000);
}

/** Shows in a place of the page what went wrong, in words; nothing: it is well again. */
export function showProblem(place, error) {
  const text = error ? error.message : "";
  if (place.textContent === text) return;
  place.replaceChildren(...(text ? [el("div", { className: "notice bad", role: "alert" }, text)] : []));
}
