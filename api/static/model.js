// The card of a model, in a dialog: its labels, its figures, and what it was made from.

import { read } from "./api.js";
import { $, make, noError, percent, showError } from "./dom.js";

// Cards of models with more labels list them without figures.
const MOST_ROWS = 100;
// The figures that are shown, those of unseen pictures first, and what they were measured on.
const MEASURED = {
  validation: "pictures that the model was not trained on",
  out_of_fold: "each picture by a model that did not see it",
};
const FIGURES = {
  macro_average_precision: "Average precision",
  binary_accuracy_at_thresholds: "Right answers at the thresholds",
  accuracy: "Right answers",
  expected_calibration_error: "Calibration error",
};

const share = (value) => typeof value === "number" ? percent(value) : "";

function statsOf(figures, intervals) {
  const found = Object.entries(FIGURES).filter(([key]) => typeof figures[key] === "number");
  return make("dl", { className: "stats" }, ...found.map(([key, name]) => {
    const between = Array.isArray(intervals[key]) ? `95 %: ${share(intervals[key][0])} to ${share(intervals[key][1])}` : "";
    return make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: share(figures[key]) }),
      make("dd", { className: "between", textContent: between }));
  }));
}

function rowOf(tag, texts) {
  return make("tr", { role: "row" }, ...texts.map((textContent, at) => tag === "th" || !at
    ? make("th", { scope: tag === "th" ? "col" : "row", role: tag === "th" ? "columnheader" : "rowheader", textContent })
    : make("td", { role: "cell", textContent })));
}

function labelsOf({ labels, thresholds }, figures) {
  if (labels.length > MOST_ROWS) {
    return make("details", {}, make("summary", { textContent: `${labels.length.toLocaleString()} labels` }), make("p", { textContent: labels.join("; ") }));
  }
  const columns = [["Average precision", "average_precision"], ["Right answers at 50 %", "binary_accuracy"]]
    .filter(([, key]) => labels.some((label) => `${key}_${label}` in figures));
  return make("table", { className: "figures", role: "table", ariaLabel: "Labels" },
    make("thead", { role: "rowgroup" }, rowOf("th", ["Label", "Threshold", ...columns.map(([name]) => name)])),
    make("tbody", { role: "rowgroup" }, ...labels.map((label) => rowOf("td", [
      label, thresholds[label].toFixed(2), ...columns.map(([, key]) => share(figures[`${key}_${label}`])),
    ]))));
}

function show(model) {
  const measured = Object.keys(MEASURED).find((name) => model.metrics[name]);
  const figures = model.metrics[measured] ?? {}, intervals = model.metrics.intervals_95?.[measured] ?? {};
  const [height, width] = model.input_size ?? [];
  const facts = [
    model.activation === "softmax" ? "one label per picture" : "any number of labels per picture",
    height && `sees ${width} × ${height} pixels`, `made ${model.created}`, model.default && "used when a job names no model",
  ].filter(Boolean).join(" · ");
  $("model-body").replaceChildren(
    make("p", { className: "note", textContent: facts }),
    ...(measured
      ? [make("h3", { textContent: "How good it is" }), statsOf(figures, intervals), make("p", { className: "note", textContent: `Measured on ${MEASURED[measured]}.` })]
      : [make("p", { className: "note", textContent: "Its card has no figures: measure it with piqueue evaluate." })]),
    labelsOf(model, figures),
    ...(model.sources.length ? [make("h3", { textContent: "Made from" }), make("ul", {}, ...model.sources.map(
      ({ name, terms }) => make("li", {}, `${name} `, make("span", { className: "note", textContent: `(${terms})` }))))] : []),
    ...(model.notes ? [make("h3", { textContent: "Notes" }), make("p", { textContent: model.notes })] : []),
    make("p", { className: "note" }, "SHA-256 ", make("code", { textContent: model.sha256 })));
}

export const closeModel = () => $("model-card").close();

// `reference` is name@version.
export async function openModel(reference) {
  $("model-title").textContent = reference;
  $("model-body").replaceChildren();
  noError("model-error");
  $("model-card").showModal();
  try {
    const model = await read(`models/${reference}`);
    if ($("model-title").textContent === reference) show(model);
  } catch (error) {
    if (error.ofKey) closeModel();
    else showError("model-error", error);
  }
}

export function startModel() {
  $("close-model").addEventListener("click", closeModel);
}
