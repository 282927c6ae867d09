// Frames of an episode: JPEG after JPEG from one request, each shown when it is wanted.

export class Frames {
  /** Load one camera's frames; `onLoaded` is called as they arrive, `onError` with a sentence. */
  constructor(url, count, onLoaded, onError) {
    this.count = count;
    this.blobs = [];
    this.stopper = new AbortController();
    this.#load(url, onLoaded).catch((error) => { if (error.name !== "AbortError") onError(error.message); });
  }

  close() { this.stopper.abort(); }

  async #load(url, onLoaded) {
    const answer = await fetch(url, { signal: this.stopper.signal });
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || `${url}: ${answer.status}`);
    const reader = answer.body.getReader();
    let parts = [], size = 0;
    const take = (count) => {  // the first `count` bytes of what has arrived
      const whole = new Uint8Array(count);
      let filled = 0;
      while (filled < count) {
        const part = parts[0], some = Math.min(part.length, count - filled);
        whole.set(part.subarray(0, some), filled);
        filled += some;
        if (some === part.length) parts.shift(); else parts[0] = part.subarray(some);
      }
      size -= count;
      return whole;
    };
    let wanted = null;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      size += value.length;
      for (;;) {
        if (wanted === null && size >= 4) wanted = new DataView(take(4).buffer).getUint32(0, true);
        if (wanted === null || size < wanted) break;
        this.blobs.push(new Blob([take(wanted)], { type: "image/jpeg" }));
        wanted = null;
      }
      onLoaded();
    }
    if (this.blobs.length !== this.count) throw new Error(`The video ends after ${this.blobs.length} of ${this.count} frames: it is damaged, and this episode cannot be labelled.`);
  }
}

/** A canvas that always shows the frame asked for last, and skips what it has no time for. */
export class Screen {
  constructor(canvas) { this.canvas = canvas; this.wanted = null; this.busy = false; this.shown = null; }

  show(blob) {
    if (blob === this.shown || !blob) return;
    this.wanted = blob;
    if (!this.busy) this.#draw();
  }

  async #draw() {
    this.busy = true;
    while (this.wanted) {
      const blob = this.wanted;
      this.wanted = null;
      const image = await createImageBitmap(blob);
      if (this.canvas.width !== image.width || this.canvas.height !== image.height) { this.canvas.width = image.width; this.canvas.height = image.height; }
      this.canvas.getContext("2d").drawImage(image, 0, 0);
      image.close();
      this.shown = blob;
    }
    this.busy = false;
  }
}
