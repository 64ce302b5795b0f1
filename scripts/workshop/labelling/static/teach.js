// The dialog that teaches a model of the labels so far, where a job keeps features of the pictures.

import { $, make } from "../page/dom.js";
import { allSent } from "./answers.js";
import { ask } from "./server.js";
import { state } from "./state.js";

export function startTeach() {
  $("teach-button").hidden = $("done-teach").hidden = !state.job;
  $("teach-job").textContent = state.job;
  for (const id of ["teach-button", "done-teach"]) $(id).addEventListener("click", () => $("teach").showModal());
  $("teach-close").addEventListener("click", () => $("teach").close());
  $("teach-form").addEventListener("submit", (event) => {
    event.preventDefault();
    teach();
  });
}

async function teach() {
  await allSent();
  $("teach-start").disabled = true;
  showText("Teaching…", false);
  try {
    showText((await (await ask("teach", { name: $("teach-name").value.trim() })).json()).text, false);
  } catch (error) {
    showText(error.message, true);
  }
  $("teach-start").disabled = false;
}

function showText(text, isBad) {
  const lines = text.split("\n").map((line) => make("span", { className: line.startsWith(" ") ? "inner" : "", textContent: line }));
  $("teach-text").replaceChildren(...lines);
  $("teach-text").classList.toggle("bad", isBad);
}
