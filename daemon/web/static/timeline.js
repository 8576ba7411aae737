// Rounds as a timeline: one bar a round, cut into what this peer did; and for whom it waits.

import { byId, clean, duration, html, peerName, svg } from "./dom.js";

const LEFT = 46;
const RIGHT = 64;
const BAR = 15;
const GAP = 6;
const FEW_BARS = 20;
const MANY_BARS = 40;
const WIDE_WINDOW = 1700;
const MAX_NAMES = 6;
const PHASES = ["training", "exchanging", "agreeing", "applying", "fetching", "retrying"];
const PHASE_NAMES = { applying: "averaging", retrying: "failed, trying again", idle: "waiting, resting" };

// What a person reads for a phase of the status document.
export function phaseName(phase) {
  return PHASE_NAMES[phase] ?? phase;
}

function kindOf(phase) {
  return PHASES.includes(phase) ? phase : "idle";
}

export function drawTimeline(page) {
  const { history, status } = page;
  const isOver = status.phase === "complete";
  const current = history.current && !isOver ? history.current : null;
  const most = innerWidth >= WIDE_WINDOW ? MANY_BARS : FEW_BARS;
  const rounds = [...page.rounds.slice(-most + (current ? 1 : 0)), ...(current ? [current] : [])];
  byId("waiting").textContent = waitingFor(page);
  const lengths = rounds.map((round) => round.seconds ?? history.now - round.started_at);
  // One round that waited for hours must not make dots of all others.
  const sorted = [...lengths].sort((a, b) => a - b);
  const usual = sorted[Math.floor(sorted.length * 0.8)] ?? 1;
  const longest = Math.max(Math.min(sorted.at(-1) ?? 1, usual * 2.5), 0.001);
  const box = byId("timeline");
  const width = Math.max(box.clientWidth, 240);
  const scale = (width - LEFT - RIGHT) / longest;
  const height = Math.max(rounds.length, 1) * (BAR + GAP) + 4;
  const bars = rounds.flatMap((round, index) => bar(round, lengths[index], index * (BAR + GAP) + 2, scale, longest));
  const drawing = svg("svg", { width, height, role: "img",
    "aria-label": `The last ${rounds.length} rounds, and how long each took` }, ...bars);
  const nothing = status.phase === "observing" ? "This peer only observes: it takes part in no round."
    : "The first round has not begun.";
  box.replaceChildren(rounds.length ? drawing : html("p", { class: "quiet" }, nothing));
  drawLegend(rounds);
}

function bar(round, seconds, y, scale, longest) {
  const parts = [svg("text", { x: LEFT - 8, y: y + BAR - 3, "text-anchor": "end" }, String(round.round))];
  const cut = seconds > longest * 1.001;
  const fit = cut ? longest / seconds : 1;
  for (const span of round.phases) {
    const length = span.seconds ?? Math.max(seconds - span.start_s, 0);
    const width = length * scale * fit;
    if (width < 0.3) continue;
    parts.push(svg("rect", { x: LEFT + span.start_s * scale * fit, y, width, height: BAR, rx: 1.5,
      class: `${kindOf(span.phase)}-bar` }, svg("title", {}, `round ${round.round}: ${phaseName(span.phase)}, ${duration(length)}`)));
  }
  const end = LEFT + Math.min(seconds, longest) * scale + 6;
  parts.push(svg("text", { x: end, y: y + BAR - 3 }, `${cut ? "… " : ""}${duration(seconds)}`));
  return parts;
}

function waitingFor(page) {
  const { history, status } = page;
  const names = new Map(status.peers.map((peer) => [peer.peer_id, peer]));
  const left = history.closes_in_s === null ? "" : ` Waits ${duration(history.closes_in_s)} more at most.`;
  if (history.waits_for.length) {
    const shown = history.waits_for.slice(0, MAX_NAMES).map((id) => {
      const peer = names.get(id);
      if (!peer) return id.slice(0, 8);
      return peer.round_lag > 0 ? `${peerName(peer)} (${peer.round_lag} behind)` : peerName(peer);
    });
    const rest = history.waits_for.length - shown.length;
    return `Round ${status.round + 1}: waiting for ${shown.join(", ")}${rest ? ` and ${rest} more` : ""}.${left}`;
  }
  if (history.waiting) return `Round ${status.round + 1}: ${clean(history.waiting)}.`;
  if (status.phase === "training") {
    const step = history.step === null ? "" : `, step ${history.step}`;
    return `Round ${status.round + 1}: this peer trains${step}.`;
  }
  if (status.phase === "complete") return `All ${status.rounds} rounds are complete.`;
  return `Round ${status.round + 1}: ${phaseName(status.phase)}.`;
}

function drawLegend(rounds) {
  const kinds = new Set(rounds.flatMap((round) => round.phases.map((span) => kindOf(span.phase))));
  byId("phase-legend").replaceChildren(...[...PHASES, "idle"].filter((kind) => kinds.has(kind)).map((kind) =>
    html("li", {}, svg("svg", { width: 14, height: 10, "aria-hidden": "true" },
      svg("rect", { width: 14, height: 10, rx: 2, class: `${kind}-bar` })), phaseName(kind))));
}
