// The list of the caller's jobs.

import { ask, modelName, post, read } from "./api.js";
import { $, count, make, noError, number, setOptions, setText, showError } from "./dom.js";
import { forgetMarks } from "./marks.js";
import { kindOf, STATUS } from "./words.js";

const PAGE_JOBS = 50, REFRESH_MS = 4000, TYPING_MS = 250;
let pages = 1, timer = 0, typing = 0, asked = 0, open = () => {};

export function openJobs() {
  pages = 1;
  return showJobs();
}

export function closeJobs() {
  clearTimeout(timer);
  asked++;  // an answer that is under way is not shown
}

// Reads the pages shown so far; again after some seconds while a job is not done.
async function showJobs() {
  clearTimeout(timer);
  const turn = ++asked;
  try {
    const { jobs, more } = await readJobs();
    if (turn !== asked) return;
    noError("jobs-error");
    showRows(jobs, more);
    $("more-jobs").hidden = !more;
    if (jobs.some((job) => !job.done)) timer = setTimeout(showJobs, REFRESH_MS);
  } catch (error) {
    if (turn !== asked || error.ofKey) return;
    showError("jobs-error", error);
    timer = setTimeout(showJobs, REFRESH_MS);
  }
}

async function readJobs() {
  const query = new URLSearchParams({ limit: PAGE_JOBS }), jobs = [];
  if ($("jobs-status").value) query.set("status", $("jobs-status").value);
  if ($("jobs-search").value.trim()) query.set("search", $("jobs-search").value.trim());
  for (let page = 0; page < pages; page++) {
    const found = await read(`jobs?${query}`);
    jobs.push(...found.jobs);
    if (!found.next_cursor) return { jobs, more: false };
    query.set("cursor", found.next_cursor);
  }
  return { jobs, more: true };
}

function showRows(jobs, more) {
  const old = new Map([...$("job-rows").children].map((row) => [row.dataset.state, row]));
  // A row that did not change keeps its element, and so the focus.
  const rows = jobs.map((job) => old.get(JSON.stringify(job)) ?? rowOf(job));
  rows.forEach((row, at) => {
    if ($("job-rows").children[at] !== row) $("job-rows").insertBefore(row, $("job-rows").children[at] ?? null);
  });
  while ($("job-rows").children.length > rows.length) $("job-rows").lastChild.remove();
  $("jobs-table").hidden = !jobs.length;
  const filtered = $("jobs-status").value || $("jobs-search").value.trim();
  const none = filtered ? "No job matches." : "There is no job yet. Submit one under “New job”.";
  setText($("jobs-note"), jobs.length ? `${more ? "The newest " : ""}${count(jobs.length, "job")}` : none);
}

const shortTime = (text) => new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

function rowOf(job) {
  const { counts } = job, done = counts.succeeded + counts.failed;
  const numbers = make("span", { textContent: `${number(done)} of ${number(counts.total)}` });
  const failed = counts.failed ? make("span", { className: "failed", textContent: `, ${number(counts.failed)} failed` }) : "";
  const row = make("tr", {},
    make("th", { scope: "row" }, make("a", { href: `#${job.id}` }, job.name || make("code", { textContent: job.id }))),
    make("td", {}, make("span", { className: `chip ${kindOf(job.status)}`, textContent: STATUS[job.status] })),
    make("td", {}, numbers, failed),
    make("td", { textContent: modelName(job) }),
    make("td", {}, make("time", { dateTime: job.created_at, textContent: shortTime(job.created_at) })),
    make("td", {}, make("div", { className: "acts" }, ...actionsOf(job))));
  // Below some width the cells are no longer laid out as a table, but are still one.
  row.role = "row";
  for (const cell of row.children) cell.role = cell.tagName === "TH" ? "rowheader" : "cell";
  row.dataset.state = JSON.stringify(job);
  return row;
}

function actionsOf(job) {
  const name = job.name || job.id;
  const action = (text, act) => {
    const button = make("button", { type: "button", textContent: text });
    button.setAttribute("aria-label", `${text} ${name}`);
    button.addEventListener("click", async () => {
      try {
        await act();
      } catch (error) {
        if (!error.ofKey) showError("jobs-error", error);
        return;
      }
      showJobs();
    });
    return button;
  };
  return [
    !job.done && job.status !== "cancelling" && action("Stop", () => ask(`jobs/${job.id}/cancel`, { method: "POST" })),
    job.done && job.counts.failed && action("Retry failed", async () => open(await post(`jobs/${job.id}/retry`, { only: "failed" }))),
    action("Delete", async () => {
      if (!confirm(`Delete ${name} with its pictures and results?`)) return;
      await ask(`jobs/${job.id}`, { method: "DELETE" });
      forgetMarks(job.id);
    }),
  ].filter(Boolean);
}

// `openNew` shows a new job.
export function startJobs(openNew) {
  open = openNew;
  setOptions($("jobs-status"), [["", "All"], ...Object.entries(STATUS)]);
  $("jobs-status").addEventListener("change", openJobs);
  $("jobs-search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(openJobs, TYPING_MS);
  });
  $("more-jobs").addEventListener("click", () => {
    pages++;
    showJobs();
  });
}
