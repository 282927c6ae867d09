// Each panel of the page, from the newest state. No panel decides anything.
import { $, bytes, element, facts, number, percent, say, whole } from "./dom.js";
import { judged, who } from "./words.js";

const HOT_C = 55, LOW_V = 4.8;

export function showWho(state, seat, isOpen) {
  const [colour, sign, words, why] = isOpen ? who(state, seat) : ["unknown", "?", "Not connected", "what you see is old"];
  document.body.dataset.control = colour;
  say($("sign"), sign);
  say($("who"), words);
  say($("why"), why);
  document.title = `${words} · ${$("run-name").textContent || "hilserl"}`;
}

export function showEpisode(state) {
  const episode = state.episode;
  facts($("episode"), [
    [episode ? `${episode.clock_s.toFixed(1)} s` : "–", episode?.limit_s ? `of ${episode.limit_s.toFixed(0)} s` : "clock"],
    [episode ? String(episode.step) : "–", "step"],
    [episode ? number(episode.reward, 2) : "–", "reward"],
    [episode ? number(episode.return, 2) : "–", "return"],
    [episode ? (episode.success ? "yes" : "not yet") : "–", "success", episode?.success ? "good" : ""],
    [episode ? `${episode.intervention_steps}` : "–", episode?.bouts ? `steps by hand, ${episode.bouts} ${episode.bouts === 1 ? "bout" : "bouts"}` : "steps by hand"],
  ]);
  const judge = state.judge, hasProbability = judge?.probability !== null && judge?.probability !== undefined;
  $("judge").hidden = !judge;
  if (!judge) return;
  $("gauge").hidden = !hasProbability;
  const parts = [judge.judged_by ? `judged by the ${judge.judged_by}` : ""];
  if (hasProbability) {
    const isOver = judge.threshold !== null && judge.probability >= judge.threshold;
    $("gauge-fill").style.width = `${100 * judge.probability}%`;
    $("gauge").classList.toggle("over", isOver);
    $("gauge").setAttribute("aria-valuenow", judge.probability);
    $("gauge-mark").style.left = `${100 * (judge.threshold ?? 1)}%`;
    parts.unshift(`success ${judge.probability.toFixed(2)}${judge.threshold === null ? "" : `, threshold ${judge.threshold.toFixed(2)}`}`);
  }
  if (judge.judged_by !== "simulator" && judge.true_success !== null && judge.true_success !== undefined) parts.push(`the simulator says ${judge.true_success ? "yes" : "no"}`);
  say($("judge-text"), parts.filter(Boolean).join(" · "));
}

export function showSession(state, mode) {
  const session = state.session;
  if (!session) return;
  const records = mode === "record" && session.saved !== null;
  $("recording").hidden = !records;
  if (records) {
    const wanted = session.wanted ?? session.saved;
    if (!$("recording").firstElementChild) $("recording").append(element("progress"), element("b", "number"), element("p", "soft small"));
    const [bar, count, hint] = $("recording").children;
    bar.max = wanted || 1;
    bar.value = session.saved;
    say(count, `${session.saved} of ${wanted} demonstrations saved`);
    say(hint, state.phase === "episode" ? "It is recorded from your first motion on, until S, F or the time limit." : "");
  }
  say($("session-title"), records ? "Recording" : "So far");
  say($("session-judge"), judged(session));
  $("session-judge").className = `small ${session.truth_known && session.truth_agrees < session.truth_known ? "warned" : "soft"}`;
  const last = session.of_last ? `of the last ${session.of_last}` : "";
  facts($("session"), [
    [percent(session.success_rate), `success ${last}`], [percent(session.intervention_rate), `by hand ${last}`],
    [whole(session.episodes), "episodes"], [whole(session.steps), "steps"],
    ...(session.failed !== null && session.failed !== undefined ? [[whole(session.failed), "failed"]] : []), [whole(session.discarded), "discarded"],
  ]);
}

