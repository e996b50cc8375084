// The try page: pictures or the camera, asked of the models that are picked, side by side.
import { api, get } from "./api.js";
import { showProblem } from "./dialogs.js";
import { el, find, write } from "./dom.js";
import { plural } from "./format.js";
import { catchDrops } from "./register.js";
import { refusal, signedIn } from "./session.js";
import { Camera, noCamera } from "./try_camera.js";
import { Pane } from "./try_pane.js";
import { Turns } from "./try_turns.js";

const MAX_MODELS = 4, MAX_PICTURES = 24, AT_ONCE = 4, PAUSE_MS = 1000;

const session = await signedIn();
const picked = [];
const pictures = [];
const turns = new Turns(AT_ONCE);
let known = new Map(), camera = null, isMoved = false, open = 0, drawing = 0;

const least = () => Number(find("confidence").value);

// Models.

async function fetchModels() {
  try {
    const models = (await get("/v1/models")).models;
    const aliases = refusal("ListAliases") ? [] : (await get("/v1/aliases")).aliases;
    known = new Map();
    for (const model of models) {
      const ready = model.versions.filter((one) => one.state === "VERSION_STATE_READY");
      if (ready.length) known.set(model.name, ready.find((one) => one.version.version === model.default_version) || ready[0]);
      for (const one of ready) known.set(`${model.name}@${one.version.version}`, one);
    }
    for (const alias of aliases) known.set(`${alias.model}:${alias.name}`, known.get(`${alias.model}@${alias.targets[0]?.version}`) || {});
    find("names").replaceChildren(...[...known.keys()].map((value) => el("option", { value })));
  } catch (error) { showProblem(find("problem"), error); }
}

function pick(reference) {
  const name = reference.trim();
  if (!name || picked.includes(name)) return;
  if (picked.length >= MAX_MODELS) { showProblem(find("problem"), new Error(`${MAX_MODELS} models are compared at most: take one away first.`)); return; }
  picked.push(name);
  showPicked();
  for (const picture of pictures) if (!picture.isLive) ask(picture, [name]);
}

function unpick(name) {
  picked.splice(picked.indexOf(name), 1);
  for (const picture of pictures) { picture.panes.get(name)?.root.remove(); picture.panes.delete(name); }
  showPicked();
  (find("picked").querySelector("button") || find("add")).focus();
}

function showPicked() {
  showProblem(find("problem"), null);
  find("picked").replaceChildren(...picked.map((name) => el("li", {}, el("span", {}, name), el("button", { type: "button", className: "quiet", "aria-label": `Take ${name} away`, onclick: () => unpick(name) }, "×"))));
  const url = new URL(location.href);
  url.searchParams.delete("model");
  for (const name of picked) url.searchParams.append("model", name);
  history.replaceState(null, "", url);
  const first = known.get(picked[0])?.settings?.confidence;
  if (!isMoved && first > 0) find("confidence").value = first;
  write(find("least"), least().toFixed(2));
  draw();
}

find("models").addEventListener("submit", (event) => { event.preventDefault(); pick(find("add").value); find("add").value = ""; });
// Who takes a name of the list need not press Enter too.
find("add").addEventListener("input", (event) => {
  if (event.inputType && event.inputType !== "insertReplacementText") return;
  if (known.has(find("add").value)) { pick(find("add").value); find("add").value = ""; }
});

// Pictures.

function take(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
  const others = files.length - images.length;
  showProblem(find("problem"), others ? new Error(`${plural(others, "file")} of these ${others === 1 ? "is no picture" : "are no pictures"}.`)
    : picked.length ? null : new Error("Name a model first: it is asked about the pictures as soon as it is added."));
  for (const file of images) ask(add(file), picked);
}

/** A new picture, above the others. */
function add(file) {
  const picture = { name: file.name || "picture.png", file, panes: new Map(), isLive: false };
  picture.title = el("h3", {}, picture.name);
  picture.tools = el("div", { className: "actions" });
  picture.row = el("div", { className: "try-row" });
  picture.root = el("section", { "aria-label": picture.name }, el("div", { className: "line" }, picture.title, picture.tools), picture.row);
  pictures.unshift(picture);
  find("pictures").prepend(picture.root);
  for (const old of pictures.splice(MAX_PICTURES)) forget(old);
  showSum();
  return picture;
}

function forget(picture) {
  picture.root.remove();
  picture.bitmap?.close();
}

/** Asks these models about a picture, which may be one that this browser can't read. */
async function ask(picture, models) {
  const { file } = picture, asked = least();
  picture.bitmap ??= await createImageBitmap(file).catch(() => null);
  const { bitmap } = picture;
  await Promise.all(models.map(async (model) => {
    const pane = paneOf(picture, model);
    pane.busy();
    open += 1;
    showSum();
    try {
      const told = await turns.run(() => detect(model, file, asked));
      pane.show(bitmap, { ...told, asked });
    } catch (error) { pane.fail(error); }
    open -= 1;
    drawPicture(picture);
    showSum();
  }));
}

