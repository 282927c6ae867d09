// Frames on which human and classifier disagreed: who was right?
const $ = (id) => document.getElementById(id);
let frames = [], at = 0, undo = [], writing = Promise.resolve();

async function begin() {
  const data = await ask("/api/frames");
  frames = data.frames;
  $("name").textContent = document.title = `disagreements in ${data.name}`;
  $("file").textContent = `labels in ${data.file.split("/").at(-1)}`;
  $("file").title = data.file;
  $("strip").replaceChildren(...frames.map((_, number) => { const square = document.createElement("button"); square.tabIndex = -1; square.onclick = () => open(number); return square; }));
  open(Math.max(frames.findIndex((frame) => !frame.is_seen), 0));
}

const verdict = (frame) => (!frame.is_seen ? "unseen" : frame.success === null ? "changed" : frame.success ? "success" : "failure");
const WORDS = { unseen: "not labelled", changed: "cannot tell", success: "success", failure: "no success" };

function open(number) {
  if (number < 0 || number >= frames.length) return;
  at = number;
  const frame = frames[at];
  $("cameras").replaceChildren(...frame.cameras.map((camera) => {
    const figure = document.createElement("figure"), picture = document.createElement("img"), caption = document.createElement("figcaption");
    picture.src = `/api/frames/${frame.id}/${camera}.png`;
    picture.alt = caption.textContent = camera;
    picture.onerror = () => trouble(`The picture of camera ${camera} is gone: the oldest frames give way while the actor writes.`);
    figure.append(picture, caption);
    return figure;
  }));
  trouble("");
  show();
}

function show() {
  const frame = frames[at], seen = frames.filter((one) => one.is_seen).length;
  $("progress").textContent = `${seen} of ${frames.length} frames labelled`;
  [...$("strip").children].forEach((square, number) => { square.className = `${verdict(frames[number])}${number === at ? " now" : ""}`; square.title = frames[number].place; });
  $("place").textContent = frame.place;
  $("state").textContent = WORDS[verdict(frame)];
  $("state").className = `tag ${verdict(frame)}`;
  $("classifier").textContent = `${frame.probability >= frame.threshold ? "success" : "no success"} (${frame.probability.toFixed(2)}, threshold ${frame.threshold.toFixed(2)})`;
  $("human").textContent = frame.human_says ? "success" : "no success";
  $("undo").disabled = !undo.length;
  $("clear").disabled = !frame.is_seen;
}

function say(number, value, remember = true) {
  const frame = frames[number], before = { is_seen: frame.is_seen, success: frame.success };
  if (remember) undo.push({ number, value: before.is_seen ? before.success : undefined });
  Object.assign(frame, value === undefined ? { is_seen: false, success: null } : { is_seen: true, success: value });
  const count = (frame.writes = (frame.writes ?? 0) + 1);
  show();
  const request = value === undefined ? { method: "DELETE" } : { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify({ success: value }) };
  writing = writing.then(() => ask(`/api/frames/${frame.id}`, request)).then((answer) => { if (count === frame.writes) Object.assign(frame, answer); }, (error) => { Object.assign(frame, before); if (remember) undo.pop(); trouble(`Not saved. ${error.message}`); }).then(show);
}

function next() {
  const order = [...frames.keys()].slice(at + 1).concat([...frames.keys()].slice(0, at)), unseen = order.find((number) => !frames[number].is_seen);
  if (unseen !== undefined) open(unseen); else if (frames[at].is_seen) trouble("Every frame is labelled.", true);
}

const judge = (value) => () => { say(at, value); next(); };
const ACTIONS = { success: judge(true), no: judge(false), unclear: judge(null), next, back: () => open(at - 1), on: () => open(at + 1),
  undo: () => { const step = undo.pop(); if (step) { open(step.number); say(step.number, step.value, false); } }, clear: () => { if (frames[at].is_seen) say(at, undefined); } };
const KEYS = { s: "success", d: "no", u: "unclear", Enter: "next", ArrowLeft: "back", ArrowRight: "on", z: "undo", x: "clear" };
document.addEventListener("keydown", (event) => {
  const name = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!name || event.altKey || event.metaKey || (event.ctrlKey && name !== "undo") || !frames.length) return;
  if (!event.repeat || name === "back" || name === "on") ACTIONS[name]();
  event.preventDefault();
});
for (const [id, action] of Object.entries(ACTIONS)) $(id).addEventListener("click", () => { action(); $(id).blur(); });

function trouble(text, fine = false) { $("trouble").textContent = text; $("trouble").hidden = !text; $("trouble").classList.toggle("fine", fine); }

async function ask(url, request) {
  const answer = await fetch(url, request).catch(() => { throw new Error("The server is gone: start `hilserl label` again; what was saved is kept."); });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ?? JSON.stringify(value.detail ?? answer.status));
  return value;
}

begin().catch((error) => trouble(error.message));
