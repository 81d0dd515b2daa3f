// The pages of the service: what the API says, shown.

import {
  again, ask, attempt, download, element, find, follow, json, leave, number, row, say, show, state, table, time, tokenField, useToken,
} from "./page.js";
import { showLog } from "./log.js";
import { targetsPage } from "./targets.js";

// Pages

async function submitPage() {
  show("submit");
  const [form, drop, object, chosen] = ["submit", "drop", "object", "chosen"].map(find);
  const choose = () => {
    const file = object.files[0];
    chosen.textContent = file ? `${file.name}, ${number.format(file.size)} bytes` : "No object yet.";
  };
  object.addEventListener("change", choose);
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    object.files = event.dataTransfer.files;
    choose();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = new FormData();
    body.append("object", object.files[0], object.files[0].name);
    for (const target of form.querySelectorAll("#targets input:checked")) body.append("target", target.value);
    for (const field of ["inputs", "limits"]) {
      const value = find(field).value.trim();
      if (value) body.append(field, value);
    }
    const button = form.querySelector("button.main");
    button.disabled = true;
    await attempt(async () => {
      const job = await (await ask("/v1/jobs", { method: "POST", body })).json();
      location.hash = `#/jobs/${job.id}`;
    });
    button.disabled = false;
  });
  const targets = (await json("/v1/targets")).filter((target) => target.state === "ready");
  find("no-targets").hidden = targets.length > 0;
  find("targets").append(
    ...targets.map((target, index) =>
      element(
        "label",
        {},
        element("input", { type: "checkbox", value: target.name, checked: index === 0 && targets.length === 1 }),
        ` ${target.name} `,
        element("span", { className: "faint", textContent: `${target.release}, ${target.architecture}` }),
      ),
    ),
  );
}

async function jobsPage() {
  show("jobs");
  const [rows, older] = ["rows", "older"].map(find);
  const all = new Map();
  const add = (jobs) => {
    for (const job of jobs) all.set(job.id, job);
    const focused = document.activeElement?.hash;
    // The names of younger ones are greater.
    const ids = [...all.keys()].sort().reverse();
    rows.replaceChildren(...ids.map((id) => jobRow(all.get(id))));
    if (focused) rows.querySelector(`a[href="${focused}"]`)?.focus();
    find("no-jobs").hidden = all.size > 0;
  };
  older.addEventListener("click", () =>
    attempt(async () => {
      const oldest = [...all.keys()].sort()[0];
      const jobs = await json(`/v1/jobs?limit=${JOBS}&before=${oldest}`);
      add(jobs);
      older.hidden = jobs.length < JOBS;
    }),
  );
  await follow([`/v1/jobs?limit=${JOBS}`], ([jobs]) => {
    if (all.size === 0) older.hidden = jobs.length < JOBS;
    add(jobs);
  });
}

const JOBS = 50;

function jobRow(job) {
  const link = element("a", { href: `#/jobs/${job.id}`, textContent: job.name });
  return row(link, state(job.state), job.targets.map((target) => target.target).join(", "), time(job.submitted));
}

async function jobPage(id) {
  show("job");
  showJob(await json(`/v1/jobs/${id}`));
  await again(() => watch(id));
}

// Shows a job as it goes on. Says whether it has ended.
async function watch(id) {
  // An EventSource could not say who asks.
  const events = await ask(`/v1/jobs/${id}/events`);
  const reader = events.body.pipeThrough(new TextDecoderStream()).getReader();
  let [buffered, ended] = ["", false];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return ended;
    buffered += value;
    const lines = buffered.split("\n");
    buffered = lines.pop();
    for (const line of lines.filter((line) => line.startsWith("data:"))) {
      const job = JSON.parse(line.slice(5));
      showJob(job);
      ended = job.ended !== null;
    }
  }
}

function showJob(job) {
  find("name").textContent = job.name;
  find("summary").replaceChildren(
    state(job.state),
    `, submitted ${time(job.submitted)}${job.ended ? `, ended ${time(job.ended)}` : ""}`,
    ...(job.reason ? [`: ${job.reason}`] : []),
  );
  const actions = find("actions");
  actions.replaceChildren();
  if (job.bundle) {
    const button = element("button", { className: "main", textContent: `Bundle, ${number.format(job.bundle.bytes)} bytes` });
    button.addEventListener("click", () => attempt(() => download(`/v1/jobs/${job.id}/bundle`, `${job.name}.pvb`)));
    const contents = element("button", { id: "show-contents", textContent: "What is in it" });
    contents.addEventListener("click", () => attempt(() => showContents(job)));
    actions.append(button, " ", contents);
  }
  const heads = job.targets.map((target) =>
    element("th", { scope: "col" }, target.target, element("br"), state(target.state), progress(target)),
  );
  find("heads").replaceChildren(element("tr", {}, element("th", { scope: "col", textContent: "Program" }), ...heads));
  find("counted").hidden = !job.targets.some((target) => target.programs.length > 0);
  const names = [...new Set(job.targets.flatMap((target) => target.programs.map((program) => program.program)))];
  find("cells").replaceChildren(
    ...names.map((name) =>
      element(
        "tr",
        {},
        element("th", { scope: "row", textContent: name }),
        ...job.targets.map((target) => cell(job, target, target.programs.find((program) => program.program === name))),
      ),
    ),
  );
  find("refusals").replaceChildren(...job.targets.filter((target) => target.message).map((target) => refusal(job, target)));
}

