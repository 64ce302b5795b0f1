// The form of a new job.

import { ask, post, read, service } from "./api.js";
import { columnsOf, urlColumnOf } from "./csv.js";
import { $, count, make, noError, number, setOptions, setText, showError, size } from "./dom.js";
import { openModel } from "./model.js";
import { Chosen, dropped } from "./pictures.js";
import { upload } from "./upload.js";

const LISTED_LABELS = 8, LISTED_SKIPPED = 5;
const chosen = new Chosen();
let uploading = null;  // the AbortController of an upload

const source = () => $("form").elements.source.value;

// The URLs, each with the line on which it stands.
function urls() {
  const lines = $("urls").value.split("\n").map((text, at) => ({ url: text.trim(), line: at + 1 }));
  return lines.filter(({ url }) => url && !url.startsWith("#"));
}

function readyCount() {
  switch (source()) {
    case "files": return chosen.files.size;
    case "urls": return urls().length;
    default: return $("pick-csv").files.length && $("url-column").value ? 1 : 0;
  }
}

function chosenText() {
  const { files, skipped, heic } = chosen;
  const some = (names) => names.slice(0, LISTED_SKIPPED).join(", ") + (names.length > LISTED_SKIPPED ? ", …" : "");
  let text = `${count(files.size, "picture")}, ${size(chosen.bytes)}`;
  if (skipped.length) text += `; ${count(skipped.length, "file")} without a picture skipped: ${some(skipped)}`;
  if (heic.length) text += `; ${number(heic.length)} in HEIC left out: ${some(heic)}. This service cannot read HEIC: save them as JPEG`;
  return text;
}

export function showForm() {
  for (const kind of ["files", "urls", "csv"]) $(`from-${kind}`).hidden = kind !== source();
  setText($("chosen-text"), chosenText());
  $("chosen").hidden = !chosen.files.size && !chosen.skipped.length && !chosen.heic.length;
  const ready = readyCount();
  $("start").disabled = !ready || uploading !== null;
  $("start").textContent = ready && source() !== "csv" ? `Score ${count(ready, "picture")}` : "Score";
  const model = service.models[$("model").selectedIndex];
  $("about-model").hidden = !model;
  const unnamed = model?.labels.length - LISTED_LABELS;
  $("model-labels").textContent = model
    ? `Scores: ${model.labels.slice(0, LISTED_LABELS).join(", ")}${unnamed > 0 ? ` and ${unnamed} more` : ""}` : "";
}

export function showModels() {
  $("model").replaceChildren(...service.models.map((model) => {
    const name = `${model.name}@${model.version}`;
    return make("option", { value: name, textContent: name, selected: model.default });
  }));
}

async function addFiles(files) {
  $("form").elements.source.value = "files";
  await chosen.add(files, service.limits?.reads_heic ?? true);
  showForm();
}

async function showColumns() {
  const [file] = $("pick-csv").files;
  let columns = [];
  noError("new-error");
  try {
    if (file) columns = await columnsOf(file);
  } catch (error) {
    showError("new-error", error);
  }
  const named = columns.map((name) => [name, name]);
  setOptions($("url-column"), named);
  setOptions($("id-column"), [["", "row number"], ...named]);
  $("url-column").value = urlColumnOf(columns);
  $("id-column").value = "";
  $("url-column").disabled = $("id-column").disabled = !columns.length;
  showForm();
}

async function takeDrop(transfer) {
  const list = transfer.files, [file] = list;
  if (list.length === 1 && /\.csv$/i.test(file.name)) {
    $("form").elements.source.value = "csv";
    $("pick-csv").files = list;
    await showColumns();
  } else if (list.length === 1 && /\.txt$/i.test(file.name)) {
    $("form").elements.source.value = "urls";
    $("urls").value = await file.text();
    showForm();
  } else {
    await addFiles(await dropped(transfer.items));
  }
}

