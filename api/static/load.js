// Reads results and histograms page by page.

import { read } from "./api.js";

// A list of more results than this is filtered by the service.
export const MOST_ITEMS = 20000;
const PAGE_ITEMS = 1000;

// Calls `onPage` with the items of each page, and returns whether there are further ones.
export async function loadResults(jobId, query, mostItems, signal, onPage) {
  const asked = new URLSearchParams(query);
  asked.set("limit", Math.min(PAGE_ITEMS, mostItems));
  for (let loaded = 0; loaded < mostItems;) {
    const page = await read(`jobs/${jobId}/results?${asked}`, { signal });
    loaded += page.items.length;
    onPage(page.items);
    if (!page.next_cursor) return false;
    asked.set("cursor", page.next_cursor);
  }
  return true;
}

// Calls `onSum` with the histograms so far, after each page of the service.
export async function loadHistograms(jobId, labels, signal, onSum) {
  const query = new URLSearchParams(labels.map((label) => ["label", label]));
  const sums = {};
  for (;;) {
    const page = await read(`jobs/${jobId}/histogram?${query}`, { signal });
    for (const [label, { threshold, counts }] of Object.entries(page.labels)) {
      sums[label] ??= { threshold, counts: counts.map(() => 0) };
      counts.forEach((n, bin) => { sums[label].counts[bin] += n; });
    }
    onSum(sums);
    if (!page.next_cursor) return;
    query.set("cursor", page.next_cursor);
  }
}
