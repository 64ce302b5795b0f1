// What a person reads for the states and codes of the API.

// Why a picture has no scores, by code: what happened, and what to do. As in docs/using.md.
import FAILURE from "./failures.json" with { type: "json" };

export const STATUS = {
  draft: "Not submitted", queued: "Waiting", running: "Running", cancelling: "Stopping",
  succeeded: "Done", partially_succeeded: "Done, some failed", failed: "Failed",
  cancelled: "Stopped",
};
export const kindOf = (status) => ({ succeeded: "good", failed: "bad" }[status] ?? "");

const FAULT = "The service has a fault. Try again in some minutes; if it stays, tell whoever runs this service.";
// What a person can do about an error, by its code, where the text of the API is for programmers.
const ADVICE = {
  unauthorized: "This key is not valid: it is mistyped, has expired or was revoked. Check it, or ask whoever runs this service for a new one.",
  wrong_keys_sent: "Too many wrong keys were tried. Wait a minute, then enter the right one.",
  scope_missing: "Your key does not allow this. Ask whoever runs this service for a key that does.",
  job_not_found: "There is no such job: the address is wrong, the job was deleted or has expired, or it belongs to another key.",
  unreachable: "The service cannot be reached. Check your connection, then try again.",
  ledger_unavailable: FAULT, ledger_full: FAULT, ledger_replaced: FAULT, storage_unavailable: FAULT, internal_error: FAULT,
};
export const advice = (code, detail, status) => ADVICE[code] ?? detail ?? `${FAULT} (${status})`;

export const failure = (code) => FAILURE[code] ?? [code, "Read the documentation of this code."];
