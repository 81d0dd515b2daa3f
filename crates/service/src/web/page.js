// What all pages have in common: questions to the API, and what they are shown with. The token stays in this tab.

const main = document.getElementById("main");
const status = document.getElementById("status");
const TOKEN = "preverify-token";

export const tokenField = document.getElementById("token");

// What runs for the page that is shown ends with it.
let shown = new AbortController();

export function leave() {
  shown.abort();
  shown = new AbortController();
}

export function useToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export async function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(path, { ...options, headers, signal: shown.signal });
  if (answer.ok) return answer;
  let detail = `${answer.status} ${answer.statusText}`;
  try {
    detail = (await answer.json()).detail ?? detail;
  } catch {
    // It is no problem details.
  }
  if (answer.status === 401) {
    tokenField.focus();
    if (!token) detail = "Enter a token first: whoever runs the service makes them.";
  }
  throw new Error(detail);
}

export const json = async (path) => (await ask(path)).json();

const PAUSE = 2000;

// Does something again and again while the page is shown, until it says that it is done. If it went well once, the service
// may be away for a while.
export async function again(work) {
  const { signal } = shown;
  let failed = null;
  for (let first = true; ; first = false) {
    try {
      if (await work()) return;
      if (failed) say("");
      failed = null;
    } catch (error) {
      if (first || signal.aborted) throw error;
      failed = error;
      say(error.message);
    }
    await new Promise((next) => setTimeout(next, PAUSE));
    signal.throwIfAborted();
  }
}

// Asks for the same again and again while the page is seen, and shows what has changed.
export async function follow(paths, showAll) {
  let last;
  await again(async () => {
    if (document.visibilityState !== "visible") return;
    const answers = await Promise.all(paths.map(json));
    const text = JSON.stringify(answers);
    if (text !== last) showAll(answers);
    last = text;
  });
}

export function say(text) {
  status.textContent = text;
}

export async function attempt(work) {
  say("");
  try {
    await work();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  }
}

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function show(page) {
  main.replaceChildren(document.getElementById(`page-${page}`).content.cloneNode(true));
}

export const find = (id) => main.querySelector(`#${id}`);
export const number = new Intl.NumberFormat("en");
export const time = (text) => new Date(text).toLocaleString();

export function state(word) {
  return element("span", { className: `state ${word}`, textContent: word });
}

// Rows of cells: texts, or elements.
export function row(...cells) {
  return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
}

export function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((textContent) => element("th", { scope: "col", textContent })));
  const made = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows.map((cells) => row(...cells))));
  return element("div", { className: "wide" }, made);
}

export async function download(path, name) {
  const url = URL.createObjectURL(await (await ask(path)).blob());
  element("a", { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}
