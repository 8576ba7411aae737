// The page: asks the peer for its state once a second, and hands it to the parts that draw it.
// While nobody looks at the page, it asks for nothing.

import { byId, clean, duration, formatted, html, number } from "./dom.js";
import { drawCurves, drawQuality } from "./curves.js";
import { drawMap } from "./map.js";
import { drawPeers } from "./peers.js";
import { drawTimeline, phaseName } from "./timeline.js";

const ASK_MS = 1000;
const RETRY_MS = 3000;
const PATIENCE_MS = 8000;
const MAX_ROUNDS = 512;

const page = {
  status: null,
  history: null,
  rounds: [],
  chosen: null,
  filter: "",
  sort: { column: null, down: false },
  held: false,
  startedAt: null,
};
let timer = null;
let asking = false;

async function ask() {
  if (asking || document.hidden || page.held) return;
  asking = true;
  let wait = ASK_MS;
  try {
    const last = page.rounds.at(-1);
    const answer = await fetch(`/state?after=${last ? last.round : 0}`, {
      headers: { Authorization: `Bearer ${location.hash.slice(1)}` },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const document_ = await answer.json();
    if (answer.ok) {
      take(document_);
      tell("");
    } else {
      tell(document_.error);
      wait = RETRY_MS;
    }
  } catch {
    tell("The peer does not answer: it may have ended, or its machine may be busy. This page tries again.");
    wait = RETRY_MS;
  }
  asking = false;
  clearTimeout(timer);
  timer = setTimeout(ask, wait);
}

function take(state) {
  const { status, history } = state;
  const startedAt = Math.round(history.now - status.uptime_s);
  const isAnother = page.status !== null &&
    (page.status.peer_id !== status.peer_id || Math.abs(startedAt - page.startedAt) > 5);
  if (isAnother) page.rounds = [];
  page.startedAt = startedAt;
  for (const round of history.rounds) {
    // A line that was left took its later rounds with it.
    page.rounds = page.rounds.filter((one) => one.round < round.round);
    page.rounds.push(round);
  }
  page.rounds = page.rounds.filter((one) => one.round <= Math.max(status.round, 0)).slice(-MAX_ROUNDS);
  page.status = status;
  page.history = history;
  draw();
}

function draw() {
  if (page.status === null) return;
  drawHead(page.status);
  drawHealth(page.status);
  drawMap(page, choose);
  drawTimeline(page);
  drawQuality(page);
  drawCurves(page, choose);
  drawPeers(page, choose, draw);
}

function choose(peerId) {
  page.chosen = page.chosen === peerId ? null : peerId;
  draw();
}

function drawHead(status) {
  const swarm = clean(status.swarm) || "p2pd";
  document.title = status.rounds
    ? `${swarm}: round ${status.round} of ${status.rounds}` : `${swarm}: round ${status.round}`;
  byId("swarm").textContent = swarm;
  const name = clean(status.name) || status.peer_id.slice(0, 8);
  byId("about").textContent = status.task
    ? `Seen by ${name}, task ${clean(status.task)}, part ${status.shard} of the data`
    : `Seen by ${name}`;
  const isUnknown = status.evaluate === "none" && status.loss === null && status.metrics.length === 0;
  const facts = [
    ["phase", status.paused ? `paused ${status.paused}` : phaseName(status.phase), "phase"],
    ["round", status.rounds ? `${status.round} of ${status.rounds}` : String(status.round)],
    ...(isUnknown ? [["model", "not evaluated in this swarm"]] : [
      ...status.metrics.map((one) => [one.name, formatted(one.value, one.format)]),
      ...(status.metrics.some((one) => one.name === "loss") ? [] : [["loss", number(status.loss)]]),
    ]),
    ...(status.evaluated_by ? [["as is said by", status.evaluated_by.slice(0, 8)]] : []),
    ["speed", status.samples_per_second === null ? "–"
      : `${status.samples_per_second.toFixed(0)} samples/s`],
    ["other peers", String(status.peers.length)],
  ];
  byId("facts").replaceChildren(...facts.map(([label, value, kind]) =>
    html("div", {}, html("dt", {}, label), html("dd", { class: kind }, value))));
  byId("footer").textContent =
    `p2pd ${status.version}, running for ${duration(Math.floor(status.uptime_s))}, id ${status.peer_id}` +
    (status.limits.length ? `; limits: ${status.limits.map(clean).join(", ")}` : "");
}

function drawHealth(status) {
  const box = byId("health");
  const state = JSON.stringify(status.health);
  if (box.dataset.state === state) return;
  box.dataset.state = state;
  box.parentElement.classList.toggle("well", status.health.length === 0);
  if (status.health.length === 0) {
    box.replaceChildren("All is well.");
    return;
  }
  box.replaceChildren(...status.health.map((item) => html("div", { class: "trouble" },
    html("p", {}, html("code", {}, clean(item.code)), " ", clean(item.text)),
    html("p", { class: "fix" }, "What to do: ", clean(item.fix)))));
}

function tell(text) {
  const banner = byId("connection");
  banner.textContent = text;
  banner.hidden = text === "";
}

document.addEventListener("visibilitychange", ask);
window.addEventListener("resize", draw);
window.addEventListener("hashchange", ask);
byId("filter").addEventListener("input", (event) => {
  page.filter = event.target.value;
  draw();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target === byId("filter");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    byId("filter").focus();
  } else if (event.key === "Escape") {
    page.chosen = null;
    if (typing) {
      page.filter = byId("filter").value = "";
      byId("filter").blur();
    }
    draw();
  } else if (event.key === "p" && !typing) {
    page.held = !page.held;
    tell(page.held ? "The page is held still. Press p to go on." : "");
    ask();
  }
});

ask();
