// Says whether results are right, in the dialog of a picture; counts and downloads what was said.

import { modelOf } from "./api.js";
import { $, count, make, number, percent, setText } from "./dom.js";
import { labelsAt } from "./items.js";
import { labelTable, nameInTable } from "./labeltable.js";
import { marks, useMarks, whenMarkedElsewhere } from "./marks.js";

// Labels of one picture that have a button, the likeliest ones.
const MOST_BUTTONS = 20;

let job = null, model = null, labelAtHand = () => "", onChange = () => {};
let item = null, thresholds = {};

// The models of the job with their labels; of a choice, a picture has one label.
let parts = [];

const partsOf = ({ parts = [{ prefix: "", activation: model.activation }], labels }) =>
  parts.map(({ prefix, activation }) => ({
    isChoice: activation === "softmax",
    labels: labels.filter((label) => label.startsWith(prefix)),
    has: (label) => label.startsWith(prefix),
  }));
const partOf = (label) => parts.find(({ has }) => has(label));
const isChoice = () => parts.length === 1 && parts[0].isChoice;

// The label of a column: those of several models are "name/label".
const asColumn = (label) => label.replaceAll("/", "_");

const byScore = () => Object.entries(item.scores).sort(([, one], [, other]) => other - one).map(([label]) => label);

// What the page shows of a picture: of a choice, the likeliest label.
const shownLabels = () => parts.flatMap(({ isChoice, has }) =>
  isChoice ? byScore().filter(has).slice(0, 1) : labelsAt(item, thresholds).filter(has));
const answered = () => marks().get(item.index)?.labels ?? shownLabels();

function buttonLabels() {
  return parts.flatMap(({ isChoice, has }) => {
    const all = Object.keys(item.scores).filter(has);
    return all.length > MOST_BUTTONS || isChoice ? byScore().filter(has).slice(0, MOST_BUTTONS) : all;
  });
}

// `atHand` gives the label that the results are filtered or ordered by, or "".
export function openCorrections(current, atHand) {
  [job, model, labelAtHand] = [current, modelOf(current) ?? null, atHand];
  useMarks(model ? job : null);
  $("corrections").hidden = !model;
  if (!model) return;
  parts = partsOf(model);
  $("all-labels").replaceChildren(...model.labels.map((value) => make("option", { value })));
  showCounts();
}

export function closeCorrections() {
  useMarks(null);
  [job, model, item] = [null, null, null];
}

function showCounts() {
  const { count: marked, rightCount, isKept, log } = marks();
  setText($("marks-text"), marked
    ? `${count(marked, "result")} marked: ${number(rightCount)} right (${percent(rightCount / marked)}), ${number(marked - rightCount)} corrected`
    : "Are the results right? Open a picture and press R or W: the answers become a table of labels.");
  $("undo-last").hidden = !log.length;
  for (const id of ["forget-marks", "download-labels", "go-on"]) $(id).hidden = !marked;
  setText($("marks-kept"), isKept ? `Your marks are kept in this browser, until ${new Date(job.expires_at).toLocaleString()}.`
    : "This browser keeps nothing for this page, or is full: download the table before you leave.");
  const urls = marks().all().some(({ url }) => url);
  setText($("to-label"), urls ? `piqueue review ${job.id} --out labels.csv --folder images` : `piqueue label PICTURES --csv labels.csv${job.keep_features ? ` --from ${job.id}` : ""}`);
  $("to-label-line").hidden = isChoice();
  setText($("to-teach"), job.keep_features ? `piqueue teach NAME labels.csv --from ${job.id}` : "piqueue train labels.csv --images PICTURES --model models/NAME/1");
  setText($("about-teach"), job.keep_features ? "makes a model of them in seconds, from the features that this job keeps."
    : "trains a model. This job keeps no features, with which piqueue teach would need only seconds.");
}

function changed(index) {
  showCounts();
  if (item && $("picture").open) showAnswer();
  onChange(index);
}

function mark(labels) {
  const shown = shownLabels();
  const isSame = (other) => labels.length === other?.length && labels.every((label) => other.includes(label));
  const right = isSame(shown), before = marks().get(item.index);
  if (before?.right === right && isSame(before.labels)) return;
  marks().add({ index: item.index, name: nameInTable(item), url: item.source.url ?? "", labels, right });
  changed(item.index);
}

const say = (text) => setText($("correct-text"), text);

