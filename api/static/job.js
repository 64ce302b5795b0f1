// The displayed job: its progress, its failures, and what can be done with it.

import { ask, post, read } from "./api.js";
import { $, count, duration, listed, make, noError, number, setText, showError, sleep } from "./dom.js";
import { download } from "./download.js";
import { showHosts } from "./hosts.js";
import { forgetMarks } from "./marks.js";
import { openModel } from "./model.js";
import { RateChart } from "./rate.js";
import { clearResults, showOnlyFailure, showResults } from "./results.js";
import { failure, kindOf, STATUS } from "./words.js";

const RETRY_MS = 2000;
let view = null;  // {id, job, files, rate, stopped}
// The pictures that this tab uploaded, by item id, for each of its jobs.
const filesOf = new Map();
let goTo = () => {};

export const displayedJob = () => view?.id;

export function closeJob() {
  if (view) view.stopped = true;
  view = null;
  clearResults();
  $("refused-files").hidden = true;
  noError("job-error");
}

// `refused` are the files that are not part of a new job.
export function openJob(id, files = filesOf.get(id) ?? new Map(), refused = []) {
  closeJob();
  filesOf.set(id, files);
  view = { id, job: null, files, rate: new RateChart(), stopped: false };
  if (refused.length) {
    $("refused-files").hidden = false;
    $("refused-files").open = true;
    $("refused-files").querySelector("summary").textContent = `${count(refused.length, "file")} skipped`;
    $("refused-files").querySelector("ul").replaceWith(listed(refused));
  }
  $("job-title").textContent = "Job";
  setChip("…", "");
  $("job-state").hidden = true;
  for (const name of ["stop", "retry", "report", "delete"]) $(name).hidden = true;
  follow(view);
}

function setChip(word, kind) {
  setText($("chip"), word);
  $("chip").className = `chip ${kind}`;
}

// Polls: the response comes after a second, or at once when the job is done.
async function follow(current) {
  for (let wait = 0; ; wait = 1) {
    try {
      const job = await read(`jobs/${current.id}?results=false&wait=${wait}`);
      if (current.stopped) return;
      noError("job-error");
      current.job = job;
      showJob(job);
      const shown = showResults(job, current.files);
      if (job.done) return;
      await shown;
      if (current.stopped) return;
    } catch (error) {
      if (current.stopped) return;
      if (error.status === 404) {
        showError("job-error", error);
        setChip("Not found", "bad");
        $("job-state").hidden = true;
        for (const name of ["stop", "retry", "report", "delete"]) $(name).hidden = true;
        return;
      }
      if (error.ofKey) {
        view = null;  // a new key starts again
        return;
      }
      showUnreachable(error);
      await sleep(RETRY_MS);
      if (current.stopped) return;
    }
  }
}

function showUnreachable(error) {
  showError("job-error", error);
  $("job-error").append(" The page tries again every two seconds.");
  setChip("Not connected", "bad");
  $("stop").hidden = true;
  for (const stat of $("stats").querySelectorAll(".now")) stat.remove();
  $("rate").replaceChildren();
}

function showJob(job) {
  const { counts } = job, finished = counts.succeeded + counts.failed;
  $("job-state").hidden = false;
  setChip(STATUS[job.status], kindOf(job.status));
  $("stop").hidden = job.done || job.status === "cancelling";
  $("retry").hidden = !job.done || !counts.failed;
  $("retry").textContent = `Retry ${number(counts.failed)} failed`;
  $("report").hidden = job.status === "draft";
  $("report").href = `jobs/${job.id}/report`;
  $("delete").hidden = false;
  $("job-title").textContent = job.name || "Job";
  $("progress").max = counts.total || 1;
  $("progress").value = finished;
  const share = finished / (counts.total || 1);
  document.title = job.done ? `${STATUS[job.status]} – Piqueue` : `${Math.floor(100 * share)} % – Piqueue`;
  // A screen reader is told of every quarter.
  setText($("spoken"), job.done ? `${number(counts.succeeded)} scored, ${number(counts.failed)} failed` : `${25 * Math.floor(4 * share)} % finished`);
  $("stats").replaceChildren(...statsOf(job));
  view.rate.add(finished);
  $("rate").replaceChildren(...(job.done ? [] : [view.rate.draw()]).filter(Boolean));
  showFacts(job);
  showFailures(job);
  showHosts($("hosts"), job.hosts);
}