function progress(target) {
  if (!target.step) return "";
  const counted = target.processed_insns ? `, ${number.format(target.processed_insns)} insns` : "";
  return element("span", { className: "faint", textContent: ` ${target.step}${counted}` });
}

function cell(job, target, program) {
  if (!program) return element("td", { className: "faint", textContent: "–" });
  const made = element(
    "td",
    {},
    ...[
      `${number.format(program.total_insns)} insns processed`,
      `${number.format(program.peak_states)} states at the peak, ${number.format(program.total_states)} in all`,
      `${(program.duration_us / 1000).toFixed(1)} ms`,
    ].flatMap((line) => [line, element("br")]),
  );
  const images = { native: ["machine code", program.native_bytes], bytecode: ["bytecode", program.bytecode_bytes] };
  for (const [image, [words, bytes]] of Object.entries(images)) {
    if (bytes === null) continue;
    const text = `${number.format(bytes)} bytes of ${words}`;
    if (!job.bundle) {
      made.append(text, element("br"));
      continue;
    }
    const button = element("button", { className: "plain", textContent: text });
    button.addEventListener("click", () => attempt(() => showCode(job, target.target, program.program, image)));
    made.append(button, element("br"));
  }
  return made;
}

function refusal(job, target) {
  const parts = [
    element("h2", { textContent: `${target.target}${target.program ? `: ${target.program}` : ""}` }),
    element("pre", { tabIndex: 0, textContent: target.message }),
  ];
  if (target.has_log) {
    const button = element("button", { textContent: "The verifier's log beside the source" });
    button.addEventListener("click", () => attempt(() => showLog(job, target.target)));
    parts.push(button);
  }
  return element("div", {}, ...parts);
}

async function showCode(job, target, program, image) {
  const path = ["targets", target, "programs", program, "code"].map(encodeURIComponent).join("/");
  const code = await json(`/v1/jobs/${job.id}/${path}?image=${image}`);
  let last = null;
  const lines = code.lines.flatMap((line) => {
    // Bytecode is counted in instructions, as jumps count.
    const place = image === "bytecode" ? String(line.offset / 8) : line.offset.toString(16);
    const notes = line.notes.length ? `  ; ${line.notes.join(", ")}` : "";
    const head = line.function === last ? [] : [element("span", { className: "source", textContent: `function ${line.function}\n` })];
    last = line.function;
    return [
      ...head,
      `${place.padStart(6)}  `,
      element("span", { className: "faint", textContent: `${line.bytes.padEnd(20)}  ` }),
      element("span", { className: line.address ? "address" : "", textContent: line.text }),
      element("span", { className: "faint", textContent: `${notes}\n` }),
    ];
  });
  find("code-name").textContent = `${program} for ${target}: ${code.kind}`;
  find("code-text").replaceChildren(...lines);
  find("code").hidden = false;
  find("code").scrollIntoView();
  find("code-text").focus({ preventScroll: true });
}

async function showContents(job) {
  const report = await json(`/v1/jobs/${job.id}/contents`);
  const parts = report.targets.flatMap((target, index) => [
    element("h2", { textContent: `${job.targets[index]?.target ?? ""}: ${target.release}` }),
    element("p", { className: "faint", textContent: `build id ${target.build_id}` }),
    table(
      ["Program", "Type", "Section", "Attaches to", "Maps", "Addresses in machine code / bytecode"],
      target.programs.map((program) => [
        program.function,
        program.type,
        program.elf_section,
        program.attach_target?.name ?? program.expected_attach_type ?? "",
        program.maps.join(", "),
        ["native", "bytecode"].map((image) => program[image]?.relocations.length ?? "–").join(" / "),
      ]),
    ),
    ...(target.maps.length
      ? [
          table(
            ["Map", "Type", "Key", "Value", "Entries", "Flags"],
            target.maps.map((map) => [
              map.full_name,
              map.type,
              `${map.key_size} B`,
              `${map.value_size} B`,
              number.format(map.max_entries),
              map.flags.join(" "),
            ]),
          ),
        ]
      : []),
    element(
      "details",
      {},
      element("summary", { textContent: "Evidence" }),
      element("pre", { tabIndex: 0, textContent: JSON.stringify(target.evidence, null, 2) }),
    ),
  ]);
  const sections = table(
    ["Section", "Bytes", "SHA-256", "Of"],
    report.sections.map((section) => [section.kind, number.format(section.bytes), section.sha256, section.users.join(", ")]),
  );
  find("contents").replaceChildren(...parts, element("h2", { textContent: "Sections" }), sections);
  find("contents").scrollIntoView();
}

// From addresses to pages

function route() {
  leave();
  const [, section, id] = location.hash.split("/");
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.hash === `#/${section ?? ""}` || (!section && link.hash === "#/");
    current ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  attempt(() => {
    if (section === "jobs" && id) return jobPage(id);
    if (section === "jobs") return jobsPage();
    if (section === "targets") return targetsPage();
    return submitPage();
  });
}

document.getElementById("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(tokenField.value.trim());
  tokenField.value = "";
  say("The token is used in this tab.");
  route();
});
addEventListener("hashchange", route);
route();
