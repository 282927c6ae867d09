// The labelling page: plays an episode, marks success by keyboard, and writes at once.
import { Frames, Screen } from "./frames.js";
import { contains, edges, paint } from "./marks.js";

const $ = (id) => document.getElementById(id);
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4, 8];
const STATES = { unseen: "not labelled", success: "success", failure: "failed", changed: "changed since it was labelled" };

let data, now, sources = [], screens = [], frame = 0, playing = false, speed = 3, drawn = -1, undo = [], writing = Promise.resolve();

async function begin() {
  data = await ask("/api/dataset");
  $("name").textContent = data.name;
  document.title = `label ${data.name}`;
  $("file").textContent = `labels in ${data.file.split("/").at(-1)}, beside the dataset, which is not changed`;
  $("file").title = data.file;
  for (const camera of data.cameras) {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption"), canvas = document.createElement("canvas");
    caption.textContent = camera.name;
    figure.append(canvas, caption);
    $("cameras").append(figure);
    screens.push(new Screen(canvas));
  }
  for (const episode of data.episodes) {
    const square = document.createElement("button");
    square.tabIndex = -1;
    square.onclick = () => open(episode.index);
    $("strip").append(square);
  }
  const asked = Number(location.hash.slice(1));
  open(location.hash && find(asked) ? asked : data.next ?? data.episodes[0].index);
}

const find = (index) => data.episodes.find((episode) => episode.index === index);
const unseen = (episode) => episode.state === "unseen" || episode.state === "changed";

function open(index) {
  for (const source of sources) source.close();
  now = find(index);
  history.replaceState(null, "", `#${index}`);
  frame = 0;
  drawn = -1;
  playing = true;
  sources = data.cameras.map((camera) => new Frames(`/api/episodes/${index}/frames/${camera.key}`, now.frames, () => { drawn = -1; }, trouble));
  trouble(now.reason || "");
  $("timeline").setAttribute("aria-valuemax", now.frames - 1);
  show();
}

const loaded = () => Math.min(...sources.map((source) => source.blobs.length));

let last = 0;
function tick(time) {
  requestAnimationFrame(tick);
  const passed = Math.min(time - last, 250) / 1000;
  last = time;
  if (!now) return;
  if (playing && loaded()) {
    frame = Math.min(frame + passed * data.fps * SPEEDS[speed], loaded() - 1 + 0.999);
    if (frame >= now.frames - 1) { frame = now.frames - 1; playing = false; }
  }
  if (Math.floor(frame) !== drawn || playing !== shownPlaying) draw();
}

let shownPlaying = null;
function draw() {
  const at = (drawn = Math.floor(frame)), width = 100 / now.frames;
  screens.forEach((screen, number) => screen.show(sources[number].blobs[at]));
  $("loaded").style.width = `${loaded() * width}%`;
  $("head").style.left = `${(at + 0.5) * width}%`;
  $("timeline").setAttribute("aria-valuenow", at);
  $("frame").textContent = `frame ${at} of ${now.frames - 1} · ${(at / data.fps).toFixed(2)} s`;
  const success = contains(now.success, at);
  $("here").textContent = success ? "success" : unseen(now) ? "not labelled" : "no success";
  $("here").className = `tag ${success ? "success" : unseen(now) ? "" : "failure"}`;
  $("cameras").classList.toggle("is-success", success);
  $("speed").textContent = `${SPEEDS[speed]}×`;
  shownPlaying = playing;
  $("play").lastElementChild.textContent = playing ? "pause" : "play";
}

function show() {
  const seen = data.episodes.filter((episode) => !unseen(episode)), good = seen.filter((episode) => episode.state === "success").length;
  $("progress").textContent = `${seen.length} of ${data.episodes.length} labelled: ${good} with success, ${seen.length - good} failed`;
  [...$("strip").children].forEach((square, number) => {
    const episode = data.episodes[number];
    square.className = `${episode.state}${episode === now ? " now" : ""}`;
    square.title = `episode ${episode.index}: ${STATES[episode.state]}`;
    if (episode === now) square.scrollIntoView({ block: "nearest" });
  });
  $("episode").textContent = `Episode ${now.index}`;
  $("state").textContent = STATES[now.state];
  $("state").className = `tag ${now.state}`;
  $("said").textContent = now.at ? `${now.by}, ${new Date(now.at).toLocaleString()}` : "";
  bars($("marks"), now.success);
  bars($("own"), now.marked ?? []);
  $("adopt").hidden = !now.marked?.length;
  $("undo").disabled = !undo.length;
  $("clear").disabled = now.state === "unseen";
  drawn = -1;
}

function bars(place, ranges) {
  place.replaceChildren(...ranges.map(([start, stop]) => {
    const bar = document.createElement("i");
    bar.style.left = `${(100 * start) / now.frames}%`;
    bar.style.width = `${(100 * (stop - start)) / now.frames}%`;
    return bar;
  }));
}

