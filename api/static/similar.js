// The pictures of the job that are most like the one in the dialog, if the job keeps features.

import { read } from "./api.js";
import { make, sleep } from "./dom.js";
import { displayedJob, pictureOf } from "./items.js";
import { nameOf } from "./filter.js";

const POLL_MS = 1000;

// Stays open while a person goes from picture to picture.
let isOpen = false;

// The first request lets a worker compare the pictures; until that is done, the answer is 503.
async function similarTo(job, item, isShown) {
  for (;;) {
    try {
      return await read(`jobs/${job.id}/similar?item=${item.index}`);
    } catch (error) {
      if (error.code !== "not_compared" || !isShown()) throw error;
      await sleep(POLL_MS);
    }
  }
}

// One that is among the results that are shown can be opened.
function tile(one, open) {
  const caption = make("span", { className: "caption", textContent: one.similarity.toFixed(2) });
  const name = make("span", { className: "name", textContent: nameOf(one) });
  const picture = pictureOf({ ...one, image: { width: 1 } }, "shot");
  if (!open) return make("li", { className: "tile" }, picture, caption, name);
  const button = make("button", { type: "button", className: "tile" }, picture, caption, name);
  button.addEventListener("click", open);
  return make("li", {}, button);
}

// `opener` gives what opens the picture of an index, or null if it is not shown.
export function similarOf(item, opener) {
  const job = displayedJob();
  if (!job?.keep_features || job.rescore_of || !job.done || !item.scores) return "";
  const note = make("p", { className: "note", role: "status" }), list = make("ul");
  const box = make("details", { className: "similar" }, make("summary", { textContent: "Similar pictures" }), note, list);
  async function load() {
    note.textContent = "The pictures are compared …";
    try {
      const found = await similarTo(job, item, () => box.isConnected && box.open);
      note.textContent = found.length ? "" : "The job has no other picture with features.";
      list.replaceChildren(...found.map((one) => tile(one, opener(one.index))));
    } catch (error) {
      if (error.code !== "not_compared") note.textContent = error.message;
    }
  }
  box.addEventListener("toggle", () => {
    isOpen = box.open;
    if (box.open && !list.children.length) load();
  });
  box.open = isOpen;
  return box;
}
