// Shows a picture with its answer, the end, errors and conflicts.

import { $, count, make, number } from "../page/dom.js";
import { ask } from "./server.js";
import { isSuggested, labelledCount, labelsOf, nextOne, picture, state } from "./state.js";

export function showError(error) {
  $("error").textContent = error ? error.message : "";
  $("error").hidden = !error;
}

export function showConflicts() {
  const shown = state.conflicts.slice(state.dismissed);
  $("conflict-list").replaceChildren(...shown.map((text) => make("p", { textContent: text })));
  $("conflicts").hidden = shown.length === 0;
}

export function dismiss() {
  state.dismissed = state.conflicts.length;
  showConflicts();
}

export function showLabels(toggle) {
  $("labels").replaceChildren(...state.labels.map((label, index) => {
    const button = make("button", { type: "button" });
    if (index < 10) button.append(make("kbd", { textContent: (index + 1) % 10 }), " ");
    button.append(label, make("span", { className: "score" }), make("span", { className: "bar" }));
    button.addEventListener("click", () => toggle(index));
    return button;
  }));
}

export function show(index) {
  state.at = index;
  $("done").hidden = $("unavailable").hidden = true;
  $("picture").hidden = false;
  $("picture").src = `pictures/${index}`;
  $("picture").alt = picture().name;
  showAnswer();
  const next = nextOne();
  if (next !== null) new Image().src = `pictures/${next}`;
}

export function showAnswer() {
  const { pictures, at } = state, one = picture(), set = labelsOf(one);
  const chip = one.skipped ? ["left out", ""] : one.labels ? ["labelled", "good"]
    : isSuggested(one) ? [set.length ? "suggested" : "suggested: no label", "model"] : ["open", ""];
  [$("chip").textContent, $("chip").className] = [chip[0], `chip ${chip[1]}`];
  $("chip").hidden = false;
  $("name").textContent = one.name;
  $("place").textContent = `${at + 1} of ${number(pictures.length)}`;
  const labelled = labelledCount();
  const skipped = pictures.filter((other) => other.skipped).length;
  $("progress").max = pictures.length;
  $("progress").value = labelled + skipped;
  $("progress-text").textContent = `${number(labelled)} labelled` + (skipped ? `, ${number(skipped)} left out` : "");
  $("labels").classList.toggle("suggested", isSuggested(one));
  for (const [index, button] of [...$("labels").children].entries()) {
    const label = state.labels[index], score = one.scores?.[label];
    button.setAttribute("aria-pressed", set.includes(label));
    button.querySelector(".score").textContent = score === undefined ? "" : score.toFixed(2);
    button.querySelector(".bar").style.setProperty("--score", score ?? 0);
  }
  $("undo").disabled = !state.canUndo;
  $("previous").disabled = at === 0;
  $("next").disabled = at === pictures.length - 1;
  $("status").textContent = `${one.name}, ${at + 1} of ${pictures.length}, ${chip[0]}: ${set.join(", ") || "no label"}`;
}

export function showDone() {
  $("picture").hidden = $("unavailable").hidden = true;
  $("done").hidden = false;
  $("done-title").textContent = "All pictures have an answer";
  $("done-text").textContent = `${count(labelledCount(), "picture")} labelled in ${state.table}.`;
  showAnswer();
  $("done").focus();
}

export function showFinished() {
  state.finished = true;
  showDone();
  $("done-title").textContent = "Saved";
  $("done-text").append(" You may close this tab.");
  for (const button of document.querySelectorAll("button")) button.disabled = true;
}

// Says why the picture cannot be displayed.
export async function showUnavailable() {
  const index = state.at;
  const { message } = await ask(`pictures/${index}`).catch((error) => error);
  if (index !== state.at || !message) return;
  $("picture").hidden = true;
  $("unavailable").textContent = `${message}. Training cannot use it either. S or Enter leaves it out.`;
  $("unavailable").hidden = false;
}
