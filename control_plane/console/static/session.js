// Who is signed in: asked first by every page. Signing in, signing out, the theme.
import { Problem, api, get } from "./api.js";
import { el, find } from "./dom.js";

const SESSION = "/console/session";
let known = null;

/** The session: {asks, principal, role, grants, refused}. Where nobody is, asks for a key first. */
export async function signedIn() {
  startTheme();
  for (;;) {
    try {
      known = await get(SESSION);
      if (known.signed_in) break;
      await signIn();
    } catch (error) { await waitFor(error); }
  }
  find("main").querySelector(".notice.unreachable")?.remove();
  showWho();
  return known;
}

/** Why the signed-in caller may not call a method; empty: it may. */
/** Whether a session that was there is over. Where nobody answers it is not known to be. */
export async function hasEnded() {
  try { return !(await get(SESSION)).signed_in; } catch { return false; }
}

export const refusal = (method) => known.refused[method] || "";

async function waitFor(error) {
  const main = find("main");
  const text = `${error.message} The page tries again every few seconds.`;
  if (!main.querySelector(".notice.unreachable")) main.prepend(el("div", { className: "notice bad unreachable", role: "alert" }, text));
  await new Promise((resolve) => setTimeout(resolve, 3000));
}

function showWho() {
  const who = find("who");
  if (!known.asks) {
    who.replaceChildren(el("span", { className: "badge warn", title: "This pool asks nobody for a key: who reaches it may do everything." }, "open to all"));
    return;
  }
  const grants = known.grants.includes("*") ? "all models" : known.grants.join(", ") || "no models";
  const name = el("span", { className: "muted", title: `${known.principal}, role ${known.role}, ${grants}` }, known.role);
  who.replaceChildren(name, el("button", { type: "button", className: "quiet", onclick: signOut }, "Sign out"));
}

async function signOut() {
  await api("DELETE", SESSION);
  location.reload();
}

function signIn() {
  return new Promise((resolve) => {
    const problem = el("p", { className: "notice bad", role: "alert", hidden: true });
    const key = el("input", { type: "password", name: "key", autocomplete: "current-password", required: true, autofocus: true, "aria-describedby": "key-hint" });
    const go = el("button", { type: "submit", className: "primary" }, "Sign in");
    const form = el("form", {}, el("h2", { id: "sign-in-title" }, "Sign in"),
      el("label", { className: "field" }, "API key or token", key),
      el("p", { id: "key-hint", className: "small muted" }, "A key as `yolopool keys create` prints it, or a token of an OpenID Connect issuer that this pool trusts. The browser keeps it sealed for 12 hours at most; it ends when the key is revoked."),
      problem, el("div", { className: "actions" }, go));
    const dialog = el("dialog", { "aria-labelledby": "sign-in-title" }, form);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        await api("POST", SESSION, { key: key.value });
        dialog.close();
        dialog.remove();
        find("main").focus();
        resolve();
      } catch (error) {
        problem.textContent = error instanceof Problem ? error.message : "This did not work: try again.";
        problem.hidden = false;
        go.disabled = false;
        key.select();
      }
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const THEMES = ["auto", "light", "dark"];

function startTheme() {
  const button = find("theme");
  if (button.dataset.ready) return;
  button.dataset.ready = "yes";
  const root = document.documentElement;
  const show = () => {
    const now = root.dataset.theme || "auto";
    button.textContent = now[0].toUpperCase() + now.slice(1);
    button.setAttribute("aria-label", now === "auto" ? "Colours: auto, as the system" : `Colours: ${now}`);
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme || "auto") + 1) % THEMES.length];
    if (next === "auto") delete root.dataset.theme; else root.dataset.theme = next;
    try { localStorage.setItem("yolopool-theme", next); } catch { /* storage is off */ }
    show();
    document.dispatchEvent(new Event("themed"));
  });
  show();
}
