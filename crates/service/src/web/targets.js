// Targets, who verifies for them, and what waits.

import { ask, attempt, element, find, follow, json, number, row, say, show, state } from "./page.js";

export async function targetsPage() {
  show("targets");
  const { scopes } = await json("/v1/token");
  const admin = scopes.includes("admin");
  find("add").hidden = !admin;
  find("actions").hidden = !admin;
  find("add").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => add(find("add")));
  });
  await Promise.all([
    follow(["/v1/targets", "/v1/queue"], ([targets, queue]) => {
      showTargets(targets, queue, admin);
      showQueue(queue);
    }),
    follow(["/v1/workers"], ([workers]) => showWorkers(workers)),
  ]);
}

async function add(form) {
  const request = { source: find("source").value.trim() };
  for (const field of ["name", "cpu", "command_line"]) {
    const value = find(field).value.trim();
    if (value) request[field] = value;
  }
  if (find("max_cpus").value) request.max_cpus = Number(find("max_cpus").value);
  if (find("el2").checked) request.el2 = true;
  const [fingerprint] = find("fingerprint").files;
  if (fingerprint) request.fingerprint = JSON.parse(await fingerprint.text());
  const headers = { "content-type": "application/json" };
  const target = await (await ask("/v1/targets", { method: "POST", headers, body: JSON.stringify(request) })).json();
  form.reset();
  added = target.name;
  say(`${added} is being prepared, which takes minutes. It goes on when this page is closed.`);
}

// The target that somebody waits for.
let added = null;

function showTargets(targets, queue, admin) {
  const tasks = new Map(queue.targets.map((line) => [line.target, line]));
  const focused = document.activeElement?.dataset?.remove;
  // What somebody is about to confirm stays as it is.
  const asked = find("rows").querySelector("button.asked")?.dataset.remove;
  find("rows").replaceChildren(
    ...targets.flatMap((target) => {
      const how = element("div", {}, state(target.state));
      if (target.step) how.append(element("span", { className: "faint", textContent: ` ${target.step}` }));
      const { name, architecture, release, build_id } = target;
      const cells = [name, how, architecture ?? "", release ?? "", element("code", { textContent: build_id ?? "" }), count(tasks.get(name))];
      const shown = row(...cells, ...(admin ? [removal(target, asked === name)] : []));
      if (!target.reason) return [shown];
      shown.className = "explained";
      const why = element("td", { colSpan: shown.cells.length }, element("pre", { tabIndex: 0, textContent: target.reason }));
      return [shown, element("tr", {}, why)];
    }),
  );
  const awaited = targets.find((target) => target.name === added && target.state !== "preparing");
  if (awaited) {
    say(`${awaited.name}: ${awaited.state}`);
    added = null;
  }
  find("no-targets").hidden = targets.length > 0;
  if (focused) find("rows").querySelector(`[data-remove="${CSS.escape(focused)}"]`)?.focus();
}

function count(line) {
  if (!line) return "0";
  return `${number.format(line.tasks)} (${number.format(line.own)} yours)`;
}

// Removing takes two presses.
function removal(target, isAsked) {
  const button = element("button", { disabled: target.state === "preparing" });
  button.dataset.remove = target.name;
  const setAsked = (asked) => {
    button.classList.toggle("asked", asked);
    button.textContent = asked ? "Remove for good" : "Remove";
    button.setAttribute("aria-label", `${button.textContent}: ${target.name}`);
  };
  setAsked(isAsked);
  button.addEventListener("click", () => {
    if (!button.classList.contains("asked")) return setAsked(true);
    attempt(async () => {
      await ask(`/v1/targets/${encodeURIComponent(target.name)}`, { method: "DELETE" });
      const shown = button.closest("tr");
      if (shown.className === "explained") shown.nextSibling.remove();
      shown.remove();
    });
  });
  return button;
}

function showQueue(queue) {
  const sum = (of) => queue.targets.reduce((all, line) => all + of(line), 0);
  const [tasks, own] = [sum((line) => line.tasks), sum((line) => line.own)];
  const merging = queue.targets.find((line) => line.identity === null)?.tasks ?? 0;
  const orphans = queue.targets.filter((line) => line.identity !== null && line.target === null);
  const parts = [
    `${number.format(queue.busy)} of ${number.format(queue.slots)} slots are busy`,
    `${number.format(tasks)} tasks wait or are worked on, ${number.format(own)} of yours`,
  ];
  if (merging) parts.push(`${number.format(merging)} of them merge bundles`);
  for (const line of orphans) parts.push(`${number.format(line.tasks)} wait for a target that no worker holds`);
  find("queue").textContent = `${parts.join("; ")}.`;
}

function showWorkers(workers) {
  find("workers").replaceChildren(
    ...workers.map((worker) => {
      const meter = element("meter", { max: worker.slots, value: worker.busy, textContent: `${worker.busy}` });
      meter.setAttribute("aria-label", "busy slots");
      const busy = element("span", {}, meter, ` ${worker.busy} of ${worker.slots}`);
      const seconds = Math.max(0, Math.round((Date.now() - new Date(worker.heard)) / 1000));
      return row(worker.name, busy, worker.targets.join(", "), seconds < 2 ? "now" : `${seconds} s ago`);
    }),
  );
  find("no-workers").hidden = workers.length > 0;
}
