// Live pictures: the newest one on a canvas, told to the server when it is shown.
import { element } from "./dom.js";

const STALE_MS = 1200, DECODE_MS = 2000;

/** The picture, or null: it is broken, or the browser does not come to it. */
function decoded(blob) {
  return Promise.race([createImageBitmap(blob).catch(() => null), new Promise((resolve) => setTimeout(resolve, DECODE_MS, null))]);
}

export class Cameras {
  /** `send` takes messages to the server. */
  constructor(place, send) {
    this.place = place;
    this.send = send;
    this.view = "raw";
    this.screens = new Map();
  }

  /** Ask for pictures, as large as they are shown. */
  watch(cameras) {
    this.known = cameras;
    this.place.replaceChildren();
    this.screens.clear();
    for (const [name, camera] of Object.entries(cameras)) {
      const canvas = element("canvas"), age = element("span", "soft number");
      this.#shape(canvas, camera);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `camera ${name}`);
      const figure = element("figure", "", canvas, element("figcaption", "", element("b", "", name), age));
      this.place.append(figure);
      this.screens.set(name, { canvas, figure, age, next: null, busy: false, shownMs: 0, times: [] });
    }
    this.ask();
  }

  ask() {
    const width = Math.max(160, ...[...this.screens.values()].map((screen) => screen.canvas.clientWidth * Math.min(devicePixelRatio, 2)));
    this.send({ type: "watch", cameras: null, views: [this.view], max_hz: 30, max_width: Math.round(Math.min(width, 1280)) });
  }

  toggle() { this.view = this.view === "raw" ? "policy" : "raw"; this.ask(); return this.view; }

  show(header, blob) {
    const screen = this.screens.get(header.camera);
    if (!screen || header.view !== this.view) { this.#seen(header); return; }
    if (screen.next) this.#seen(screen.next.header);
    screen.next = { header, blob };
    if (!screen.busy) this.#draw(screen);
  }

  /** Say how old the pictures are, while others are to come; returns the worst delay [ms], or null. */
  age(now, isOver) {
    let worst = null;
    for (const screen of this.screens.values()) {
      const ageMs = screen.shownMs ? now - screen.shownMs + (screen.delayMs ?? 0) : null;  // of what is seen
      screen.times = screen.times.filter((time) => now - time < 2000);
      const isStale = ageMs === null || ageMs > STALE_MS;
      screen.figure.classList.toggle("stale", isStale && !isOver);
      screen.age.textContent = isOver ? "the last picture" : ageMs === null ? "no picture yet" : isStale ? `no new picture for ${(ageMs / 1000).toFixed(0)} s` : `${(screen.times.length / 2).toFixed(0)} Hz`;
      if (!isStale && screen.delayMs !== undefined) worst = Math.max(worst ?? 0, screen.delayMs);  // else its own line says so
    }
    return worst;
  }

  #shape(canvas, size) {
    canvas.width = size.width;
    canvas.height = size.height;
    canvas.style.setProperty("--ratio", size.width / size.height);
  }

  async #draw(screen) {
    screen.busy = true;
    while (screen.next) {
      const { header, blob } = screen.next;
      screen.next = null;
      const image = await decoded(blob);
      if (image) try {
        if (screen.canvas.width !== image.width || screen.canvas.height !== image.height) this.#shape(screen.canvas, image);
        screen.canvas.getContext("2d").drawImage(image, 0, 0);
        image.close();
        screen.shownMs = performance.now();
        screen.figure.classList.remove("stale");
        screen.times.push(screen.shownMs);
        screen.delayMs = header.age_ms;
        screen.canvas.dataset.number = header.number;
        screen.canvas.classList.toggle("policy", header.view === "policy");
      } catch (error) { console.error(error); }  // this one is lost, and not those after it
      this.#seen(header);
    }
    screen.busy = false;
  }

  #seen(header) { this.send({ type: "seen", camera: header.camera, view: header.view, number: header.number }); }
}
