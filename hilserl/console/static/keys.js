// Every key, in one table: what the page obeys is what it shows.

export const DRIVING = [["↑ ↓ ← →", "forward, back, left, right"], ["E D", "up, down (or page up, page down)"], ["O C", "open, close the gripper"]];
export const ACTIONS = [
  { name: "estop", key: " ", shown: "Space", label: "Emergency stop" },
  { name: "go", key: "Enter", shown: "Enter", label: "Start", group: "motion", kind: "main" },
  { name: "hold", key: "h", shown: "H", label: "Hold", group: "motion" },
  { name: "take_over", key: "i", shown: "I", label: "Take over", group: "motion" },
  { name: "hand_back", key: "b", shown: "B", label: "Hand back", group: "motion" },
  { name: "pause", key: "p", shown: "P", label: "Pause", group: "motion" },
  { name: "home", key: "g", shown: "G", label: "Go home", group: "motion" },
  { name: "success", key: "s", shown: "S", label: "Success", group: "mark", kind: "good" },
  { name: "failure", key: "f", shown: "F", label: "Failure", group: "mark", kind: "bad" },
  { name: "end", key: "t", shown: "T", label: "End it", group: "mark" },
  { name: "discard", key: "x", shown: "X", label: "Discard", group: "mark" },
  { name: "re_record", key: "r", shown: "R", label: "Record again", group: "mark" },
  { name: "seat", key: "q", shown: "Q", label: "Ask for control", group: "seat" },
  { name: "yes", key: "y", shown: "Y", label: "Yes: give control, or approve" },
  { name: "no", key: "n", shown: "N", label: "No: keep control, or refuse" },
  { name: "rearm", key: "m", shown: "M", label: "Re-arm, once it is stopped" },
  { name: "view", key: "l", shown: "L", label: "Cameras: raw, or what the policy sees" },
  { name: "sticks", key: "k", shown: "K", label: "Sticks for fingers" },
  { name: "advice", key: "a", shown: "A", label: "Coach on or off" },
  { name: "help", key: "?", shown: "?", label: "These keys" },
  ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((count) => ({ name: `replay${count}`, key: String(count), shown: "", label: "" })),
  { name: "escape", key: "Escape", shown: "Esc", label: "Close the replay; leave a field" },
];
export const PAD = [["right shoulder, held", "drive"], ["left stick", "forward, back, left, right"], ["right stick", "up, down"], ["triggers", "close, open"],
  ["Y, A, X", "success, failure, discard"], ["Back", "emergency stop"]];

const TYPING = "input:not([type=checkbox]):not([type=range]):not([type=radio]), textarea, [contenteditable]";
const BY_KEY = new Map(ACTIONS.map((action) => [action.key, action.name]));

/** Listen to every key of the page. `obey(name)` does an action; `move(key, down)` tells whether the key moves the arm. */
export function listen(obey, move) {
  document.addEventListener("keydown", (event) => {
    const target = event.target instanceof Element ? event.target : document.body, isTyping = target.matches(TYPING);
    if (event.key === "Escape") { target.blur?.(); obey("escape"); return; }
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") { event.preventDefault(); if (!event.repeat) obey("estop"); return; }
    if (event.key === "Enter" && target.matches("button, summary, select, input")) { if (target.matches("input[type=checkbox]")) target.click(); return; }
    if (target.matches("select, input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.key)) return;  // they are moved by these themselves
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.repeat ? move(key, true) : move(key, true) || (BY_KEY.has(key) && (obey(BY_KEY.get(key)), true))) event.preventDefault();
  }, true);
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && event.target instanceof Element && !event.target.matches(TYPING)) event.preventDefault();  // a button would be clicked
    move(event.key.length === 1 ? event.key.toLowerCase() : event.key, false);
  }, true);
}
