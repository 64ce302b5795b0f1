// Starts the page, and shows the view that its address names: "#jobs", "#job_…" or, else, the form.

import { displayedPage, finishAddress } from "./address.js";
import { hasKey, read, service } from "./api.js";
import { $, noError, showError } from "./dom.js";
import { closeJob, displayedJob, openJob, startJob } from "./job.js";
import { closeJobs, openJobs, startJobs } from "./jobs.js";
import { startKeyForm } from "./key.js";
import { closeModel, startModel } from "./model.js";
import { closePicture, startPicture } from "./picture.js";
import { startResults } from "./results.js";
import { showForm, showModels, startForm } from "./start.js";

function route() {
  const hash = displayedPage(), isJob = /^job_\w+$/.test(hash);
  if (isJob && displayedJob() === hash) return;
  closeJob();
  closeJobs();
  closePicture();
  closeModel();
  document.title = hash === "jobs" ? "Jobs – Piqueue" : "Piqueue";
  show(isJob ? "job" : hash === "jobs" ? "jobs" : "new");
  if (isJob) openJob(hash);
  else if (hash === "jobs") openJobs();
  else showForm();
}

function show(name) {
  for (const view of ["new", "jobs", "job"]) $(view).hidden = view !== name;
  for (const [id, view] of [["to-new", "new"], ["to-jobs", "jobs"]]) {
    if (view === name) $(id).setAttribute("aria-current", "page");
    else $(id).removeAttribute("aria-current");
  }
}

function goTo(hash) {
  if (location.hash === hash) return route();
  finishAddress();
  history.pushState(null, "", hash || location.pathname + location.search);
  route();
}

function openNew(job, files, refused) {
  finishAddress();
  history.pushState(null, "", `#${job.id}`);
  closeJobs();
  show("job");
  openJob(job.id, files, refused);
  $("job-title").focus();
}

async function begin() {
  $("forget").hidden = !hasKey();
  try {
    service.limits = await read("limits");
    service.models = await read("models");
    showModels();
    noError("new-error");
  } catch (error) {
    if (error.ofKey) return;
    showError("new-error", error);
  }
  route();
  read("samples").then((names) => { $("samples").hidden = !names.length; }, () => {});
}

startKeyForm(begin);
startForm(openNew, () => goTo(""));
startResults();
startPicture();
startModel();
startJob(goTo, openNew);
startJobs(openNew);
window.addEventListener("hashchange", route);
// Addresses are relative, so that they work below any path; the address of the page ends with a slash.
if (location.pathname.endsWith("/")) begin();
else location.replace(`${location.pathname}/${location.search}${location.hash}`);
