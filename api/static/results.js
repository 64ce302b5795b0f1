// The results of the displayed job: histograms, filters, order, list and gallery, downloads.

import { readAddress, writeAddress } from "./address.js";
import { modelOf, service } from "./api.js";
import { closeCorrections, openCorrections, startCorrections } from "./correct.js";
import { $, count, make, noError, number, setOptions, setText, showError } from "./dom.js";
import { download } from "./download.js";
import { everything, isFiltering, parameters, select, sort } from "./filter.js";
import { Histogram } from "./histogram.js";
import { havePictures, makeRow, makeTile, updateJob, usePictures } from "./items.js";
import { loadHistograms, loadResults, MOST_ITEMS } from "./load.js";
import { move, openPicture } from "./picture.js";
import { VirtualList } from "./virtual.js";
import { failure } from "./words.js";

// A model of more labels shows the histograms that a person adds.
const MOST_HISTOGRAMS = 8;
// While a job runs, only the first results are shown.
const RUNNING_ITEMS = 1000;
const TYPING_MS = 250;
const FORMATS = ["csv", "jsonl", "parquet"];

let job = null, items = [], hasMore = false, filter = everything(), loading = null, typing = 0;
let histograms = new Map(), list;
const thresholds = () => Object.fromEntries([...histograms].filter(([, one]) => one.threshold !== null)
  .map(([label, one]) => [label, one.threshold]));

const finishedCount = ({ counts }) => counts.succeeded + counts.failed;

export function clearResults() {
  loading?.abort();
  clearTimeout(typing);
  [job, items, hasMore, filter, histograms] = [null, [], false, everything(), new Map()];
  usePictures(new Map(), null);
  closeCorrections();
  $("histograms").replaceChildren();
  for (const id of ["by-status", "by-name"]) $(id).value = "";
  $("results").hidden = true;
  noError("results-error");
  list.clear();
}

// Called with each state of the job. `files` are the pictures of this tab, by item id.
export async function showResults(current, files) {
  const isNew = job?.id !== current.id;
  const finished = finishedCount(current);
  if (!isNew && job.done === current.done && finished === finishedCount(job)) return;
  job = current;
  if (!isNew) updateJob(job);
  if (isNew) {
    openCorrections(job, labelAtHand);
    usePictures(files, job);
    showLabels();
    setLayout(havePictures() ? "gallery" : "list");
  }
  showStatuses();
  if (isNew) restoreFilter();
  if (!finished) return;
  $("results").hidden = false;
  await load();
}

// Large jobs are filtered by the service, others here.
const isLarge = () => job.counts.total > MOST_ITEMS;

async function load() {
  const most = job.done ? MOST_ITEMS : RUNNING_ITEMS;
  // Counting a large job takes many requests, which are not worth their cost at each step of it.
  const labels = job.done || !isLarge() ? [...histograms.keys()] : [];
  $("histograms").hidden = !labels.length;
  loading?.abort();
  loading = new AbortController();
  const { signal } = loading;
  const query = isLarge() ? parameters(filter) : new URLSearchParams();
  if (modelOf(job)?.top_k) for (const label of histograms.keys()) query.append("include", label);
  noError("results-error");
  try {
    const loaded = [];
    const counted = labels.length ? loadHistograms(job.id, labels, signal, showHistograms) : null;
    const [more] = await Promise.all([loadResults(job.id, query, most, signal, (page) => {
      loaded.push(...page);
      // Results of earlier requests keep their object, and so their element.
      if (loaded.length > items.length || items.length === 0) show(loaded);
    }), counted]);
    hasMore = more;
    show(loaded);
  } catch (error) {
    if (error.name !== "AbortError") showError("results-error", error);
  }
}

function show(loaded) {
  const known = new Map(items.map((item) => [item.index, item]));
  const isSame = (one, other) => one && Object.keys(one.scores ?? {}).length === Object.keys(other.scores ?? {}).length;
  items = loaded.map((item) => isSame(known.get(item.index), item) ? known.get(item.index) : item);
  apply();
}

// The label by which the results are filtered or ordered, if it is one.
function labelAtHand() {
  if (filter.sides.size) return filter.sides.size === 1 ? [...filter.sides.keys()][0] : "";
  return /^(?:high|low) (.*)$/s.exec($("by-order").value)?.[1] ?? "";
}

// The items that pass the filter, in the chosen order.
const shownItems = () => sort(select(items, filter), $("by-order").value, thresholds());

function apply() {
  const shown = shownItems();
  list.show(shown);
  setText($("shown"), countText(shown.length));
  $("no-rows").hidden = shown.length > 0;
  $("clear-filter").hidden = !isFiltering(filter);
  for (const format of FORMATS) {
    const query = parameters(filter);
    query.set("format", format);
    $(`as-${format}`).href = `jobs/${job.id}/results?${query}`;
  }
  writeAddress(job.id, filter, $("by-order").value);
  $("download-words").textContent = isFiltering(filter) ? "Download these" : "Download all";
}

