// What a person says about the results of a job. It is kept in this browser until the job expires.

const PREFIX = "piqueue-marks-";

function removeExpired() {
  for (const key of Object.keys(localStorage)) {
    if (!key.startsWith(PREFIX)) continue;
    let kept = null;
    try { kept = JSON.parse(localStorage.getItem(key)); } catch { /* not written by this page */ }
    if (!(kept?.expires > Date.now())) localStorage.removeItem(key);
  }
}

export function forgetMarks(jobId) {
  try { localStorage.removeItem(PREFIX + jobId); } catch { /* storage is disabled */ }
}

// A mark is {index, name, url, labels, right}: the item and its name in the table of labels, the
// labels that it has, and whether those were shown. The newest mark of an item counts.
export class Marks {
  constructor(job) {
    this.key = PREFIX + job.id;
    this.expires = Date.parse(job.expires_at);
    this.isKept = true;
    this.read();
  }

  read() {
    this.log = [];
    try {
      removeExpired();
      this.log = JSON.parse(localStorage.getItem(this.key))?.log ?? [];
    } catch {
      this.isKept = false;
    }
    this.index();
  }

  index() {
    this.newest = new Map(this.log.map((mark) => [mark.index, mark]));
  }

  get(index) { return this.newest.get(index); }

  get count() { return this.newest.size; }

  get rightCount() { return [...this.newest.values()].filter(({ right }) => right).length; }

  // One mark for each name, in the order of the job.
  all() {
    const byIndex = [...this.newest.values()].sort((one, other) => one.index - other.index);
    return [...new Map(byIndex.map((mark) => [mark.name, mark])).values()];
  }

  add(mark) {
    this.log.push(mark);
    this.newest.set(mark.index, mark);
    this.write();
  }

  // Returns the index of the item whose newest mark is taken back.
  undo() {
    const undone = this.log.pop();
    this.index();
    this.write();
    return undone?.index;
  }

  clear() {
    this.log = [];
    this.index();
    this.write();
  }

  write() {
    try {
      if (this.log.length) localStorage.setItem(this.key, JSON.stringify({ expires: this.expires, log: this.log }));
      else localStorage.removeItem(this.key);
      this.isKept = true;
    } catch {
      this.isKept = false;  // storage is disabled or full
    }
  }
}

// The marks of the displayed job, or null.
let current = null;
export const marks = () => current;
export const useMarks = (job) => { current = job && new Marks(job); };

// Other tabs may mark results of the same job.
export function whenMarkedElsewhere(act) {
  window.addEventListener("storage", ({ key }) => {
    if (!current || key !== current.key) return;
    current.read();
    act();
  });
}
