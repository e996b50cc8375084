// The same request from a shell and from Python. Nothing here touches the page.

const PLAIN = /^[A-Za-z0-9_.\/-]+$/;

/** A text as one word of a shell. */
export const shellWord = (text) => (PLAIN.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

/** A text as a literal of Python: those of JSON are. */
const literal = (text) => JSON.stringify(text);

/** "/", "@" and ":" may stand in a query as they are. */
export function detectUrl(origin, model, confidence) {
  const reference = encodeURIComponent(model).replaceAll("%2F", "/").replaceAll("%40", "@").replaceAll("%3A", ":");
  return `${origin}/v1/detect?model=${reference}&confidence=${confidence}`;
}

/** `request`: {origin, model, confidence, file, asks, task}; asks: whether the pool wants a key. */
export function curl({ origin, model, confidence, file, asks }) {
  const key = asks ? ' \\\n  -H "Authorization: Bearer $YOLOPOOL_API_KEY"' : "";
  return `curl --data-binary @${shellWord(file)}${key} \\\n  ${shellWord(detectUrl(origin, model, confidence))}`;
}

export function python({ origin, model, confidence, file, asks, task }) {
  const key = asks ? 'headers["Authorization"] = "Bearer " + os.environ["YOLOPOOL_API_KEY"]\n' : "";
  const [list, told] = task === "classify" ? ['answer["classification"]["top"]', 'found["class_name"], found["probability"]']
    : ['answer["detections"]', 'found["class_name"], found["confidence"], found["box"]'];
  return `import json
${asks ? "import os\n" : ""}from urllib.request import Request, urlopen

url = ${literal(detectUrl(origin, model, confidence))}
headers = {"Content-Type": "application/octet-stream"}
${key}with open(${literal(file)}, "rb") as image:
    request = Request(url, image.read(), headers)
with urlopen(request) as response:
    answer = json.load(response)
for found in ${list}:
    print(${told})`;
}
