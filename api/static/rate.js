// The rate of a job that runs, as a small chart of what this tab saw.

import { number } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const MOST_SAMPLES = 60, WIDTH = 120, HEIGHT = 30;

export class RateChart {
  constructor() {
    this.rates = [];
    this.last = null;
  }

  // Called with each state of the job: how many of its pictures are finished now.
  add(finished) {
    const now = performance.now();
    if (this.last && now - this.last.now < 500) return;
    if (this.last) this.rates.push(1000 * (finished - this.last.finished) / (now - this.last.now));
    this.rates = this.rates.slice(-MOST_SAMPLES);
    this.last = { now, finished };
  }

  // Returns an element, or null while there is too little to draw.
  draw() {
    const { rates } = this;
    if (rates.length < 3) return null;
    const most = Math.max(...rates, 1);
    const points = rates.map((rate, at) => `${WIDTH * at / (rates.length - 1)},${HEIGHT - HEIGHT * rate / most}`);
    const svg = document.createElementNS(SVG, "svg"), line = document.createElementNS(SVG, "polyline");
    svg.classList.add("rate");
    svg.setAttribute("viewBox", `-1 -1 ${WIDTH + 2} ${HEIGHT + 2}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `Pictures a second of the last ${rates.length} seconds: at most ${number(Math.round(most))}`);
    line.setAttribute("points", `0,${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`);
    line.setAttribute("vector-effect", "non-scaling-stroke");
    svg.append(line);
    return svg;
  }
}
