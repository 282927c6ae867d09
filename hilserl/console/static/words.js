// The state in words: who acts, what may be done now.

const SIGNS = { policy: "▶", human: "●", handing_back: "◐", held: "❚❚", stopped: "■", nobody: "…", unknown: "?" };
const PHASES = { starting: "Starting", resetting: "Going to the start", waiting: "Waits for start", stopped: "Stopped", ended: "The run has ended", episode: "Episode", evaluation: "Evaluation" };
export const ENDED = { success: "success", failure: "failure", time: "out of time", discarded: "discarded", cut: "cut off" };

/** Who is in control, as [colour, sign, words, why]. */
export function who(state, seat) {
  if (!state) return ["unknown", SIGNS.unknown, "Connecting", ""];
  if (!state.alive && state.phase !== "ended") return ["unknown", SIGNS.unknown, "No word from the actor", `for ${state.age_s.toFixed(0)} s: it hangs, or is busy`];
  const text = state.text || PHASES[state.phase] || "";
  switch (state.control) {
    case "policy":
      if (Number.isFinite(state.session?.wanted)) return ["nobody", SIGNS.nobody, "Waits for your first motion", text];
      return ["policy", SIGNS.policy, state.phase === "evaluation" ? "Policy acts, evaluated" : "Policy acts", text];
    case "human": return ["human", SIGNS.human, seat?.driving && seat.you ? "You drive" : "A person drives", state.session?.wanted ? text : `${text}, step ${state.episode?.bout_steps ?? 0} of this bout`];
    case "handing_back": return ["human", SIGNS.handing_back, "Handing back", text];
    case "held": return ["held", SIGNS.held, "Held", state.held_because || "Nothing moves until you resume."];
    case "stopped": return ["stopped", SIGNS.stopped, "Stopped", state.stopped?.rule === "estop" ? "emergency stop" : (state.stopped?.rule ?? "")];
    default: return ["nobody", SIGNS.nobody, PHASES[state.phase] ?? "Nobody acts", text === PHASES[state.phase] ? "" : text];
  }
}

/** Why a hand on the keys moves nothing now, "" where it does or where it soon will. */
export function unmoved(state, isMineOrFree) {
  if (!state || state.phase === "ended") return "";
  if (!isMineOrFree) return "another page is in control";
  if (state.source?.type === "none") return "nobody may take over: the source is none";
  if (state.control === "stopped") return "the arm is stopped";
  if (state.control === "held") return "it is held: Enter goes on, I takes over";
  if (state.phase === "waiting") return "the arm waits: Enter starts";
  return state.phase === "evaluation" ? "nobody takes over in an evaluation" : "";
}

/** Who called the successes, and whether that is true, where somebody knows. */
export function judged(session) {
  if (!session.judged_by || !session.of_last) return "";
  const truth = session.truth_known ? `; the simulator agrees with ${session.truth_agrees} of ${session.truth_known}` : "";
  return `Called success by the ${session.judged_by}${truth}.`;
}

/** Whether an action makes sense now: null, or why not. */
export function unable(name, state, mode) {
  if (!state) return "no connection";
  const inEpisode = state.phase === "episode" || state.phase === "evaluation", isStopped = state.control === "stopped";
  if (state.phase === "ended") return "the run has ended";
  if (isStopped && name !== "seat") return "the arm is stopped";
  switch (name) {
    case "go": return state.control === "held" || state.paused || state.phase === "waiting" ? null : "nothing is held or paused";
    case "hold": return state.control === "held" ? "it is held" : null;
    case "pause": return state.paused ? "it is paused" : null;
    case "take_over": return state.phase !== "episode" ? "no episode is on" : state.control === "human" ? "a person drives" : state.source.type === "none" ? "nobody may take over: the source is none" : null;
    case "hand_back": return state.control === "human" ? null : "no person drives";
    case "success": case "failure": case "end": case "discard": case "re_record": return inEpisode ? null : "no episode is on";
    default: return null;
  }
}
