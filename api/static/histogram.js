// The histogram of one label, with a slider for its threshold.

import { make, number } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 40;
let made = 0;

function draw(counts, threshold) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${counts.length} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  // A square root, so that few are seen beside many.
  const most = Math.sqrt(Math.max(1, ...counts));
  counts.forEach((n, bin) => {
    if (!n) return;
    const bar = document.createElementNS(SVG, "rect"), high = Math.max(1, HEIGHT * Math.sqrt(n) / most);
    for (const [name, value] of Object.entries({ x: bin, y: HEIGHT - high, width: 1, height: high })) bar.setAttribute(name, value);
    if ((bin + 0.5) / counts.length >= threshold) bar.classList.add("is");
    svg.append(bar);
  });
  return svg;
}

export class Histogram {
  // `onChange` is called after the threshold or the side changed.
  constructor(label, onChange) {
    this.label = label;
    this.counts = [];
    this.threshold = null;
    this.side = "";
    this.moved = false;
    const id = `threshold-${made++}`;
    this.chart = make("div", { className: "chart" });
    this.slider = make("input", { type: "range", id, min: 0, max: 1, step: 0.01 });
    this.value = make("output", { htmlFor: id });
    this.below = this.button("below", onChange);
    this.above = this.button("above", onChange);
    this.slider.addEventListener("input", () => {
      this.moved = true;
      this.threshold = Number(this.slider.value);
      this.show();
      onChange();
    });
    this.element = make("div", { className: "histogram" },
      make("div", { className: "head" },
        make("label", { htmlFor: id, textContent: label, title: `Threshold of ${label}` }), this.value),
      this.chart, this.slider, make("div", { className: "sides" }, this.below, this.above));
    // Until `update`, there is nothing to show.
    this.element.hidden = true;
  }

  button(side, onChange) {
    const button = make("button", { type: "button" });
    button.dataset.side = side;
    button.addEventListener("click", () => {
      this.side = this.side === side ? "" : side;
      this.show();
      onChange();
    });
    return button;
  }

  update({ threshold, counts }) {
    this.counts = counts;
    if (!this.moved) this.threshold = Number(threshold.toFixed(2));
    this.slider.value = this.threshold;
    this.element.hidden = false;
    this.show();
  }

  show() {
    if (this.element.hidden) return;
    const from = Math.round(this.threshold * this.counts.length);
    const above = this.counts.slice(from).reduce((sum, n) => sum + n, 0);
    const below = this.counts.slice(0, from).reduce((sum, n) => sum + n, 0);
    this.value.textContent = this.threshold.toFixed(2);
    this.above.textContent = `${number(above)} above`;
    this.below.textContent = `${number(below)} below`;
    for (const [button, side, words] of [[this.above, "above", "at or above"], [this.below, "below", "below"]]) {
      button.setAttribute("aria-pressed", this.side === side);
      button.setAttribute("aria-label", `${button.textContent}: show only pictures ${words} the threshold of ${this.label}`);
    }
    this.chart.replaceChildren(draw(this.counts, this.threshold));
  }
}