function showAnswer() {
  const kept = marks().get(item.index), labels = answered();
  for (const button of $("correct-labels").children) button.setAttribute("aria-pressed", labels.includes(button.dataset.label));
  $("correct-labels").classList.toggle("suggested", !kept);
  const words = labels.join(", ") || (isChoice() ? "none of these" : "no label");
  say(kept ? `${kept.right ? "Right" : "Corrected"}: ${words}` : `Is this right: ${words}?`);
  $("undo-mark").disabled = !marks().log.length;
}

// Called when the dialog shows a result.
export function showCorrection(shown, shownThresholds) {
  [item, thresholds] = [shown, shownThresholds];
  $("correct").hidden = !marks() || !item.scores;
  if ($("correct").hidden) return;
  $("other-label").hidden = buttonLabels().length === model.labels.length;
  $("other-label").value = "";
  showButtons();
  showAnswer();
}

function showButtons() {
  $("correct-labels").replaceChildren(...[...new Set([...buttonLabels(), ...answered()])].map((label, at) => {
    const button = make("button", { type: "button" }, ...(at < 9 ? [make("kbd", { textContent: at + 1 }), " "] : []), label);
    button.dataset.label = label;
    button.addEventListener("click", () => flip(label));
    return button;
  }));
}

// Marks with one label more or less than `labels`; of a choice, another one replaces it.
function flip(label, labels = answered()) {
  const { isChoice, has } = partOf(label);
  mark(model.labels.filter((one) => one === label ? !labels.includes(one) : labels.includes(one) && !(isChoice && has(one))));
}

// The label that is wrong, if there is no doubt which: the one at hand, or the only one shown.
function wrongLabel() {
  const shown = shownLabels(), atHand = labelAtHand();
  if (isChoice() || (parts.length === 1 && shown.length === 1 && !atHand)) return shown[0];
  if (!(atHand in item.scores)) return undefined;
  const { isChoice: isOfChoice, has } = partOf(atHand);
  return isOfChoice ? shown.find(has) : atHand;
}

// The labels of the table: of a choice among several models, those that a picture has.
function tableLabels(rows) {
  if (parts.length === 1) return model.labels;
  const used = new Set(rows.flatMap(({ labels }) => labels));
  return parts.flatMap(({ isChoice, labels }) => isChoice ? labels.filter((label) => used.has(label)) : labels);
}

// `next` shows the next result; `change` is called with the index of the item whose mark changed,
// or without one.
export function startCorrections(next, change) {
  onChange = change;
  const right = () => {
    mark(answered());
    next();
  };
  const wrong = () => {
    const label = wrongLabel();
    if (label === undefined) {
      say(shownLabels().length ? "Which labels are wrong? Press their numbers." : "Which labels are missing? Press their numbers.");
      return;
    }
    flip(label, shownLabels());
    next();
  };
  const undo = () => changed(marks().undo());
  const keys = { r: right, w: wrong, u: undo };
  for (const [id, act] of [["mark-right", right], ["mark-wrong", wrong], ["undo-mark", undo], ["undo-last", undo]]) $(id).addEventListener("click", act);
  document.addEventListener("keydown", (event) => {
    if (!$("picture").open || $("correct").hidden || event.target === $("other-label") || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const label = /^[1-9]$/.test(event.key) ? buttonLabels()[event.key - 1] : undefined;
    const act = label === undefined ? keys[event.key.toLowerCase()] : () => flip(label);
    if (!act || (act === undo && $("undo-mark").disabled)) return;
    event.preventDefault();
    act();
  });
  $("other-label").addEventListener("change", ({ target }) => {
    const label = target.value.trim();
    if (!model.labels.includes(label)) return;
    target.value = "";
    if (!answered().includes(label)) flip(label);
    showButtons();
    showAnswer();
    $("close-picture").focus();
  });
  $("forget-marks").addEventListener("click", () => {
    if (!confirm("Remove all your marks of this job?")) return;
    marks().clear();
    changed();
  });
  $("download-labels").addEventListener("click", () => {
    const marked = marks().all(), rows = marked.map((one) => ({ ...one, labels: one.labels.map(asColumn) }));
    const table = new Blob([labelTable(rows, tableLabels(marked).map(asColumn), isChoice())], { type: "text/csv" });
    const link = make("a", { href: URL.createObjectURL(table), download: "labels.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
  whenMarkedElsewhere(() => changed());
}
