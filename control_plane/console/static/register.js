// A new version from a file: dropped or chosen, sent with its progress, followed to the end of its import.
import { get, modelPath, Problem } from "./api.js";
import { tell } from "./dialogs.js";
import { el, write } from "./dom.js";
import { bytes, percent, word } from "./format.js";

const NAME = "[a-z0-9]([a-z0-9._\\-]*[a-z0-9])?(/[a-z0-9]([a-z0-9._\\-]*[a-z0-9])?)?";
const POLL_MS = 700;

/** Opens the dialog; `name` is that of the model, if it is known; `done` is called after a version came. */
export function register(name = "", done = () => {}, dropped = null) {
  let file = null, sending = null, closed = false;
  const chosen = el("p", { className: "muted" }, "Drop a file here (.pt, .onnx, or a .zip of ours), or choose one.");
  const picker = el("input", { type: "file", accept: ".pt,.pth,.onnx,.zip", "aria-label": "File of the model", onchange: () => take(picker.files[0]) });
  const drop = el("div", { className: "drop" }, chosen, picker);
  const model = el("input", { name: "model", value: name, required: true, pattern: NAME, autocomplete: "off", spellcheck: "false", "aria-describedby": "name-hint" });
  const bar = el("progress", { max: 1, value: 0, "aria-label": "Progress", hidden: true });
  const said = el("p", { role: "status", className: "muted" });
  const problem = el("div", { className: "notice bad", role: "alert", hidden: true });
  const go = el("button", { type: "submit", className: "primary" }, "Register");
  const cancel = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const form = el("form", {}, el("h2", { id: "register-title" }, "Register a model"), drop, el("label", { className: "field" }, "Name", model),
    el("p", { id: "name-hint", className: "small muted" }, "name or team/name, of a-z, 0-9, . _ and -. A name that is there gets a new version; nothing is moved to it by itself but for what a bare name means."),
    bar, said, problem, el("div", { className: "actions" }, cancel, go));
  const dialog = el("dialog", { "aria-labelledby": "register-title" }, form);

  function take(given) {
    if (!given) return;
    file = given;
    write(chosen, `${file.name}, ${bytes(file.size)}`);
    if (!model.value) model.value = file.name.toLowerCase().replace(/\.[a-z0-9]+$/, "").replace(/[^a-z0-9._-]+/g, "-").replace(/^[^a-z0-9]+|[^a-z0-9]+$/g, "");
  }
  catchDrops(drop, take);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!file) { fail(new Error("Choose a file first.")); return; }
    go.disabled = model.disabled = picker.disabled = true;
    problem.hidden = true;
    bar.hidden = false;
    try {
      const version = await send();
      tell(`${version.version.model}@${version.version.version} is registered.`);
      done();
      await follow(`${version.version.model}@${version.version.version}`);
    } catch (error) { if (!closed) fail(error); }
    go.disabled = model.disabled = picker.disabled = go.hidden;
  });
  function fail(error) {
    problem.textContent = error.message;
    problem.hidden = false;
    bar.hidden = true;
    write(said, "");
  }

  function send() {
    return new Promise((resolve, reject) => {
      sending = new XMLHttpRequest();
      sending.open("PUT", `${modelPath(model.value)}?wait=false&source_name=${encodeURIComponent(file.name)}`);
      sending.upload.onprogress = (event) => {
        bar.value = event.loaded / (event.total || 1);
        write(said, `Sending: ${bytes(event.loaded)} of ${bytes(event.total)}`);
      };
      sending.onload = () => {
        let told = {};
        try { told = JSON.parse(sending.responseText); } catch { /* no JSON */ }
        if (sending.status < 300) resolve(told); else reject(new Problem(sending.status, told));
      };
      sending.onerror = () => reject(new Problem(0, { detail: "The connection broke before the file was sent: try again." }));
      sending.onabort = () => reject(new Problem(0, { detail: "It was cancelled: nothing is registered." }));
      sending.send(file);
    });
  }

  async function follow(reference) {
    while (!closed) {
      const version = (await get(modelPath(reference))).versions[0];
      if (version.state === "VERSION_STATE_READY") {
        bar.value = 1;
        write(said, `${reference} is ready: ${version.task}, ${version.class_names.length} classes, ${bytes(version.weights_bytes)} of weights.`);
        go.hidden = true;
        cancel.focus();
        done();
        return;
      }
      if (version.state === "VERSION_STATE_FAILED") throw new Problem(0, { detail: `The import failed: ${version.message}` });
      bar.value = version.progress || 0;
      write(said, `${word(version.state, "VERSION_STATE_")}${version.step ? `: ${version.step}` : ""}, ${percent(version.progress)}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  dialog.addEventListener("close", () => { closed = true; sending?.abort(); dialog.remove(); });
  document.body.append(dialog);
  dialog.showModal();
  take(dropped);
}

/** Files that are dropped on an element: `take` gets the first one, and all. */
export function catchDrops(place, take) {
  place.addEventListener("dragover", (event) => { event.preventDefault(); place.classList.add("over"); });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    place.classList.remove("over");
    take(event.dataTransfer.files[0], event.dataTransfer.files);
  });
}