function countText(shown) {
  if (!isFiltering(filter)) return hasMore ? `the first ${count(shown, "result")}` : count(shown, "result");
  if (hasMore) return `the first ${count(shown, "result")} that match`;
  return `${number(shown)} of the ${count(finishedCount(job), "result")} match`;
}

function changed() {
  if (isLarge()) {
    clearTimeout(typing);
    typing = setTimeout(load, TYPING_MS);
  }
  apply();
}

function showLabels() {
  const labels = modelOf(job)?.labels ?? [];
  const few = labels.length <= MOST_HISTOGRAMS;
  $("add-label").hidden = few;
  $("labels").replaceChildren(...(few ? [] : labels.map((label) => make("option", { value: label }))));
  if (few) labels.forEach(addHistogram);
  showOrders();
}

function addHistogram(label) {
  const histogram = new Histogram(label, () => {
    const { side, threshold } = histogram;
    if (side) filter.sides.set(label, { side, threshold });
    else filter.sides.delete(label);
    list.renew();
    changed();
  });
  histograms.set(label, histogram);
  $("histograms").append(histogram.element);
}

// Filters as the address of the page says.
function restoreFilter() {
  const query = readAddress(), labels = modelOf(job)?.labels ?? [];
  for (const name of ["status", "error", "search"]) filter[name] = query.get(name) ?? "";
  for (const side of ["above", "below"]) {
    for (const text of query.getAll(side)) {
      const label = text.slice(0, text.lastIndexOf(":")), threshold = Number(text.slice(label.length + 1));
      if (!labels.includes(label) || !(threshold >= 0 && threshold <= 1)) continue;
      if (!histograms.has(label)) addHistogram(label);
      Object.assign(histograms.get(label), { side, threshold, moved: true });
      filter.sides.set(label, { side, threshold });
    }
  }
  showOrders();
  $("by-status").value = filter.error || filter.status;
  $("by-name").value = filter.search;
  if (query.has("order")) $("by-order").value = query.get("order");
  if (!$("by-order").value) $("by-order").value = "index";
  if (!$("by-status").value) filter.status = filter.error = $("by-status").value = "";
}

function showHistograms(sums) {
  for (const [label, sum] of Object.entries(sums)) histograms.get(label)?.update(sum);
}

function showOrders() {
  setOptions($("by-order"), [
    ["index", "As submitted"], ["name", "Name"], ["uncertain", "Least certain first"],
    ...[...histograms.keys()].flatMap((label) => [[`high ${label}`, `${label}, highest first`], [`low ${label}`, `${label}, lowest first`]]),
  ]);
}

function showStatuses() {
  for (const format of FORMATS) $(`as-${format}`).hidden = !service.limits?.results_formats.includes(format);
  setOptions($("by-status"), [
    ["", "All"], ["succeeded", "Scored"], ["failed", "Failed"],
    ...Object.entries(job.failures).map(([code, n]) => [code, `Failed: ${failure(code)[0]} (${number(n)})`]),
  ]);
}

// Called by the list of failures.
export function showOnlyFailure(code) {
  $("by-status").value = code;
  $("by-status").dispatchEvent(new Event("change"));
  $("results").scrollIntoView();
}

function setLayout(layout) {
  for (const one of document.getElementsByName("layout")) one.checked = one.value === layout;
  $("rows").className = layout;
  list.renew();
}

export function startResults() {
  list = new VirtualList($("rows"), (item) => {
    const makeItem = $("rows").className === "gallery" ? makeTile : makeRow;
    return makeItem(item, thresholds(), (one) => openPicture(one, shownItems(), thresholds()));
  });
  startCorrections(() => move(1), (index) => list.renew(items.find((one) => one.index === index)));
  $("by-status").addEventListener("change", () => {
    const { value } = $("by-status"), isStatus = ["", "succeeded", "failed"].includes(value);
    [filter.status, filter.error] = isStatus ? [value, ""] : ["", value];
    changed();
  });
  $("by-name").addEventListener("input", () => {
    filter.search = $("by-name").value.trim();
    changed();
  });
  $("by-order").addEventListener("change", apply);
  $("clear-filter").addEventListener("click", () => {
    filter = everything();
    $("by-status").value = $("by-name").value = "";
    for (const histogram of histograms.values()) {
      histogram.side = "";
      histogram.show();
    }
    changed();
  });
  for (const one of document.getElementsByName("layout")) one.addEventListener("change", () => setLayout(one.value));
  $("add-label").addEventListener("submit", (event) => {
    event.preventDefault();
    const label = $("label").value;
    if (histograms.has(label) || !modelOf(job)?.labels.includes(label)) return;
    addHistogram(label);
    showOrders();
    $("label").value = "";
    load();
  });
  for (const format of FORMATS) $(`as-${format}`).addEventListener("click", async (event) => {
    noError("results-error");
    try {
      await download(event, `${job.id}.${format}`);
    } catch (error) {
      showError("results-error", error);
    }
  });
}
