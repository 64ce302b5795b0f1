// Requests to the API, with the key of this tab.

import { sleep } from "./dom.js";
import { advice } from "./words.js";

const TRIES = 8;
const STORED_KEY = "piqueue-key";

export const service = { limits: null, models: [] };
let key = "";
try { key = sessionStorage.getItem(STORED_KEY) || ""; } catch { /* storage is disabled */ }
let onKeyNeeded = () => {};

export const hasKey = () => Boolean(key);
export const setKey = (value) => { key = value; };
export const whenKeyIsNeeded = (ask) => { onKeyNeeded = ask; };

export function rememberKey() {
  try { sessionStorage.setItem(STORED_KEY, key); } catch { /* storage is disabled */ }
}
export function forgetKey() {
  key = "";
  try { sessionStorage.removeItem(STORED_KEY); } catch { /* storage is disabled */ }
}

export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(advice(body.code, body.detail, status));
    Object.assign(this, { status, code: body.code, problems: body.problems || [], retryAfter });
    this.ofKey = ["unauthorized", "wrong_keys_sent"].includes(body.code);
  }
}

export async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(path, { ...options, headers }).catch((error) => {
    throw error.name === "AbortError" ? error : new Problem(0, { code: "unreachable" });
  });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  const problem = new Problem(answer.status, body, Number(answer.headers.get("Retry-After")));
  if (problem.ofKey) onKeyNeeded(key ? problem.message : "");
  throw problem;
}

export const read = async (path, options) => (await ask(path, options)).json();

export const post = (path, body, options) => read(path, {
  method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
  ...options,
});

// Repeats a request, which must be safe to repeat, while the network or the server is unavailable.
export async function retrying(send, signal) {
  for (let tried = 1; ; tried++) {
    try {
      return await send();
    } catch (error) {
      const temporary = !error.ofKey && [0, 429, 502, 503, 504].includes(error.status);
      if (!temporary || tried === TRIES || signal.aborted) throw error;
      await sleep(1000 * Math.min(error.retryAfter || 2 ** tried / 4, 30), signal);
    }
  }
}

export const modelName = (job) => (job.models ?? [job.model]).map((one) => `${one.name}@${one.version}`).join(" + ");

// Of several models, one that has the labels of all, as in the results of their job.
export function modelOf(job) {
  const models = (job.models ?? [job.model]).map(({ sha256 }) => service.models.find((one) => one.sha256 === sha256));
  if (models.length === 1 || models.includes(undefined)) return models.length === 1 ? models[0] : undefined;
  return {
    labels: models.flatMap((one) => one.labels.map((label) => `${one.name}/${label}`)),
    top_k: models.find((one) => one.top_k)?.top_k,
    parts: models.map(({ name, activation }) => ({ prefix: `${name}/`, activation })),
  };
}
