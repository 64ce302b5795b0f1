// Elements of the page, and values as text.

export const $ = (id) => document.getElementById(id);

// Text from outside is inserted as text, never as markup.
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function setOptions(select, pairs) {
  const { value } = select;
  select.replaceChildren(...pairs.map(([key, text]) => make("option", { value: key, textContent: text })));
  if (pairs.some(([key]) => key === value)) select.value = value;
}

// Text that did not change is not set again, so that a screen reader does not repeat it.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const sleep = (ms, signal) => new Promise((wake) => {
  setTimeout(wake, ms);
  signal?.addEventListener("abort", wake, { once: true });
});

export const number = (n) => n.toLocaleString();
export const count = (n, one) => `${number(n)} ${n === 1 ? one : `${one}s`}`;
export const size = (bytes) => bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
export const duration = (s) => s < 90 ? `${s} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
export const percent = (share) => `${(100 * share).toFixed(1)} %`;

const LISTED = 20;

// The default id of an item is its index.
const whichOf = ({ id, index }) => (id ?? String(index)) === String(index) ? `row ${index + 1}` : id;

export function listed(problems) {
  const lines = problems.slice(0, LISTED).map(
    (one) => make("li", { textContent: `${whichOf(one)}: ${one.detail}` }));
  if (problems.length > LISTED) lines.push(make("li", { textContent: `and ${number(problems.length - LISTED)} more` }));
  return make("ul", {}, ...lines);
}

export function showError(id, error) {
  const box = $(id);
  box.replaceChildren(error.message);
  if (error.problems?.length) box.append(listed(error.problems));
  box.hidden = false;
}

export const noError = (id) => { $(id).hidden = true; };
