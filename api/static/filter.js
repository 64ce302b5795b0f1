// Which results are shown, and in which order.

export const nameOf = (item) => item.source.url ?? item.id;

// A filter of nothing. `sides` has a number and a side ("above" or "below") by label.
export const everything = () => ({ status: "", error: "", search: "", sides: new Map() });

export const isFiltering = (filter) => Boolean(filter.status || filter.error || filter.search || filter.sides.size);

function isNamed(item, text) {
  return [item.id, item.source.url, item.source.filename].some((name) => name?.toLowerCase().includes(text));
}

export function select(items, filter) {
  const text = filter.search.toLowerCase(), sides = [...filter.sides];
  return items.filter((item) =>
    (!filter.status || item.status === filter.status) &&
    (!filter.error || item.error?.code === filter.error) &&
    (!text || isNamed(item, text)) &&
    (!sides.length || (item.scores && sides.every(
      ([label, { threshold, side }]) => (item.scores[label] >= threshold) === (side === "above")))));
}

// The same filter as parameters of GET /jobs/{id}/results.
export function parameters(filter) {
  const query = new URLSearchParams();
  for (const name of ["status", "error", "search"]) if (filter[name]) query.set(name, filter[name]);
  for (const [label, { threshold, side }] of filter.sides) query.append(side, `${label}:${threshold}`);
  return query;
}

// In the order of these texts, numbers count as such, and letters with accents follow those without. To compare 10,000
// names by the rules of a language would take a second.
const texts = new WeakMap();
function sortable(item) {
  if (!texts.has(item)) {
    const name = nameOf(item).normalize("NFD").toLowerCase();
    texts.set(item, name.replace(/\d+/g, (digits) => digits.padStart(16, "0")));
  }
  return texts.get(item);
}

// How far the nearest score is from its threshold; small is uncertain.
function margin(item, thresholds) {
  let least = Infinity;
  for (const label in item.scores) least = Math.min(least, Math.abs(item.scores[label] - (thresholds[label] ?? 0.5)));
  return least;
}

// `order` is "index", "name", "uncertain", or "high LABEL" or "low LABEL". Items without scores are last.
export function sort(items, order, thresholds) {
  const [kind, ...rest] = order.split(" "), label = rest.join(" ");
  const key = {
    uncertain: (item) => margin(item, thresholds),
    high: (item) => -(item.scores[label] ?? 0),
    low: (item) => item.scores[label] ?? 0,
  }[kind];
  if (kind === "name") {
    const named = items.map((item) => [sortable(item), item]);
    return named.sort(([one], [other]) => one < other ? -1 : one > other ? 1 : 0).map(([, item]) => item);
  }
  if (!key) return items;
  const keyed = items.map((item) => [item.scores ? key(item) : Infinity, item]);
  return keyed.sort(([one], [other]) => one === other ? 0 : one - other).map(([, item]) => item);
}
