// The header of a CSV file, as api/intake/tables.py reads it.

function firstRow(text, separator) {
  const cells = [""];
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === '"' && quoted && text[at + 1] === '"') { cells[cells.length - 1] += '"'; at++; }
    else if (char === '"') quoted = !quoted;
    else if (char === separator && !quoted) cells.push("");
    else if ((char === "\n" || char === "\r") && !quoted) break;
    else cells[cells.length - 1] += char;
  }
  while (cells.length && !cells.at(-1).trim()) cells.pop();
  return cells.map((cell) => cell.trim());
}

// The names of the columns; throws an Error that says what to do about a file that is no CSV.
export async function columnsOf(file) {
  const bytes = new Uint8Array(await file.slice(0, 1 << 18).arrayBuffer());
  const text = new TextDecoder().decode(bytes);
  const declared = /^"?sep=(.)"?,*[ \t]*(?:\r\n?|\n)/i.exec(text);
  const columns = declared ? firstRow(text.slice(declared[0].length), declared[1]) : firstRow(text, ",");
  if (bytes.includes(0)) throw new Error(`${file.name}: it is not UTF-8: save it as “CSV UTF-8”.`);
  if (columns.length === 1 && /[;\t|]/.test(columns[0])) {
    throw new Error(`${file.name}: its columns are separated by semicolons, tabs or vertical bars ` +
      `(${columns[0].slice(0, 40)}): save it with commas.`);
  }
  return columns;
}

export const urlColumnOf = (columns) => columns.find((name) => /ur[il]|link|src/i.test(name)) ?? columns[0] ?? "";
