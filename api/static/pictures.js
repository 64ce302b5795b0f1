// Files that a person chose or dropped: which of them are pictures, and under which names.

// As in piqueue/commands/pictures.py.
const PICTURE = new RegExp(
  "^(?:\\xff\\xd8\\xff|\\x89PNG\\r\\n\\x1a\\n|GIF8[79]a|RIFF....WEBP|BM....\\0{4}|II[*+]\\0|MM\\0[*+]" +
  "|....ftyp(?:avi[fs]|hei|hev|mif1|msf1|mia|crx)|\\0\\0\\0\\x0c(?:jP  |JXL )|\\xff\\x4f\\xff\\x51|\\xff\\x0a)", "s");
// An AVIF may begin with a brand that both have, and then names its own among the others.
const HEIC = /^....ftyp(?:hei|hev|(?:mif|msf|mia).(?!.{4}(?:.{4}){0,15}?avi[fs]))/s, HEAD_BYTES = 80;

async function headOf(file) {
  try {
    return String.fromCharCode(...new Uint8Array(await file.slice(0, HEAD_BYTES).arrayBuffer()));
  } catch {
    return "";  // it cannot be read
  }
}

// The name as results return it: the form sends these characters encoded, and the service decodes them.
const asReturned = (name) => name.replace(/\r\n|\r|\n/g, "\r\n").replace(/%(?:22|0D|0A)/g, decodeURIComponent);

export class Chosen {
  constructor() { this.clear(); }

  clear() {
    this.files = new Map();  // id -> File
    this.skipped = [];
    this.heic = [];  // those that are left out
  }

  // HEIC is left out unless the service reads it.
  async add(files, readsHeic) {
    const byPath = files.sort(([one], [other]) => one.localeCompare(other, undefined, { numeric: true }));
    for (const [path, file] of byPath) {
      const head = await headOf(file);
      if (!PICTURE.test(head)) {
        this.skipped.push(path);
        continue;
      }
      if (!readsHeic && HEIC.test(head)) {
        this.heic.push(path);
        continue;
      }
      let id = asReturned(path);
      for (let n = 2; this.files.has(id); n++) id = `${asReturned(path)} (${n})`;
      this.files.set(id, file);
    }
  }

  get bytes() { return [...this.files.values()].reduce((sum, file) => sum + file.size, 0); }
}

// The files of a drop with their paths, also those in folders.
export async function dropped(items) {
  const found = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((done, fail) => entry.file(done, fail));
      found.push([entry.fullPath.replace(/^\//, ""), file]);
    } else if (entry.isDirectory) {
      const reader = entry.createReader();
      // It returns the entries in groups.
      for (;;) {
        const some = await new Promise((done, fail) => reader.readEntries(done, fail));
        if (!some.length) break;
        for (const one of some) await walk(one);
      }
    }
  };
  // Read all entries before the first await, which ends the drop.
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  for (const entry of entries) await walk(entry);
  return found;
}
