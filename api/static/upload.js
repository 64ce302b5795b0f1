// Sends pictures: they are added to a draft in batches, which is then submitted.

import { ask, post, Problem, retrying, service } from "./api.js";
import { size } from "./dom.js";

const BATCH_BYTES = 16e6, BATCH_FILES = 100, PARALLEL = 3;

function* batches(files) {
  const most = Math.min(BATCH_FILES, service.limits?.max_files ?? BATCH_FILES);
  let batch = [], bytes = 0;
  for (const entry of files) {
    if (batch.length && (batch.length === most || bytes + entry[1].size > BATCH_BYTES)) {
      yield batch;
      [batch, bytes] = [[], 0];
    }
    batch.push(entry);
    bytes += entry[1].size;
  }
  if (batch.length) yield batch;
}

// A batch that failed is sent again; no picture is added twice. Returns the job and the files that
// are not part of it. `onSent` is called with the number of files sent so far.
export async function upload({ files, skipped, heic }, options, signal, onSent) {
  const refused = [
    ...skipped.map((id) => ({ id, detail: "not a picture by its first bytes" })),
    ...heic.map((id) => ({ id, detail: "HEIC, which this service cannot read: save it as JPEG" })),
  ];
  const most = service.limits?.max_item_bytes ?? Infinity;
  const fits = new Map();
  for (const [id, file] of files) {
    if (file.size > most) refused.push({ id, detail: `larger than ${size(most)}` });
    else fits.set(id, file);
  }
  const draft = await post("jobs", { draft: true, ...options }, { signal });
  const send = async (batch) => {
    const body = new FormData();
    for (const [id, file] of batch) body.append("files", file, id);
    try {
      await retrying(() => ask(`jobs/${draft.id}/items`, { method: "POST", body, signal }), signal);
    } catch (error) {
      if (error.code !== "items_refused") throw error;
      refused.push(...error.problems);
    }
  };
  let sent = 0;
  const all = batches(fits);
  try {
    await Promise.all(Array.from({ length: PARALLEL }, async () => {
      for (const batch of all) {
        await send(batch);
        onSent(sent += batch.length);
      }
    }));
    if (refused.length === files.size + skipped.length + heic.length) {
      throw new Problem(422, { detail: "None of these files is a picture that can be scored.", problems: refused });
    }
    const job = await retrying(() => post(`jobs/${draft.id}/submit`, {}, { signal }), signal);
    return { job, refused };
  } catch (error) {
    ask(`jobs/${draft.id}`, { method: "DELETE" }).catch(() => {});
    throw error;
  }
}