async function detect(model, file, confidence) {
  const began = performance.now();
  const answer = await api("POST", `/v1/detect?${new URLSearchParams({ model, confidence })}`, undefined, { body: file, headers: { "Content-Type": "application/octet-stream" } });
  return { answer, measured: performance.now() - began };
}

function paneOf(picture, model) {
  if (!picture.panes.has(model)) {
    const pane = new Pane(model, picture.name);
    picture.panes.set(model, pane);
    picture.row.append(pane.root);
  }
  return picture.panes.get(model);
}

function showSum() {
  find("settings").hidden = find("keys").hidden = !pictures.length;
  find("main").classList.toggle("has-pictures", pictures.length > 0);
  const coming = open && !camera ? `, ${plural(open, "answer")} to come` : "";
  write(find("sum"), pictures.length ? `${plural(pictures.length, "picture")}, ${plural(picked.length, "model")}${coming}` : "What a model finds on your pictures, and what others find");
}

function drawPicture(picture) {
  const base = picture.panes.get(picked[0]);
  const request = { origin: location.origin, confidence: least(), file: picture.name, asks: session.asks };
  for (const pane of picture.panes.values()) pane.draw(least(), base, request);
}

function draw() {
  drawing = 0;
  pictures.forEach(drawPicture);
  showSum();
}

find("confidence").addEventListener("input", () => {
  isMoved = true;
  write(find("least"), least().toFixed(2));
  drawing ||= requestAnimationFrame(draw);
});
// More sure than was asked for is in the answer already; for less it is asked again, once the slider rests.
find("confidence").addEventListener("change", () => {
  for (const picture of pictures) if (!picture.isLive) ask(picture, [...picture.panes].filter(([, pane]) => pane.asked > least()).map(([model]) => model));
});
find("named").addEventListener("change", () => find("pictures").classList.toggle("nameless", !find("named").checked));
find("clear").addEventListener("click", () => {
  stop();
  for (const old of pictures.splice(0)) forget(old);
  showSum();
  find("choose").focus();
});
find("choose").addEventListener("click", () => find("files").click());
find("files").addEventListener("change", () => { take(find("files").files); find("files").value = ""; });
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) take(event.clipboardData.files); });
catchDrops(document.body, (_, all) => take(all));

// The camera.

async function start() {
  const opened = new Camera();
  try { await opened.open(); } catch (error) { showProblem(find("problem"), error); return; }
  if (camera) { opened.close(); return; }
  camera = opened;
  showCamera();
  await follow(opened, add(await opened.frame()));
  opened.close();
  if (camera === opened) stop();
}

/** Asks about what the camera sees, again as soon as all models have answered, while the page can be seen. */
async function follow(opened, picture) {
  picture.isLive = true;
  picture.tools.append(el("button", { type: "button", className: "quiet", onclick: () => save(picture) }, "Save this frame"));
  let last = performance.now();
  while (camera === opened && opened.isLive && pictures.includes(picture)) {
    if (document.hidden || !picked.length) { await pause(); continue; }
    picture.bitmap?.close();
    picture.bitmap = null;
    picture.file = await opened.frame();
    await ask(picture, [...picked]);
    const now = performance.now();
    write(picture.title, `Camera, ${(1000 / (now - last)).toFixed(1)} pictures/s`);
    last = now;
    if (picked.every((model) => picture.panes.get(model)?.failed)) await pause();
  }
  picture.isLive = false;
  write(picture.title, "Camera, the last picture");
}

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));

function stop() {
  camera = null;
  showCamera();
}

function showCamera() {
  find("camera").textContent = camera ? "Stop the camera" : "Use the camera";
  showSum();
}

function save(picture) {
  const link = el("a", { href: URL.createObjectURL(picture.file), download: picture.name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), PAUSE_MS);
}

const why = noCamera();
if (why) {
  find("camera").setAttribute("aria-disabled", "true");
  find("camera").setAttribute("title", why);
}
find("camera").addEventListener("click", () => {
  if (why) showProblem(find("problem"), new Error(why)); else if (camera) stop(); else start();
});

await fetchModels();
const wanted = new URLSearchParams(location.search).getAll("model");
const hot = [...known].find(([, version]) => version.replicas?.length) || [...known][0];
for (const name of wanted.length ? wanted : hot ? [hot[0]] : []) pick(name);
if (!known.size) showProblem(find("problem"), new Error("There is no model yet that you may ask: register one on the page of models."));
showSum();
