// The operator's console: builds the parts and joins them. The server's messages are in docs/console.md.
import { Cameras } from "./cameras.js";
import { Connection } from "./connection.js";
import { $, element, number, say } from "./dom.js";
import { Driver, makeStick } from "./drive.js";
import { ACTIONS, DRIVING, PAD, listen } from "./keys.js";
import { WorkspaceMap } from "./map.js";
import { showAdvice, showAlarms, showArm, showAsks, showEpisode, showLearner, showSession, showWho } from "./panels.js";
import { Replay } from "./replay.js";
import { Seat } from "./seat.js";
import { unable, unmoved } from "./words.js";

const LET_GO_MS = 800, NOTE_MS = 7000, HINT_MS = 4000, LATE_STOP_MS = 30000;
let hello = null, state = null, map = null, path = [], pathOf = null, stopMs = null, adviceOn = localStorage.getItem("advice") !== "off", lostMs = null, wasDriving = false, rearmNote = null, hinted = ["", -HINT_MS];

const replay = new Replay();
const connection = new Connection({ open: opened, closed, message: hear, picture: (header, blob) => cameras.show(header, blob) });
const send = (message) => connection.send(message);
const cameras = new Cameras($("cameras"), send);
const seat = new Seat(send);
const driver = new Driver({
  send, command, say: act, hint, request: () => { if (seat.isFree) send({ type: "request_control" }); },
  state: () => ({
    mayDrive: connection.isOpen && state !== null && (seat.isMine || seat.isFree) && state.source?.type !== "none",
    isMine: seat.isMine, inEpisode: state?.phase === "episode" && state.control !== "held" && state.control !== "stopped",
    humanActs: state?.control === "human" || state?.control === "handing_back",
    autoReleaseMs: $("let-go").checked && hello?.mode !== "record" ? LET_GO_MS : null,
    unmoved: unmoved(state, seat.isMine || seat.isFree),
  }),
});

function opened() {
  lostMs = null;
  $("lost").hidden = $("over").hidden = true;
  if (stopMs !== null && performance.now() - stopMs < LATE_STOP_MS) stop();
}

function closed(sentence) {
  lostMs ??= performance.now();
  wasDriving ||= driver.taken !== null;
  driver.drop();
  seat.now = null;
  seat.show();
  if (isOver()) {  // as it should: nothing is lost
    $("lost").hidden = true;
    $("over").hidden = false;
    say($("over"), "This page looks for a new run at this address.");
    return render();
  }
  $("lost").hidden = false;
  const what = wasDriving ? "You were driving: the arm holds, and waits for Resume." : "The arm goes on as it was, without this page.";
  say($("lost-text"), `${sentence} ${what} Connecting again …`.trim());
  render();
}

/** The run said that it ends, and has. */
function isOver() { return state?.phase === "ended"; }

function hear(message) {
  switch (message.type) {
    case "hello": begin(message); break;
    case "state": state = message; track(); render(); break;
    case "control": seat.hear(message); if (!message.you && driver.taken) driver.drop(); render(); break;
    case "episodes": replay.list(message.episodes); map?.starts(message.episodes); break;
    case "reply": note(message.error || message.text); break;
  }
}

function begin(message) {
  hello = replay.hello = message;
  wasDriving = false;
  say($("run-name"), message.sentence || message.task);
  say($("run-robot"), `${message.robot}, ${message.kind} · ${message.mode} ${message.run ?? ""}`);
  say($("rearm-robot"), message.robot);
  say($("version"), `page ${message.you} · ${message.control_hz} Hz`);
  const sees = Object.keys(message.cameras).length > 0;
  say($("sight-title"), sees ? "Cameras" : "Episode");
  $("view").hidden = !sees;
  cameras.watch(message.cameras);
  $("map-card").hidden = !message.workspace_min_m;
  map = message.workspace_min_m ? new WorkspaceMap($("map"), message) : null;
  $("real-time-box").hidden = message.kind !== "simulation";
  clearInterval(begin.timer);
  begin.timer = setInterval(() => driver.tick(), message.drive_every_ms);
}

/** Remember the tool's path of this episode. */
function track() {
  if (state.episode?.number !== pathOf) { pathOf = state.episode?.number ?? null; path = []; }
  const tool = state.arm?.tool_m, last = path.at(-1);
  if (tool && (!last || tool.some((value, axis) => Math.abs(value - last[axis]) > 0.001))) path.push(tool);
  if (path.length > 2000) path = path.filter((_, index) => index % 2 === 0);
}

