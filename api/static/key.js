// The form that asks for an API key.

import { ask, forgetKey, hasKey, rememberKey, service, setKey, whenKeyIsNeeded } from "./api.js";
import { $, showError } from "./dom.js";

async function requestKey(error) {
  // After the last key of the service is removed, requests with a key are refused.
  if (hasKey() && $("ask-key").hidden && (await fetch("limits").catch(() => null))?.ok) {
    forgetKey();
    location.reload();
    return;
  }
  $("ask-key").hidden = false;
  if (!service.models.length) $("new").hidden = true;
  $("key").value = "";
  $("key-error").textContent = error;
  $("key-error").hidden = !error;
  $("key").focus();
}

export function startKeyForm(begin) {
  whenKeyIsNeeded(requestKey);
  $("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const key = $("key").value.trim();
    if (!/^[!-~]+$/.test(key)) {
      requestKey("A key has no spaces and no special letters: copy it again.");
      return;
    }
    setKey(key);
    try {
      await ask("limits");
    } catch (error) {
      if (!error.ofKey) showError("key-error", error);
      return;
    }
    rememberKey();
    $("key").value = "";
    $("ask-key").hidden = true;
    begin();
  });
  $("forget").addEventListener("click", () => {
    forgetKey();
    location.reload();
  });
}
