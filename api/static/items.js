// One result as a row of the list or a tile of the gallery.

import { ask } from "./api.js";
import { make, percent } from "./dom.js";
import { nameOf } from "./filter.js";
import { marks } from "./marks.js";
import { failure } from "./words.js";

const ROW_SCORES = 4;

const MOST_URLS = 1000;

// The displayed job, the pictures of this tab by item id, and the addresses of what is shown, by index.
let job = null, files = new Map();
const urls = new Map();

const forgetUrl = (index) => {
  urls.get(index)?.then(URL.revokeObjectURL, () => {});
  urls.delete(index);
};

export function usePictures(chosen, displayed) {
  for (const index of urls.keys()) forgetUrl(index);
  [files, job] = [chosen, displayed];
}

export const displayedJob = () => job;
export const updateJob = (displayed) => { job = displayed; };

export const havePictures = () => files.size > 0 || job?.thumbnails > 0;

// The picture that this tab uploaded, or else its thumbnail; a request can send the key, an image cannot.
async function pictureFile(item, file) {
  if (file) return file;
  return (await ask(`jobs/${job.id}/items/${item.index}/thumbnail`)).blob();
}

function urlOf(item, file) {
  if (!urls.has(item.index)) {
    if (urls.size === MOST_URLS) forgetUrl(urls.keys().next().value);
    urls.set(item.index, pictureFile(item, file).then((blob) => URL.createObjectURL(blob)));
  }
  return urls.get(item.index);
}

export function pictureOf(item, className) {
  const box = make("div", { className });
  const instead = item.image?.format ?? "no picture";
  const file = files.get(item.id);
  if (!file && !(item.image?.width && item.index < job.thumbnails)) {
    box.textContent = className === "large" ? "This tab did not upload the picture, so it has no preview." : instead;
    return box;
  }
  const picture = make("img", { alt: "", decoding: "async" });
  // Not every browser can show every format, and not every picture has a thumbnail.
  const failed = () => box.replaceChildren(instead);
  picture.addEventListener("error", failed);
  urlOf(item, file).then((url) => { picture.src = url; }, failed);
  box.append(picture);
  return box;
}

export const titleOf = (item) =>
  item.source.url && item.id !== String(item.index) ? `${item.id}: ${item.source.url}` : nameOf(item);

// The labels at the thresholds that the page shows; without one, as the service gave them.
export function labelsAt(item, thresholds) {
  if (!item.scores) return [];
  return Object.keys(item.scores).filter((label) =>
    label in thresholds ? item.scores[label] >= thresholds[label] : item.labels.includes(label));
}

function labelChips(item, thresholds) {
  const labels = labelsAt(item, thresholds).map((label) => make("span", { textContent: label }));
  if (item.scores && !labels.length) labels.push(make("span", { className: "none", textContent: "no label" }));
  return make("div", { className: "labels" }, ...labels);
}

export function scoreBars(item, thresholds, most = Infinity) {
  const list = make("dl", { className: "scores" }), labels = labelsAt(item, thresholds);
  let scores = Object.entries(item.scores);
  if (scores.length > most) scores = scores.sort(([, one], [, other]) => other - one).slice(0, most);
  for (const [label, score] of scores) {
    const mark = labels.includes(label) ? "is" : "";
    const fill = make("i");
    fill.style.width = `${100 * score}%`;
    const bar = make("dd", { className: `bar ${mark}` }, fill);
    bar.setAttribute("aria-hidden", "true");
    list.append(make("div", {}, make("dt", { className: mark, textContent: label }), bar,
      make("dd", { className: `number ${mark}`, textContent: percent(score) })));
  }
  return list;
}

export function errorText({ code, detail }) {
  const [what, todo] = failure(code);
  return make("div", { className: "failed" }, make("strong", { textContent: what }), ` ${todo} `,
    make("span", { className: "detail", textContent: `${code}: ${detail}` }));
}

// What a person said about a result.
function badge(item) {
  const mark = marks()?.get(item.index);
  return mark ? make("span", { className: `badge ${mark.right ? "good" : ""}`, textContent: mark.right ? "Right" : "Corrected" }) : "";
}

export function makeRow(item, thresholds, open) {
  const name = make("button", { type: "button", className: "name", textContent: titleOf(item) });
  name.addEventListener("click", () => open(item));
  const picture = pictureOf(item, "thumb");
  picture.addEventListener("click", () => open(item));
  return make("article", { className: "line" }, picture,
    make("div", { className: "what" }, name, labelChips(item, thresholds), badge(item)),
    item.error ? errorText(item.error) : scoreBars(item, thresholds, ROW_SCORES));
}

export function makeTile(item, thresholds, open) {
  const labels = labelsAt(item, thresholds).join(", ");
  const text = item.error ? failure(item.error.code)[0] : labels || "no label";
  const tile = make("button", { type: "button", className: "tile" }, pictureOf(item, "shot"), badge(item),
    make("span", { className: `caption ${item.error ? "bad" : labels ? "" : "none"}`, textContent: text }),
    make("span", { className: "name", textContent: titleOf(item) }));
  tile.addEventListener("click", () => open(item));
  return tile;
}
