// The filter and the order of results in the address of the page: "#job_…?status=failed&order=name".

import { parameters } from "./filter.js";

const WRITE_MS = 300;
let writing = 0, unwritten = null;

export const displayedPage = () => location.hash.slice(1).split("?")[0];

export const readAddress = () => new URLSearchParams(location.hash.split("?")[1] ?? "");

// A browser allows few changes of the address a second, fewer than a slider makes.
export function writeAddress(jobId, filter, order) {
  clearTimeout(writing);
  const query = parameters(filter);
  if (order !== "index") query.set("order", order);
  unwritten = [jobId, `#${jobId}${query.size ? `?${query}` : ""}`];
  writing = setTimeout(finishAddress, WRITE_MS);
}

// Writes the last change now, because another page follows.
export function finishAddress() {
  clearTimeout(writing);
  const [jobId, hash] = unwritten ?? [];
  unwritten = null;
  if (jobId && displayedPage() === jobId) history.replaceState(null, "", hash);
}