function render() {
  showWho(state, seat.now, connection.isOpen || isOver());
  document.body.classList.toggle("disconnected", !connection.isOpen && !isOver());
  if (!state) return;
  showEpisode(state);
  showSession(state, hello?.mode);
  showLearner(state);
  showArm(state);
  showAlarms(state);
  showAdvice(state, adviceOn);
  showAsks(state, (ask, value) => command("answer", { ask, value }));
  map?.path(path, state.control === "human");
  const tool = state.arm?.tool_m;
  say($("tool"), tool ? `x ${(1000 * tool[0]).toFixed(0)}  y ${(1000 * tool[1]).toFixed(0)}  z ${(1000 * tool[2]).toFixed(0)} mm${map?.isAtBound(tool) ? " · at its bound" : ""}` : "");
  const stopped = state.control === "stopped" || state.stopped;
  $("stopped").hidden = !stopped;
  if (stopped) {
    say($("stopped-text"), state.stopped?.text ?? "Somebody pressed the emergency stop.");
    say($("stopped-problem"), state.stopped?.problem ?? "");
    $("rearm").hidden = state.stopped?.may_rearm === false;
    stopMs = null;
  }
  say($("estop").firstChild, stopped ? "Stopped " : stopMs !== null ? "Stopping … " : "Emergency stop ");
  $("estop").classList.toggle("done", Boolean(stopped));
  for (const [name, button] of buttons) {
    const reason = connection.isOpen ? (unable(name, state, hello?.mode) ?? (seat.isMine || seat.isFree ? null : "another page is in control")) : "no connection";
    button.disabled = reason !== null;
    button.title = reason ?? "";
  }
  say(buttons.get("go").lastElementChild, state.control === "held" ? "Resume" : "Start");
  const records = hello?.mode === "record";
  for (const name of ["discard", "take_over", "hand_back"]) buttons.get(name).hidden = records;
  $("let-go").parentElement.hidden = $("advice-card").hidden = records;
  buttons.get("re_record").hidden = !records;
  buttons.get("take_over").classList.toggle("on", state.control === "human");
  const source = state.source;
  if (source && document.activeElement !== $("source")) {
    const list = source.available.join();
    if ($("source").dataset.list !== list) { $("source").replaceChildren(...source.available.map((name) => new Option(name === "console" ? "this page alone" : name === "none" ? "nobody" : `page or ${name}`, name))); $("source").dataset.list = list; }
    $("source").value = source.changing_to ?? source.type;
  }
  $("source").disabled = !connection.isOpen || !(seat.isMine || seat.isFree);
  if (source?.error && render.error !== source.error) note(source.error);
  render.error = source?.error;
  $("real-time").checked = Boolean(state.real_time);
}

/** Say something to the arm; where no page is in control, this one takes it first. */
async function command(name, more = {}) {
  if (seat.isFree) send({ type: "request_control" });
  const reason = await connection.ask({ type: "command", name, ...more });
  if (reason) note(`${ACTIONS.find((action) => action.name === name)?.label ?? name}: ${reason}`);
}

async function stop() {
  stopMs ??= performance.now();
  render();
  const reason = await connection.ask({ type: "estop" });
  if (reason) note(`The stop did not reach the arm: ${reason} Use its switch, or \`hilserl estop\` on its host.`, true);
}

/** Do what a key, a button or a gamepad says. */
function act(name) {
  if (name.startsWith("replay")) return replay.open(Number(name.slice(6)) - 1);
  switch (name) {
    case "estop": return stop();
    case "escape": return replay.close();
    case "seat": return seat.press();
    case "yes": case "no": return seat.answer(name === "yes") || (state?.asks?.length && command("answer", { ask: state.asks[0].ask, value: name === "yes" }));
    case "rearm": return $("stopped").hidden || $("rearm-name").focus();
    case "view": say($("view").lastElementChild, cameras.toggle() === "raw" ? "raw pictures" : "what the policy sees"); return;
    case "sticks": $("sticks").hidden = !$("sticks").hidden; return;
    case "advice": adviceOn = !adviceOn; localStorage.setItem("advice", adviceOn ? "on" : "off"); say($("advice-switch").lastElementChild, adviceOn ? "on" : "off"); showAdvice(state, adviceOn); return;
    case "help": $("help").open = !$("help").open; if ($("help").open) $("help").scrollIntoView({ block: "nearest" }); return;
  }
  const reason = unable(name, state, hello?.mode) ?? (seat.isMine || seat.isFree ? null : "another page is in control");
  if (reason) return note(`Not now: ${reason}.`);
  if (name === "go") return command(state.control === "held" ? "resume" : "start");
  if (name === "take_over") { if (seat.isFree) send({ type: "request_control" }); return driver.take(); }
  if (name === "hand_back") return driver.handBack();
  return command(name);
}