/** Say it, on the page at once and on disk; one request at a time, in the order of the keys. */
function say(episode, success, { remember = true } = {}) {
  if (remember) undo.push({ index: episode.index, success: unseen(episode) ? null : episode.success });
  const before = { success: episode.success, state: episode.state };
  Object.assign(episode, { success: success ?? [], state: success === null ? "unseen" : success.length ? "success" : "failure" });
  const count = (episode.writes = (episode.writes ?? 0) + 1);
  show();
  const request = success === null ? { method: "DELETE" } : { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify({ success }) };
  writing = writing.then(() => ask(`/api/episodes/${episode.index}`, request)).then(
    (answer) => { if (count === episode.writes) Object.assign(episode, { state: answer.state, by: answer.by, at: answer.at, reason: answer.reason }); trouble(""); show(); },
    (error) => { Object.assign(episode, before); if (remember) undo.pop(); trouble(`Not saved. ${error.message}`); show(); },
  );
}

function takeBack() {
  const step = undo.pop();
  if (!step) return;
  if (now.index !== step.index) { open(step.index); playing = false; }
  say(now, step.success, { remember: false });
}

function following() {
  const here = data.episodes.indexOf(now), order = [...data.episodes.slice(here + 1), ...data.episodes.slice(0, here)];
  if (unseen(now)) trouble(`Episode ${now.index} stays unlabelled: mark its success with S, or press F if it failed.`);
  const next = order.find(unseen);
  if (next) { const left = unseen(now) ? $("trouble").textContent : ""; open(next.index); if (left) trouble(left); }
  else if (!unseen(now)) trouble("Every episode is labelled.", true);
}

const step = (count) => { playing = false; frame = Math.min(Math.max(Math.floor(frame) + count, 0), now.frames - 1); draw(); };
const neighbour = (count) => { const next = data.episodes[data.episodes.indexOf(now) + count]; if (next) open(next.index); };
const toEdge = (direction) => {
  const all = edges(now.success), at = Math.floor(frame);
  const edge = direction > 0 ? all.find((one) => one > at) : all.findLast((one) => one < at);
  if (edge !== undefined) step(edge - at);
};

const ACTIONS = {
  play: () => { if (!playing && frame >= now.frames - 1) frame = 0; playing = !playing; },
  back: () => step(-1), on: () => step(1),
  slower: () => { speed = Math.max(speed - 1, 0); draw(); }, faster: () => { speed = Math.min(speed + 1, SPEEDS.length - 1); draw(); },
  success: () => say(now, paint(now.success, Math.floor(frame), now.frames, true)),
  no: () => (now.success.length ? say(now, paint(now.success, Math.floor(frame), now.frames, false)) : trouble("No success is marked in this episode: S marks it, F says that it failed.")),
  failure: () => { say(now, []); following(); },
  next: following, previous: () => neighbour(-1), following: () => neighbour(1), undo: takeBack,
  clear: () => { if (now.state !== "unseen") say(now, null); }, adopt: () => { if (now.marked?.length) say(now, now.marked); },
};
const KEYS = { " ": "play", s: "success", d: "no", f: "failure", Enter: "next", p: "previous", n: "following", z: "undo", x: "clear", m: "adopt", "[": "slower", "]": "faster", "-": "slower", "+": "faster" };
const MOVES = { ArrowLeft: -1, ArrowRight: 1 };

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.metaKey || (event.ctrlKey && event.key !== "z") || !now) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in MOVES) step(MOVES[key] * (event.shiftKey ? 10 : 1));
  else if (key === "Home") step(-now.frames);
  else if (key === "End") step(now.frames);
  else if (key === "," || key === ".") toEdge(key === "." ? 1 : -1);
  else if (key in KEYS) { if (!event.repeat) ACTIONS[KEYS[key]](); }
  else return;
  event.preventDefault();
});
for (const [id, action] of Object.entries(ACTIONS)) $(id).addEventListener("click", () => { action(); $(id).blur(); });

const seek = (event) => {
  const box = $("timeline").getBoundingClientRect();
  playing = false;
  frame = Math.min(Math.max(Math.floor(((event.clientX - box.left) / box.width) * now.frames), 0), now.frames - 1);
};
$("timeline").addEventListener("pointerdown", (event) => { $("timeline").setPointerCapture(event.pointerId); seek(event); });
$("timeline").addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });

function trouble(text, fine = false) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
  $("trouble").classList.toggle("fine", fine);
}

async function ask(url, request) {
  const answer = await fetch(url, request).catch(() => { throw new Error("The server is gone: start `hilserl label` again; what was saved is kept."); });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ?? JSON.stringify(value.detail ?? answer.status));
  return value;
}

begin().then(() => requestAnimationFrame(tick), (error) => trouble(error.message));
