// Calls to the REST routes of this server, with the session's key.

/** What the server answers instead: `reason` is UPPER_SNAKE, the message a sentence. */
export class Problem extends Error {
  constructor(status, told) {
    super(told.detail || `the server answered ${status}`);
    this.status = status;
    this.reason = told.reason || "";
  }
}

export async function api(verb, path, body, options = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method: verb,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      ...options,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The control plane does not answer. It may be restarting.", reason: "UNREACHABLE" });
  }
  if (!answer.ok) throw await problemOf(answer);
  return options.raw ? answer : answer.status === 204 ? null : answer.json();
}

async function problemOf(answer) {
  try { return new Problem(answer.status, await answer.json()); } catch { return new Problem(answer.status, {}); }
}

export const get = (path, options) => api("GET", path, undefined, options);

/** The path of a model, a version or an alias; a name may have a slash. */
export const modelPath = (reference) => `/v1/models/${escaped(reference)}`;
export const aliasPath = (reference) => `/v1/aliases/${escaped(reference)}`;
const escaped = (reference) => reference.split("/").map(encodeURIComponent).join("/");

/** Each line of an answer that goes on, as it comes. */
export async function* lines(verb, path, body, signal) {
  const answer = await api(verb, path, body, { raw: true, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts.filter(Boolean)) {
      const told = JSON.parse(part);
      if (told.reason && told.status) throw new Problem(told.status, told);
      yield told;
    }
  }
}