/** Say why a hand moves nothing: the same once in a while, for it is asked 25 times a second. */
function hint(text) {
  if (!text || (hinted[0] === text && performance.now() - hinted[1] < HINT_MS)) return;
  hinted = [text, performance.now()];
  note(text);
}

function note(text, isBad = false) {
  if (!text) return;
  const box = element("p", isBad ? "bad" : "", text);
  $("notes").append(box);
  while ($("notes").children.length > 3) $("notes").firstElementChild.remove();
  setTimeout(() => box.remove(), isBad ? 10 * NOTE_MS : NOTE_MS);
  return box;
}

const buttons = new Map();
for (const action of ACTIONS.filter((one) => one.group && one.group !== "seat")) {
  const button = element("button", action.kind ?? "", element("kbd", "", action.shown), element("span", "", action.label));
  button.type = "button";
  button.addEventListener("click", (event) => { act(action.name); if (event.detail) button.blur(); });
  $(`${action.group}-buttons`).append(button);
  buttons.set(action.name, button);
}
for (const [id, name] of [["estop", "estop"], ["view", "view"], ["advice-switch", "advice"], ["sticks-button", "sticks"]])
  $(id).addEventListener("click", (event) => { act(name); if (event.detail) $(id).blur(); });
for (const id of ["let-go", "real-time"]) $(id).addEventListener("click", (event) => { if (event.detail) $(id).blur(); });  // Enter is `start` again
const table = (title, rows) => element("div", "", element("b", "", title), ...rows.map(([keys, words]) => element("div", "key", element("kbd", "", keys), ` ${words}`)));
$("keys").append(table("Drive", DRIVING), table("Say", ACTIONS.filter((action) => action.shown).map((action) => [action.shown, action.name === "go" ? "Start, resume" : action.label])), table("Gamepad, plugged in here", PAD));
$("source").addEventListener("change", () => { command("source", { value: $("source").value }); $("source").blur(); });
$("real-time").addEventListener("change", () => command("real_time", { value: $("real-time").checked }));
$("rearm").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (seat.isFree) send({ type: "request_control" });
  const reason = await connection.ask({ type: "rearm", robot: $("rearm-name").value.trim() });
  rearmNote?.remove();
  if (reason) rearmNote = note(reason, true); else { $("rearm-name").value = ""; $("rearm-name").blur(); }
});
makeStick($("stick-move"), (x, y) => { driver.stick[0] = y; driver.stick[1] = -x; driver.nudge(); });
makeStick($("stick-lift"), (_, y) => { driver.stick[2] = y; driver.nudge(); });
for (const [id, value] of [["open", 1], ["close", -1]]) {
  $(id).addEventListener("pointerdown", (event) => { $(id).setPointerCapture(event.pointerId); driver.stick[3] = value; driver.nudge(); });
  for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) $(id).addEventListener(kind, () => { driver.stick[3] = 0; });
}
$("sticks").hidden = !matchMedia("(pointer: coarse)").matches;
say($("advice-switch").lastElementChild, adviceOn ? "on" : "off");
listen(act, (key, isDown) => driver.key(key, isDown));
let resizing;
window.addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(() => hello && cameras.ask(), 400); });
setInterval(() => {
  const delay = cameras.age(performance.now(), isOver());
  say($("delay"), delay === null ? "" : `${number(delay + (connection.roundTripMs ?? 0) / 2)} ms old`);
  say($("connection"), connection.isOpen ? `connection ${number(connection.roundTripMs, 0, " ms")} · ${state?.viewers ?? 1} ${state?.viewers === 1 ? "page" : "pages"} open` : isOver() ? "looking for a new run" : lostMs === null ? "connecting" : `no connection for ${((performance.now() - lostMs) / 1000).toFixed(0)} s`);
  say($("gamepad"), driver.gamepad ? `gamepad: ${driver.gamepad.id.replace(/\s*\(.*/, "")}` : "");
  seat.show();
}, 500);
render();
