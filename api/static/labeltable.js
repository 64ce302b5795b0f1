// The table of labels that piqueue label, teach and train read: a row for each marked picture.

// As PICTURE_SUFFIXES in piqueue/commands/pictures.py.
const PICTURE_NAME = /\.(?:jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|avif|hei[cf]|hif|jxl|jp2)$/i;

const isSafe = (name) => !/[\\\0]/.test(name) && !name.split("/").some((part) => !part || part.startsWith("."));

// The picture's name as piqueue review gives it: that of its row, its id, its file name, or its hash.
export function nameInTable({ id, source, columns, image }) {
  const names = [columns?.name, id, source.url ? null : source.filename];
  return names.find((name) => name && isSafe(name) && PICTURE_NAME.test(name)) ?? `${image.sha256.slice(0, 32)}.${image.format}`;
}

const cell = (text) => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;

// With `isChoice`, each picture has one label; one without is left out of training.
export function labelTable(marks, labels, isChoice) {
  const hasUrls = marks.some(({ url }) => url);
  const columns = isChoice ? ["label", "left_out"] : labels;
  const cells = isChoice
    ? (mark) => [mark.labels[0] ?? "", mark.labels.length ? "" : "yes"]
    : (mark) => labels.map((label) => mark.labels.includes(label) ? "1" : "0");
  const rows = marks.map((mark) => [mark.name, ...(hasUrls ? [mark.url] : []), ...cells(mark)]);
  return [["name", ...(hasUrls ? ["url"] : []), ...columns], ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}
