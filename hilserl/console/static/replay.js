// The last episodes, and one of them again: pictures, path, who acted when.
import { $, element, say } from "./dom.js";
import { WorkspaceMap } from "./map.js";
import { ENDED } from "./words.js";

const SIGNS = { success: "✓", failure: "✗", time: "–", discarded: "∅", cut: "|" };

export class Replay {
  constructor() {
    this.episodes = [];
    this.timer = null;
    $("replay-close").addEventListener("click", () => this.close());
    $("replay-at").addEventListener("input", () => { this.#stop(); this.#show(Number($("replay-at").value)); });
  }

  /** Show the list, the newest first. */
  list(episodes) {
    this.episodes = episodes;
    $("episodes").replaceChildren(...[...episodes].reverse().map((episode, back) => {
      const helped = episode.length ? episode.intervention_steps / episode.length : 0;
      const bar = element("i", "helped");
      bar.style.width = `${Math.round(helped * 100)}%`;
      const chip = element("button", `chip ${episode.ended}`, element("b", "", `${SIGNS[episode.ended] ?? ""} ${episode.number}`), element("span", "", `${episode.length} steps${episode.evaluation ? " · eval" : ""}`), element("span", "bar", bar));
      chip.title = `${ENDED[episode.ended]}, ${episode.seconds.toFixed(1)} s, return ${episode.return.toFixed(2)}, ${Math.round(helped * 100)} % by a person`;
      chip.setAttribute("role", "listitem");
      chip.addEventListener("click", () => this.open(back));
      return chip;
    }));
    if (!episodes.length) $("episodes").replaceChildren(element("p", "soft small", "None yet."));
  }

  /** Play an episode; 0 is the newest. */
  open(back) {
    const episode = this.episodes.at(-1 - back);
    if (!episode) return;
    this.episode = episode;
    say($("replay-title"), `Episode ${episode.number}: ${ENDED[episode.ended]}${episode.evaluation ? " (evaluation)" : ""}`);
    this.pictures?.abort();
    this.pictures = new AbortController();
    this.screens = Object.entries(episode.frames ?? {}).filter(([, count]) => count > 0).map(([camera, count]) => {
      const canvas = element("canvas"), screen = { camera, count, canvas, blobs: [], shown: -1 };
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `camera ${camera}`);
      this.#load(screen, this.pictures.signal);
      return screen;
    });
    $("replay-cameras").replaceChildren(...this.screens.map((screen) => screen.canvas));
    if (!this.screens.length) $("replay-cameras").replaceChildren(element("p", "soft", "No pictures were kept of it."));
    this.map = this.hello?.workspace_min_m && episode.path_m?.length ? new WorkspaceMap($("replay-map"), this.hello) : null;
    if (this.map) this.map.starts([episode]); else $("replay-map").replaceChildren();
    const steps = Math.max(episode.length - 1, 0), slider = $("replay-at");
    slider.max = steps;
    $("replay-bouts").replaceChildren(...episode.bouts.map(([start, stop]) => {
      const bout = element("i");
      bout.style.left = `${(100 * start) / Math.max(episode.length, 1)}%`;
      bout.style.width = `${(100 * (stop - start)) / Math.max(episode.length, 1)}%`;
      return bout;
    }));
    if (!$("replay").open) $("replay").show();
    slider.focus();  // so that the arrows step
    this.#stop();
    let at = 0;
    this.#show(0);
    this.timer = setInterval(() => { at += 1; if (at > steps) this.#stop(); else this.#show(at); }, 1000 / (episode.hz || 10));
  }

  close() { this.#stop(); this.pictures?.abort(); if ($("replay").open) { document.activeElement?.blur(); $("replay").close(); } }

  #stop() { clearInterval(this.timer); }

  /** Fetch the pictures of one camera, in order: what is shown is the newest that is there. */
  async #load(screen, signal) {
    for (let frame = 0; frame < screen.count; frame++) {
      const answer = await fetch(`/replays/${this.episode.id}/${screen.camera}/${frame}.jpg`, { signal }).catch(() => null);
      if (!answer?.ok) return;  // it was closed, or forgotten: the newest twenty are kept
      screen.blobs.push(await answer.blob().catch(() => null));
      if (screen.blobs.length === 1 || screen.waits) this.#show(Number($("replay-at").value));
    }
  }

  async #draw(screen, wanted) {
    const frame = Math.min(wanted, screen.blobs.length - 1);
    screen.waits = frame < wanted;
    if (frame < 0 || frame === screen.shown || !screen.blobs[frame]) return;
    screen.shown = frame;
    const image = await createImageBitmap(screen.blobs[frame]).catch(() => null);
    if (!image || screen.shown !== frame) return;
    screen.canvas.width = image.width;
    screen.canvas.height = image.height;
    screen.canvas.getContext("2d").drawImage(image, 0, 0);
    screen.canvas.dataset.frame = frame;
    image.close();
  }

  #show(step) {
    const episode = this.episode;
    $("replay-at").value = step;
    const byHand = episode.bouts.some(([start, stop]) => start <= step && step < stop);
    say($("replay-text"), `step ${step + 1} of ${episode.length} · ${((step + 1) / (episode.hz || 10)).toFixed(1)} s · ${byHand ? `by a person${episode.source && !["none", "console"].includes(episode.source) ? ` or ${episode.source}` : ""}` : "by the policy"}`);
    for (const screen of this.screens) {
      const times = episode.steps_of_frames ?? [];
      let frame = times.length ? times.findLastIndex((time) => time <= step) : step;
      frame = Math.min(Math.max(frame, 0), screen.count - 1);
      this.#draw(screen, frame);
    }
    if (this.map) {
      const last = Math.min(episode.path_m.length, Math.ceil(((step + 1) / Math.max(episode.length, 1)) * episode.path_m.length));
      this.map.path(episode.path_m.slice(0, Math.max(last, 1)), byHand);
    }
  }
}
