// A list or grid of which only the part in view is in the page.

import { make } from "./dom.js";

const MARGIN_ROWS = 3;

export class VirtualList {
  // `makeItem(item)` returns an element.
  constructor(list, makeItem) {
    Object.assign(this, { list, makeItem, items: [], made: new Map(), planned: false });
    const plan = () => this.plan();
    window.addEventListener("scroll", plan, { passive: true });
    new ResizeObserver(plan).observe(list);
  }

  // An item whose object is the same keeps its element, and so the focus.
  show(items) {
    this.items = items;
    this.draw();
  }

  clear() {
    this.made.clear();
    this.show([]);
  }

  // Elements are made again, after the labels or the layout changed: that of `item`, or all.
  renew(item) {
    if (item) this.made.delete(item);
    else this.made.clear();
    this.draw();
  }

  plan() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => {
      this.planned = false;
      this.draw();
    });
  }

  // The style sheet sets the size of an item: --item-height, and --item-width in a grid.
  layout() {
    const style = getComputedStyle(this.list), px = (name) => parseFloat(style.getPropertyValue(name)) || 0;
    const width = px("--item-width"), height = px("--item-height");
    return { height, columns: width ? Math.max(1, Math.floor(this.list.clientWidth / width)) : 1 };
  }

  draw() {
    const { list, items } = this, { height, columns } = this.layout();
    const rows = Math.ceil(items.length / columns);
    list.style.height = `${rows * height}px`;
    if (!items.length || list.hidden || !height) {
      list.replaceChildren();
      return;
    }
    const above = -list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(above / height) - MARGIN_ROWS);
    // A list below the window has its first rows, so that the keyboard reaches it.
    const last = Math.min(rows, Math.max(0, Math.ceil((above + window.innerHeight) / height)) + MARGIN_ROWS);
    const shown = [], made = new Map();
    for (let at = first * columns; at < Math.min(items.length, last * columns); at++) {
      const item = items[at];
      const element = this.made.get(item) ?? this.wrap(item);
      made.set(item, element);
      element.setAttribute("aria-setsize", items.length);
      element.setAttribute("aria-posinset", at + 1);
      element.style.top = `${Math.floor(at / columns) * height}px`;
      element.style.left = `${100 * (at % columns) / columns}%`;
      element.style.width = `${100 / columns}%`;
      shown.push(element);
    }
    // The focused element stays, so that the keyboard does not lose its place.
    for (const [item, element] of this.made) {
      if (made.has(item) || !element.contains(document.activeElement) || !items.includes(item)) continue;
      made.set(item, element);
      shown.push(element);
    }
    this.made = made;
    const present = new Set(shown);
    for (const element of [...list.children]) if (!present.has(element)) element.remove();
    shown.forEach((element, at) => {
      if (list.children[at] !== element) list.insertBefore(element, list.children[at] ?? null);
    });
  }

  wrap(item) {
    return make("li", { className: "item" }, this.makeItem(item));
  }
}
