// The log of a verifier that has rejected a program, beside the source lines that it went through.

import { ask, attempt, download, element, find, number } from "./page.js";

// More would keep the browser from everything else. The rejection is at the end.
const MOST_LINES = 5000;

const INSTRUCTION = /^\d+: \(/;
const STATISTICS = /^(verification time|stack depth|processed) /;
// `; return *p; @ prog.c:7`, and without a place from older kernels.
const SOURCE = /^; (.*?)(?: @ (.+):(\d+))?$/;

export async function showLog(job, target) {
  const path = `/v1/jobs/${job.id}/targets/${encodeURIComponent(target)}/log`;
  const all = (await (await ask(path)).text()).trimEnd().split("\n");
  const lines = all.slice(-MOST_LINES);
  // The instruction that the verifier objects to is the last that it looked at.
  const here = lines.findLastIndex((line) => INSTRUCTION.test(line));
  const { sources, of } = sourcesOf(lines);
  const rejected = of[here] ?? null;
  const shown = lines.map((line, index) => {
    const words = index > here && line && !STATISTICS.test(line);
    const className = index === here ? "here" : words ? "words" : SOURCE.test(line) ? "source" : "";
    return element("span", { className, textContent: `${line}\n` });
  });

  find("log-name").textContent = `Log of ${target}`;
  find("log-cut").textContent =
    lines.length < all.length ? `The last ${number.format(lines.length)} of ${number.format(all.length)} lines. ` : "";
  const whole = element("button", { textContent: "Download the whole log" });
  whole.addEventListener("click", () => attempt(() => download(path, `${job.name}.${target}.log`)));
  find("log-cut").append(whole);
  find("log-text").replaceChildren(...shown);
  find("log-source").replaceChildren(...listing(sources, rejected, (chosen) => {
    shown.forEach((span, index) => span.classList.toggle("chosen", of[index] === chosen));
    shown[of.indexOf(chosen)].scrollIntoView({ block: "center" });
  }));
  find("log-source").hidden = sources.length === 0;
  find("log").hidden = false;
  find("log").scrollIntoView();
  for (const marked of find("log").querySelectorAll(".here")) marked.scrollIntoView({ block: "nearest" });
  find("log-text").focus({ preventScroll: true });
}

// The source lines, in the order of the files, and for each line of the log the one that it is about.
function sourcesOf(lines) {
  const found = new Map();
  const of = [];
  let now;
  for (const line of lines) {
    const [, text, file, place] = line.match(SOURCE) ?? [];
    if (text !== undefined) {
      const key = file ? `${file}:${place}` : text;
      if (!found.has(key)) found.set(key, { text, file: file ?? "", line: file ? Number(place) : null });
      now = found.get(key);
    }
    of.push(now);
  }
  const sources = [...found.values()].sort((a, b) => a.file.localeCompare(b.file) || a.line - b.line);
  return { sources, of };
}

// A button for each source line, which shows what the log says of it.
function listing(sources, rejected, choose) {
  const files = new Map();
  for (const source of sources) files.set(source.file, [...(files.get(source.file) ?? []), source]);
  return [...files].map(([file, lines]) =>
    element(
      "figure",
      {},
      element("figcaption", { className: "faint", textContent: file || "source lines" }),
      element("ol", {}, ...lines.map((source) => element("li", {}, button(source, source === rejected, choose)))),
    ),
  );
}

function button(source, isRejected, choose) {
  const made = element(
    "button",
    { className: isRejected ? "here" : "" },
    element("span", { className: "faint place", textContent: source.line ?? "" }),
    element("code", { textContent: source.text }),
    ...(isRejected ? [element("span", { className: "mark", textContent: "rejected here" })] : []),
  );
  made.addEventListener("click", () => choose(source));
  return made;
}
