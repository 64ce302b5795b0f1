// One result large, in a dialog: its picture, all its scores, its error, its source.

import { showCorrection } from "./correct.js";
import { $, make, number, size } from "./dom.js";
import { errorText, pictureOf, scoreBars, titleOf } from "./items.js";
import { similarOf } from "./similar.js";

let items = [], at = 0, thresholds = {};

function facts({ image, attempts, cached, columns, ms }) {
  const all = [
    image?.width && `${number(image.width)} × ${number(image.height)} pixels`,
    image && `${image.format?.toUpperCase() ?? "unknown format"}, ${size(image.bytes)}`,
    ms.infer && `scored in ${ms.infer} ms`,
    cached && "score from the cache",
    attempts > 1 && `${attempts} attempts`,
    ...Object.entries(columns ?? {}).map(([name, text]) => `${name}: ${text}`),
  ];
  return make("p", { className: "note", textContent: all.filter(Boolean).join(" · ") });
}

function source({ source: { url } }) {
  if (!/^https?:\/\//i.test(url ?? "")) return "";
  return make("p", {}, make("a", { href: url, textContent: "Open the source", target: "_blank", rel: "noopener noreferrer" }));
}

function show() {
  const item = items[at];
  $("picture-title").textContent = titleOf(item);
  $("picture-place").textContent = `${number(at + 1)} of ${number(items.length)}`;
  $("picture-body").replaceChildren(pictureOf(item, "large"), make("div", { className: "about" },
    item.error ? errorText(item.error) : scoreBars(item, thresholds), facts(item), source(item)), similarOf(item, opener));
  showCorrection(item, thresholds);
  // A disabled button that has the focus would take all keys.
  if ([at === 0 && $("previous"), at === items.length - 1 && $("next")].includes(document.activeElement)) $("close-picture").focus();
  $("previous").disabled = at === 0;
  $("next").disabled = at === items.length - 1;
}

function opener(index) {
  const found = items.findIndex((one) => one.index === index);
  return found < 0 ? null : () => move(found - at);
}

export function move(by) {
  if (!items[at + by]) return;
  at += by;
  show();
}

export function openPicture(item, shown, shownThresholds) {
  [items, at, thresholds] = [shown, shown.indexOf(item), shownThresholds];
  show();
  $("picture").showModal();
}

export const closePicture = () => $("picture").close();

export function startPicture() {
  $("previous").addEventListener("click", () => move(-1));
  $("next").addEventListener("click", () => move(1));
  $("close-picture").addEventListener("click", closePicture);
  $("picture").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") move(-1);
    if (event.key === "ArrowRight") move(1);
  });
}