export function showLearner(state) {
  const learner = state.learner, link = state.link;
  $("learner").parentElement.hidden = !learner && !link;
  if (!learner && !link) return;
  say($("learner-text"), learner ? [learner.phase, learner.message].filter(Boolean).join(": ") : "");
  const debt = learner?.owed_updates, most = learner?.max_owed_updates, isOver = state.phase === "ended";  // then nothing of this is wrong
  facts($("learner"), [
    ...(learner ? [
      [learner.connected ? "on" : isOver ? "ended" : "away", "learner", learner.connected ? "good" : isOver ? "" : "stop"],
      [number(learner.updates_per_s, 0), "updates/s"], [whole(learner.updates), "updates"],
      [whole(debt), most ? `updates owed, of at most ${whole(most)}` : "updates owed", debt !== null && most && debt > most / 2 && !isOver ? "warn" : ""],
      [learner.weights_version === null ? "–" : `v${learner.weights_version}`, "weights"],
      [number(learner.weights_age_s, 1, " s"), "age of the weights", learner.weights_age_s > 30 ? "warn" : ""],
    ] : []),
    ...(link ? [[link.connected ? "up" : isOver ? "ended" : "down", "link", link.connected ? "good" : isOver ? "" : "stop"], [whole(link.waiting_records), "records waiting", link.waiting_records > 200 ? "warn" : ""], [bytes(link.journal_bytes), "journal"]] : []),
  ]);
}

export function showArm(state) {
  const arm = state.arm, timing = state.timing;
  $("arm-card").hidden = !arm && !timing;
  say($("timing"), timing ? `longest period ${number(1000 * timing.longest_period_s)} ms · ${timing.late_steps} late · saw ${number(1000 * timing.observation_age_s)} ms ago` : "");
  const servos = arm?.servos;
  if (!servos) { if (!$("servos").firstElementChild?.matches("p")) $("servos").replaceChildren(element("p", "soft small", "A simulated arm has no servos to watch.")); return; }
  if ($("servos").children[0]?.rows?.length !== servos.length + 1) {
    const head = element("tr", "", ...["joint", "°C", "load", "V", "A"].map((name) => element("th", "", name)));
    $("servos").replaceChildren(element("table", "number", head, ...servos.map(() => element("tr", "", ...Array.from({ length: 5 }, () => element("td"))))));
  }
  servos.forEach((servo, index) => {
    const row = $("servos").firstElementChild.rows[index + 1], cells = row.children;
    [servo.joint, number(servo.temperature_c), percent(servo.load), number(servo.voltage_v, 1), number(servo.current_a, 2)].forEach((text, column) => say(cells[column], text));
    cells[1].className = servo.temperature_c > HOT_C ? "warn" : "";
    cells[2].className = Math.abs(servo.load) > 0.8 ? "warn" : "";
    cells[3].className = servo.voltage_v < LOW_V ? "warn" : "";
    row.className = servo.error ? "stop" : "";
    row.title = servo.error ? `error bits ${servo.error}` : "";
  });
}

export function showAlarms(state) {
  const alarms = state.alarms ?? [];
  $("alarms-card").hidden = $("alarm-count").hidden = !alarms.length;
  say($("alarm-count"), `${alarms.length} ${alarms.length === 1 ? "alarm" : "alarms"}`);
  keep($("alarms"), alarms.map((alarm) => [`${alarm.level === "error" || alarm.level === "stop" ? "stop" : "warn"} alarm`, alarm.text, alarm.remedy ?? ""]));
}

export function showAdvice(state, isOn) {
  $("advice").hidden = !isOn;
  const advice = state?.advice ?? [], acts = state?.phase === "episode" && (state.control === "policy" || state.control === "human");
  const nothing = acts ? "Nothing to say: go on like this." : "It speaks while an episode is on.";
  keep($("advice"), advice.length ? advice.map((one) => [`advice ${one.kind}`, one.text, ""]) : [["soft", nothing, ""]]);
}

export function showAsks(state, answer) {
  const asks = state.asks ?? [];
  const shown = [...$("asks").children].map((box) => box.dataset.ask).join();
  if (shown === asks.map((ask) => ask.ask).join()) return;
  $("asks").replaceChildren(...asks.map((ask, index) => {
    const yes = element("button", "main", ...(index ? ["Yes"] : [element("kbd", "", "Y"), " Yes"])), no = element("button", "", ...(index ? ["No"] : [element("kbd", "", "N"), " No"]));
    yes.addEventListener("click", () => answer(ask.ask, true));
    no.addEventListener("click", () => answer(ask.ask, false));
    const box = element("section", "ask", element("p", "", element("b", "", ask.text)), element("span", "row", yes, no));
    box.dataset.ask = ask.ask;
    box.setAttribute("role", "alert");
    return box;
  }));
}

/** Keep a list of [class, text, more] as paragraphs, changing only what changed. */
function keep(place, list) {
  while (place.children.length > list.length) place.lastElementChild.remove();
  while (place.children.length < list.length) place.append(element("div", "", element("p"), element("p", "soft small")));
  list.forEach(([name, text, more], index) => {
    const box = place.children[index];
    box.className = name;
    say(box.firstElementChild, text);
    say(box.lastElementChild, more);
    box.lastElementChild.hidden = !more;
  });
}
