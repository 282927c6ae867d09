// Which page is in control: one at a time, with an explicit hand-over.
import { $, element, say } from "./dom.js";

export class Seat {
  /** `send` takes messages to the server. */
  constructor(send) {
    this.send = send;
    this.now = null;
    this.you = null;
    this.mayTakeAt = null;
  }

  get isMine() { return Boolean(this.now?.you); }
  get isFree() { return Boolean(this.now) && this.now.controller === null; }

  hear(message) {
    this.now = message;
    const request = message.request;
    this.mayTakeAt = request ? performance.now() + 1000 * request.may_take_in_s : null;
    this.show();
  }

  /** The one key for it: ask, take, or give back. */
  press() {
    if (!this.now) return;
    if (this.isMine) this.send({ type: "release_control" });
    else if (this.now.request?.you) { if (this.waitS <= 0) this.send({ type: "take_control" }); }
    else this.send({ type: "request_control" });
  }

  /** Answer a page that asks; tells whether one did. */
  answer(isYes) {
    if (!this.isMine || !this.now.request) return false;
    this.send({ type: isYes ? "grant_control" : "deny_control" });
    return true;
  }

  get waitS() { return this.mayTakeAt === null ? 0 : Math.max(0, Math.ceil((this.mayTakeAt - performance.now()) / 1000)); }

  show() {
    const now = this.now, request = now?.request;
    let text = "", label = "", kind = "";
    if (!now) text = "";
    else if (this.isMine && request) text = `Another page (${request.from}) asks for control. In ${this.waitS} s it may take it.`;
    else if (this.isMine) [text, label] = ["This page is in control.", "Release"];
    else if (this.isFree) [text, label, kind] = ["No page is in control.", "Take control", "main"];
    else if (request?.you) [text, label, kind] = [`Asked page ${now.controller}.`, this.waitS ? `Take it in ${this.waitS} s` : "Take it now", "main"];
    else [text, label] = [`Page ${now.controller} is in control. This one looks.`, "Ask for control"];
    say($("seat"), text);
    $("seat").className = `small${this.isMine ? " mine" : ""}${request && this.isMine ? " asked" : ""}`;
    const wanted = this.isMine && request ? [["Y", "Give it", "main", () => this.answer(true)], ["N", "Keep it", "", () => this.answer(false)]] : label ? [["Q", label, kind, () => this.press()]] : [];
    const place = $("seat-buttons");
    if (place.children.length !== wanted.length || wanted.some(([key], index) => place.children[index].firstElementChild.textContent !== key))
      place.replaceChildren(...wanted.map(([key, words, name, run]) => { const button = element("button", `slim ${name}`, element("kbd", "", key), element("span", "", words)); button.addEventListener("click", run); return button; }));
    wanted.forEach(([, words, name], index) => { const button = place.children[index]; say(button.lastElementChild, words); button.className = `slim ${name}`; button.disabled = Boolean(request?.you && this.waitS); });
  }
}
