// The pictures with their answers, and which of them the page shows.

export const state = { labels: [], pictures: [], table: "", at: 0, canUndo: false, finished: false,
  again: false,  // whether all pictures have an answer and the user goes through them again
  revision: 0, conflicts: [], dismissed: 0 };

export const picture = () => state.pictures[state.at];
export const isOpen = ({ labels, skipped }) => labels === null && !skipped;
export const isSuggested = (one) => isOpen(one) && one.suggested !== null;
export const labelsOf = ({ labels, suggested }) => labels ?? suggested ?? [];
export const labelledCount = () => state.pictures.filter(({ labels }) => labels !== null).length;

export function nextOne() {
  const total = state.pictures.length;
  if (state.again) return state.at + 1 < total ? state.at + 1 : null;
  for (let step = 1; step <= total; step++) {
    const index = (state.at + step) % total;
    if (isOpen(state.pictures[index])) return index;
  }
  return null;
}
