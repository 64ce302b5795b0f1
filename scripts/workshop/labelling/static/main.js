// Starts the page; its buttons and keys.

import { $ } from "../page/dom.js";
import { allSent, isSaving, load, save, skip, toggle, undo } from "./answers.js";
import { ask } from "./server.js";
import { isOpen, isSuggested, state } from "./state.js";
import { startTeach } from "./teach.js";
import { dismiss, show, showConflicts, showError, showFinished, showLabels, showUnavailable } from "./view.js";

const move = (step) => {
  const index = state.at + step;
  if (state.pictures[index]) show(index);
};

const startAgain = () => {
  state.again = true;
  show(0);
};

const help = () => $("help").showModal();

async function finish() {
  await allSent();
  if (!$("error").hidden) return;
  try {
    await ask("finish", {});
  } catch (error) {
    showError(error);
    return;
  }
  showFinished();
}

for (const [id, act] of [
  ["previous", () => move(-1)], ["next", () => move(1)], ["undo", undo], ["skip", skip],
  ["save", save], ["finish", finish], ["done-finish", finish], ["again", startAgain],
  ["help-button", help], ["dismiss", dismiss],
]) $(id).addEventListener("click", act);

$("picture").addEventListener("error", showUnavailable);

const KEYS = {
  ArrowLeft: () => move(-1), ArrowRight: () => move(1), Enter: save, " ": save, s: skip, u: undo, "?": help,
};

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (state.finished || !state.pictures.length || $("help").open || $("teach").open) return;
  if ((event.ctrlKey || event.metaKey) && key.toLowerCase() === "z") {
    event.preventDefault();
    undo();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // Space presses a focused button, and so does Enter unless it is a label.
  const button = target.closest("button");
  if (button && (key === " " || (key === "Enter" && !button.closest("#labels")))) return;
  const act = /^\d$/.test(key) ? () => toggle((Number(key) + 9) % 10) : KEYS[key] ?? KEYS[key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  if (event.repeat && !key.startsWith("Arrow")) return;
  act();
});

addEventListener("beforeunload", (event) => {
  if (isSaving()) event.preventDefault();
});

load().then(() => {
  startTeach();
  showLabels(toggle);
  $("about-suggestions").hidden = !state.pictures.some(isSuggested);
  $("about-scores").hidden = !state.pictures.some(({ scores }) => scores !== null);
  showConflicts();
  const first = state.pictures.findIndex(isOpen);
  if (first < 0) startAgain(); else show(first);
}).catch(showError);
