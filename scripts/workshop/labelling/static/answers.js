// Answers: each is shown and sent at once, and can be undone.

import { $ } from "../page/dom.js";
import { ask } from "./server.js";
import { labelsOf, nextOne, picture, state } from "./state.js";
import { show, showAnswer, showConflicts, showDone, showError } from "./view.js";

// Answers are sent one after the other, so that they arrive in order.
let queue = Promise.resolve(), waiting = 0;
// By picture, the answer that the table has.
let saved = [];
const answerOf = ({ labels, skipped }) => ({ labels, skipped });

export const isSaving = () => waiting > 0;
export const allSent = () => queue;

function send(path, body, then) {
  waiting++;
  queue = queue.then(() => ask(path, body)).then((answer) => answer.json()).then(async (change) => {
    waiting--;
    state.canUndo = change.can_undo;
    saved[change.index] = answerOf(change.picture);
    // Until the last answer arrives, the page is ahead of the server.
    if (!waiting) state.pictures[change.index] = change.picture;
    showError(null);
    then?.(change);
    if (!waiting && change.revision !== state.revision) await loadAndShow().catch(showError);
    else if ($("done").hidden) showAnswer();
  }).catch(async (error) => {
    waiting--;
    showError(error);
    state.revision = null;  // the page shows an answer that the server does not have
    if (waiting) return;
    await loadAndShow().catch(() => {
      state.pictures.forEach((one, index) => Object.assign(one, saved[index]));
      showAnswer();
    });
  });
}

// Loads the state of the server, unless an answer is on its way: the last of them loads it again.
export async function load() {
  const { can_undo, ...given } = await (await ask("state")).json();
  if (waiting) return;
  Object.assign(state, given, { canUndo: can_undo });
  saved = state.pictures.map(answerOf);
}

async function loadAndShow() {
  await load();
  showConflicts();
  if ($("done").hidden || nextOne() !== null) show(state.at); else showDone();
}

function answer(labels) {
  const one = picture();
  const shown = answerOf(one);
  [one.labels, one.skipped] = [labels, labels === null];
  send(`pictures/${state.at}`, { labels, shown });
  showAnswer();
}

export function toggle(index) {
  const label = state.labels[index];
  if (label === undefined || !$("done").hidden) return;
  const set = new Set(labelsOf(picture()));
  if (!set.delete(label)) set.add(label);
  answer([...set]);
}

function answerAndContinue(labels) {
  if (!$("done").hidden) return;
  answer(labels);
  const next = nextOne();
  if (next === null) showDone(); else show(next);
}

// A picture that cannot be displayed cannot be used for training.
export const save = () => answerAndContinue($("unavailable").hidden ? labelsOf(picture()) : null);
export const skip = () => answerAndContinue(null);

export function undo() {
  if (!state.canUndo && !waiting) return;
  send("undo", {}, (change) => {
    state.pictures[change.index] = change.picture;
    show(change.index);
  });
}