function statsOf(job) {
  const { counts } = job, left = counts.waiting + counts.running;
  const took = job.finished_at && job.started_at && Math.max(1, Math.round((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000));
  return [
    ["Scored", number(counts.succeeded)],
    counts.failed && ["Failed", number(counts.failed)],
    counts.cancelled && ["Not scored", number(counts.cancelled)],
    left && ["Remaining", number(left)],
    job.position && ["Place in the queue", number(job.position), "now"],
    job.starts_in_s && ["Starts in about", duration(job.starts_in_s), "now"],
    job.rate_per_s && ["Pictures a second", number(job.rate_per_s), job.done ? "" : "now"],
    !job.done && job.eta_s && ["Time left, about", duration(job.eta_s), "now"],
    took && ["Took", duration(took)],
  ].filter(Boolean).map(([name, value, className = ""]) =>
    make("div", { className }, make("dt", { textContent: name }), make("dd", { textContent: value })));
}

// The models, each of which opens its card.
function models(job) {
  const names = (job.models ?? [job.model]).map(({ name, version }) => `${name}@${version}`);
  return make("span", {}, ...names.flatMap((textContent, at) => {
    const button = make("button", { type: "button", className: "link", textContent });
    button.addEventListener("click", () => openModel(textContent));
    return at ? [" + ", button] : [button];
  }));
}

function showFacts(job) {
  const parts = [models(job), make("code", { textContent: job.id }),
    `submitted ${new Date(job.created_at).toLocaleString()}`, `kept until ${new Date(job.expires_at).toLocaleString()}`];
  if (job.parent_job) {
    parts.push(make("a", { href: `#${job.parent_job}`, textContent: "retry of an earlier job" }));
    const both = make("a", { href: `jobs/${job.id}/report?merge=parents`, target: "_blank", textContent: "report of both" });
    both.addEventListener("click", (event) => attempt(() => download(event, `${job.id}.html`)));
    parts.push(both);
  }
  if (job.rescore_of) parts.push(make("a", { href: `#${job.rescore_of}`, textContent: "scores what an earlier job kept" }));
  if (job.error) parts.push(job.error);
  $("facts").replaceChildren(...parts.flatMap((part, at) => at ? [" · ", part] : [part]));
}

function showFailures(job) {
  const failures = Object.entries(job.failures).sort(([, one], [, other]) => other - one);
  const state = JSON.stringify(failures);
  if ($("failures").dataset.state === state) return;
  $("failures").dataset.state = state;
  $("failures").hidden = !failures.length;
  $("failures").replaceChildren(...failures.map(([code, n]) => {
    const [what, todo] = failure(code);
    const only = make("button", { type: "button", textContent: `${number(n)} × ${what}` });
    only.addEventListener("click", () => showOnlyFailure(code));
    return make("li", {}, only, ` ${todo} `, make("code", { textContent: code }));
  }));
}

async function attempt(action) {
  noError("job-error");
  try {
    await action();
  } catch (error) {
    if (!error.ofKey) showError("job-error", error);
  }
}

// `go` shows the page of an address; `open` that of a new job with the files of this one.
export function startJob(go, open) {
  goTo = go;
  $("stop").addEventListener("click", () => attempt(() => ask(`jobs/${view.id}/cancel`, { method: "POST" })));
  $("retry").addEventListener("click", () => attempt(async () => {
    const { files } = view;
    open(await post(`jobs/${view.id}/retry`, { only: "failed" }), files);
  }));
  $("delete").addEventListener("click", () => attempt(async () => {
    if (!confirm("Delete this job with its pictures and results?")) return;
    await ask(`jobs/${view.id}`, { method: "DELETE" });
    forgetMarks(view.id);
    goTo("#jobs");
  }));
  $("report").addEventListener("click", (event) => attempt(() => download(event, `${view.id}.html`)));
  $("again").addEventListener("click", () => goTo(""));
}
