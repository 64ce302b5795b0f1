// What a person reads for the states and codes of the API.

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

// Why a picture has no scores: what happened, and what to do. As in docs/using.md.
export const FAILURE = {
  fetch_dns: ["The host name does not exist", "Correct the URL, or retry if the network was down."],
  fetch_blocked_address: ["The address is not allowed", "Use a public URL, or ask whoever runs this service to allow it."],
  fetch_timeout: ["The host took too long", "Retry later."],
  fetch_connection: ["The connection failed", "Correct the URL, or retry later."],
  fetch_http_status: ["The host answered with an error", "Correct the URL if the picture is not found, give access if it is refused; otherwise retry later."],
  fetch_too_large: ["The file is too large", "Use the URL of a smaller version."],
  fetch_redirects: ["The URL redirects too often", "Use the URL that the redirects lead to."],
  not_an_image: ["Not a picture", "Use the URL or the file of the picture itself."],
  unsupported_format: ["The format is not supported", "Save the picture as JPEG or PNG."],
  too_many_pixels: ["The picture has too many pixels", "Make the picture smaller."],
  truncated: ["The end of the picture is missing", "Send the complete file."],
  decode_failed: ["The picture is damaged", "Open it in a program that shows it, and save it again."],
  model_error: ["The model failed", "Tell whoever runs this service, then retry."],
  worker_lost: ["The picture stopped its worker", "Save the picture as JPEG or PNG, and report the file."],
  internal: ["The uploaded picture expired, or the service has a fault", "Submit the picture again."],
};
export const failure = (code) => FAILURE[code] ?? [code, "Read the documentation of this code."];
