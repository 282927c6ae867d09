// The WebSocket: opened again when it breaks, asked once a second whether it lives, never queueing what is late.

const RETRY_MS = [300, 600, 1000, 2000];
const SILENT_MS = 3000;  // the server speaks at least twice a second
const ENDED = { 4401: "A token is needed: open the address that the actor printed, or log in.", 4403: "This page is not the console's own: open the address that the actor printed.",
  4429: "The page sent too much and was cut off.", 4400: "The server did not understand this page: reload it.", 4503: "Too many pages are open: close one." };

export class Connection {
  /** `on` has open(), closed(sentence), message(json) and picture(header, blob). */
  constructor(on) {
    this.on = on;
    this.roundTripMs = null;
    this.isOpen = false;
    this.number = 0;
    this.waiting = new Map();
    this.tries = 0;
    this.heardMs = 0;
    this.#connect();
    setInterval(() => this.#watch(), 1000);
  }

  /** Send now or not at all. */
  send(message) {
    if (!this.isOpen) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  /** Send something that is answered; resolves with null, or with the reason why it was refused. */
  ask(message) {
    const id = ++this.number;
    if (!this.send({ ...message, id, at: performance.now() })) return Promise.resolve("There is no connection to the arm.");
    return new Promise((resolve) => this.waiting.set(id, resolve));
  }

  #connect() {
    const socket = (this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { this.heardMs = performance.now(); this.isOpen = true; this.tries = 0; this.on.open(); };
    socket.onmessage = (event) => { if (socket === this.socket) this.#hear(event.data); };
    socket.onclose = (event) => { if (socket === this.socket) this.#lost(ENDED[event.code] ?? (event.code === 1001 ? "The actor has ended." : "")); };
  }

  #hear(data) {
    this.heardMs = performance.now();
    if (typeof data !== "string") {
      const size = new DataView(data).getUint32(0, true);
      this.on.picture(JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size))), new Blob([new Uint8Array(data, 4 + size)], { type: "image/jpeg" }));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "pong") this.roundTripMs = performance.now() - message.at;
    else if (message.type === "reply") {
      const reason = message.ok ? null : (message.error ?? "refused");
      if (this.waiting.has(message.id)) { this.waiting.get(message.id)(reason); this.waiting.delete(message.id); }
      else if (reason) this.on.message(message);
      if (message.ok && message.text) this.on.message(message);
    } else this.on.message(message);
  }

  #watch() {
    if (!this.isOpen) return;
    if (performance.now() - this.heardMs > SILENT_MS && !document.hidden) { this.socket.close(); this.#lost("The server does not answer."); return; }
    this.send({ type: "ping", at: performance.now() });
  }

  #lost(sentence) {
    this.socket.onclose = null;
    this.isOpen = false;
    for (const resolve of this.waiting.values()) resolve("The connection broke before an answer came.");
    this.waiting.clear();
    this.on.closed(sentence);
    setTimeout(() => this.#connect(), RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)]);
  }
}
