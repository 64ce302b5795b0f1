// The hosts from which a job fetches pictures: how many fetches succeeded, failed, and how long they took.

import { count, make, number } from "./dom.js";

function failuresOf({ http_status: statuses, timeouts, other }) {
  const parts = Object.entries(statuses).map(([status, n]) => `${number(n)} × HTTP ${status}`);
  if (timeouts) parts.push(count(timeouts, "timeout"));
  if (other) parts.push(`${number(other)} other`);
  return parts.join(", ");
}

const hasFailed = (host) => failuresOf(host) !== "";

function rowOf(host) {
  const cells = [
    make("th", { scope: "row", role: "rowheader", textContent: host.host ?? "all other hosts" }),
    ...[`${number(host.ok)} fetched`, failuresOf(host), host.p95_ms === null ? "" : `95 % within ${number(host.p95_ms)} ms`]
      .map((textContent) => make("td", { role: "cell", textContent })),
  ];
  return make("tr", { role: "row" }, ...cells);
}

// Shows the hosts in `details`, which stays as open as it is; hidden while no fetch failed.
export function showHosts(details, hosts) {
  const state = JSON.stringify(hosts);
  details.hidden = !hosts.some(hasFailed);
  if (details.dataset.state === state) return;
  details.dataset.state = state;
  details.querySelector("summary").textContent = `Failures by host (${number(hosts.filter(hasFailed).length)})`;
  details.querySelector("tbody").replaceChildren(...hosts.map(rowOf));
}
