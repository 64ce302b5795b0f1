// Downloads by links. A link cannot send a key, so with a key the page fetches the file itself.

import { ask, hasKey } from "./api.js";
import { make } from "./dom.js";

export async function download(event, name) {
  if (!hasKey()) return;
  event.preventDefault();
  const link = event.currentTarget;
  if (link.getAttribute("aria-busy")) return;
  link.setAttribute("aria-busy", "true");
  try {
    const blob = await (await ask(link.getAttribute("href"))).blob();
    const made = make("a", { href: URL.createObjectURL(blob), download: name });
    made.click();
    setTimeout(() => URL.revokeObjectURL(made.href), 60000);
  } finally {
    link.removeAttribute("aria-busy");
  }
}