async function sendFiles(options, pictures = chosen) {
  const stopper = uploading = new AbortController(), total = pictures.files.size;
  const show = (sent) => {
    $("upload-progress").max = total;
    $("upload-progress").value = sent;
    $("upload-count").textContent = `${number(sent)} of ${count(total, "picture")} uploaded`;
    // A screen reader is told of every quarter.
    setText($("spoken-upload"), `${25 * Math.floor(4 * sent / total)} % uploaded`);
  };
  show(0);
  $("form").hidden = true;
  $("upload").hidden = false;
  try {
    const { job, refused } = await upload(pictures, options, stopper.signal, show);
    const { files } = pictures;
    pictures.clear();
    return { job, files, refused };
  } catch (error) {
    stopper.abort();  // the other requests
    throw error;
  } finally {
    uploading = null;
    $("form").hidden = false;
    $("upload").hidden = true;
  }
}

async function sendSamples(options) {
  const pictures = new Chosen();
  await pictures.add(await Promise.all((await read("samples")).map(async (name) =>
    [name, new File([await (await ask(`samples/${name}`)).blob()], name)])), true);
  return sendFiles(options, pictures);
}

async function sendUrls(options) {
  const lines = urls();
  try {
    return { job: await post("jobs", { urls: lines.map(({ url }) => url), ...options }) };
  } catch (error) {
    for (const problem of error.problems ?? []) problem.id = `line ${lines[problem.index]?.line}`;
    throw error;
  }
}

async function sendCsv(options) {
  const query = new URLSearchParams({ ...options, url_column: $("url-column").value });
  if ($("id-column").value) query.set("id_column", $("id-column").value);
  const [body] = $("pick-csv").files;
  return { job: await read(`jobs?${query}`, { method: "POST", body, headers: { "Content-Type": "text/csv" } }) };
}

// Thumbnails, and the features with which `piqueue teach` makes models, where there are any.
function optionsOf(name) {
  const model = service.models[$("model").selectedIndex];
  return {
    model: $("model").value, thumbnails: true,
    ...(service.limits.keeps_features && model.backbone && { keep_features: true }),
    ...(name && { name }),
  };
}

// `open` is called with the new job, its files and the files that are not part of it; `show` makes
// the form visible.
export function startForm(open, show) {
  for (const [id, path] of [["pick-files", "name"], ["pick-folder", "webkitRelativePath"]]) {
    $(id).addEventListener("change", () => {
      addFiles([...$(id).files].map((file) => [file[path], file]));
      $(id).value = "";
    });
  }
  $("clear").addEventListener("click", () => {
    chosen.clear();
    showForm();
  });
  $("pick-csv").addEventListener("change", showColumns);
  $("urls").addEventListener("input", showForm);
  $("form").addEventListener("change", () => {
    noError("new-error");
    showForm();
  });
  $("stop-upload").addEventListener("click", () => uploading?.abort());
  window.addEventListener("beforeunload", (event) => {
    if (uploading) event.preventDefault();  // the browser asks whether to leave
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("drop").classList.remove("over");
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    if (uploading || !service.models.length) return;
    show();
    await takeDrop(event.dataTransfer);
  });
  const submit = async (send, name) => {
    noError("new-error");
    $("start").disabled = $("try-samples").disabled = true;
    try {
      const { job, files, refused } = await send(optionsOf(name));
      $("name").value = "";
      open(job, files, refused);
    } catch (error) {
      if (error.name !== "AbortError") showError("new-error", error);
    }
    $("try-samples").disabled = false;
    showForm();
  };
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const send = { files: sendFiles, urls: sendUrls, csv: sendCsv }[source()];
    if (!$("start").disabled) submit(send, $("name").value.trim());
  });
  $("try-samples").addEventListener("click", () => submit(sendSamples, $("name").value.trim() || "Sample photos"));
  $("about-model").addEventListener("click", () => openModel($("model").value));
}
