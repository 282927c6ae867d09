// What the person's hands say, as [forward, left, up, open], and when it is sent.
//
// A wish is sent every `everyMs` from the first motion until it is handed back, also when it is zero: the arm holds when it hears
// nothing (the dead-man is the actor's). Leaving the window lets go of the keys; a page that cannot be seen holds the arm.

const KEYS = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [1, 1], ArrowRight: [1, -1], e: [2, 1], PageUp: [2, 1], d: [2, -1], PageDown: [2, -1], o: [3, 1], c: [3, -1] };
const DEAD_ZONE = 0.12;
const PAD = { act: 5, close: 6, open: 7, left: 0, up: 1, right: 3 };  // the standard layout: right shoulder, triggers, axes
const GRACE_MS = 1500;  // until a state message can have told what became of taking over
const PAD_SAYS = { 3: "success", 0: "failure", 2: "discard", 8: "estop" };

export class Driver {
  /** `port` has send(message), command(name), say(name), request(), hint(text), and state() -> {mayDrive, isMine, inEpisode, humanActs, autoReleaseMs, unmoved}. */
  constructor(port) {
    this.port = port;
    this.keys = new Set();
    this.stick = [0, 0, 0, 0];
    this.taken = null;  // null: not driving; "motion": until let go; "button": until handed back
    this.quietSince = 0;
    this.sequence = 0;
    this.padHeld = new Set();
    this.padActs = false;
    this.rested = true;
    window.addEventListener("blur", () => this.letGo());
    document.addEventListener("visibilitychange", () => { if (document.hidden) this.leave(); });
    window.addEventListener("pagehide", () => this.leave());
  }

  /** A key went down or up; tells whether it moves the arm. */
  key(name, down) {
    const key = name.length === 1 ? name.toLowerCase() : name;
    if (!(key in KEYS)) return false;
    if (down) this.keys.add(key); else if (this.keys.delete(key) && !this.keys.size) this.rested = true;
    if (down) this.nudge();
    return true;
  }

  /** The first motion does not wait for the next beat; the others do, however often a finger moves. */
  nudge() { if (!this.taken) this.tick(); }

  /** Let go of keys and sticks; whoever drives goes on driving, at rest. */
  letGo() { this.keys.clear(); this.stick = [0, 0, 0, 0]; this.tick(); }

  /** The page cannot be seen any more: the arm holds. */
  leave() {
    this.keys.clear();
    this.stick = [0, 0, 0, 0];
    if (this.taken) { this.port.command("hold"); this.taken = null; }
  }

  take() { this.#begin("button"); this.port.command("take_over"); }

  #begin(how) { this.taken = how; this.takenMs = this.quietSince = performance.now(); }

  handBack() { this.taken = null; this.keys.clear(); this.rested = false; this.port.command("hand_back"); }

  /** The connection broke, or somebody else is in control: forget it, and take over only with a new motion. */
  drop() { this.taken = null; this.rested = false; }

  /** What is wanted now, each -1 to 1. */
  wish() {
    const wish = [...this.stick];
    for (const key of this.keys) wish[KEYS[key][0]] += KEYS[key][1];
    if (this.padActs) this.#pad().forEach((value, axis) => { wish[axis] += value; });
    return wish.map((value) => Math.round(Math.min(Math.max(value, -1), 1) * 1000) / 1000);
  }

  /** Look at the hands; called every `everyMs`. */
  tick() {
    this.#lookAtPad();
    const state = this.port.state(), wish = this.wish(), moves = this.padActs || wish.some((value) => value !== 0);
    if (!moves) this.rested = true;
    if (document.hidden) return;
    if (!state.mayDrive) { if (this.taken) this.drop(); if (moves) this.port.hint(state.unmoved && `Not now: ${state.unmoved}.`); return; }
    if (!this.taken) {
      if (!moves) return;
      if (!state.inEpisode) { if (this.rested) this.port.hint(state.unmoved && `Not now: ${state.unmoved}.`); return; }
      if (!this.rested) { this.port.hint("That key was down before: let go and press again, or I to take over."); return; }
      if (!state.isMine) { this.port.request(); return; }
      this.#begin("motion");
      if (this.padActs) this.port.command("take_over");
    } else if (!state.isMine || (!(state.inEpisode && state.humanActs) && performance.now() - this.takenMs > GRACE_MS)) {
      this.drop();  // the episode ended, the arm holds, or somebody else drives
      return;
    }
    this.port.send({ type: "drive", seq: ++this.sequence, at: performance.now(), action: wish });
    if (moves) this.quietSince = performance.now();
    else if (this.taken === "motion" && state.autoReleaseMs !== null && performance.now() - this.quietSince > state.autoReleaseMs) {
      this.taken = null;
      this.port.command("hand_back");
    }
  }

  get gamepad() { return [...(navigator.getGamepads?.() ?? [])].find((pad) => pad && pad.connected) ?? null; }

  #lookAtPad() {
    const pad = this.gamepad, held = new Set();
    pad?.buttons.forEach((button, number) => { if (button.pressed) held.add(number); });
    for (const number of held) if (!this.padHeld.has(number) && number in PAD_SAYS) this.port.say(PAD_SAYS[number]);
    const acts = held.has(PAD.act);
    if (this.padActs && !acts && this.taken === "motion") this.quietSince = -Infinity;  // its button was let go: hand back now
    this.padActs = acts;
    this.padHeld = held;
  }

  #pad() {
    const pad = this.gamepad;
    if (!pad) return [0, 0, 0, 0];
    const axis = (number) => { const value = pad.axes[number] ?? 0; return Math.abs(value) < DEAD_ZONE ? 0 : value; };
    const button = (number) => pad.buttons[number]?.value ?? 0;
    return [-axis(PAD.up), -axis(PAD.left), -axis(PAD.right), (button(PAD.open) > 0.5) - (button(PAD.close) > 0.5)];
  }
}

/** A stick under a finger: `onMove(x, y)` with right and up positive, -1 to 1; back to zero when the finger leaves. */
export function makeStick(element, onMove) {
  const knob = element.firstElementChild;
  let finger = null;
  const move = (event) => {
    const box = element.getBoundingClientRect();
    let x = (event.clientX - box.left) / box.width * 2 - 1, y = 1 - (event.clientY - box.top) / box.height * 2;
    if (element.classList.contains("tall")) x = 0;
    const size = Math.hypot(x, y);
    if (size > 1) { x /= size; y /= size; }
    knob.style.left = `${50 + x * 36}%`;
    knob.style.top = `${50 - y * 36}%`;
    const dead = (value) => (Math.abs(value) < DEAD_ZONE ? 0 : value);
    onMove(dead(x), dead(y));
  };
  const release = () => { finger = null; knob.style.left = knob.style.top = "50%"; onMove(0, 0); };
  element.addEventListener("pointerdown", (event) => { if (finger !== null) return; finger = event.pointerId; element.setPointerCapture(finger); move(event); event.preventDefault(); });
  element.addEventListener("pointermove", (event) => { if (event.pointerId === finger) move(event); });
  for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(kind, (event) => { if (event.pointerId === finger) release(); });
}
