// A server's page: asks for its numbers every few seconds while somebody looks, and shows them.

import { byId, bytes, clean, duration, html } from "./dom.js";

const ASK_MS = 2000;
const PATIENCE_MS = 8000;
let timer = null;
let before = null;

async function ask() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/state", {
      headers: { Authorization: `Bearer ${location.hash.slice(1)}` },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const state = await answer.json();
    if (answer.ok) show(state);
    tell(answer.ok ? "" : state.error);
  } catch {
    tell("The server does not answer: it may have ended. This page tries again.");
  }
  clearTimeout(timer);
  timer = setTimeout(ask, ASK_MS);
}

function show(state) {
  document.title = `p2pd ${state.role}`;
  byId("role").textContent = state.role;
  byId("uri").textContent = state.uri;
  byId("facts").replaceChildren(...facts(state).map(([label, value]) =>
    html("div", {}, html("dt", {}, label), html("dd", {}, value))));
  byId("parts").replaceChildren(
    ...(state.rendezvous ? [refused("Refused by the rendezvous", state.rendezvous.troubles)] : []),
    ...(state.relay ? [refused("Dropped and closed by the relay", state.relay.troubles)] : []));
  byId("footer").textContent = `p2pd ${state.version}, running for ${duration(Math.floor(state.uptime_s))}`;
  before = state;
}

function facts({ rendezvous, relay, uptime_s }) {
  const found = [];
  if (rendezvous) {
    found.push(["peers announced", String(rendezvous.peers)], ["swarms", String(rendezvous.swarms)]);
  }
  if (relay) {
    const passed = before?.relay ? uptime_s - before.uptime_s : 0;
    const rate = passed > 0 ? (relay.forwarded_bytes - before.relay.forwarded_bytes) / passed : null;
    found.push(["peers at the relay", String(relay.peers)], ["pairs connected", String(relay.links)],
      ["passed on", bytes(relay.forwarded_bytes)],
      ["now", rate === null || rate < 0 ? "–" : `${bytes(rate)}/s`],
      ["lies in it", bytes(relay.unread_bytes)]);
  }
  return found;
}

function refused(title, troubles) {
  const rows = Object.entries(troubles).filter(([, count]) => count > 0);
  return html("section", {}, html("h2", {}, title), rows.length === 0
    ? html("p", { class: "quiet" }, "Nothing so far.")
    : html("table", {}, html("tbody", {}, ...rows.map(([why, count]) =>
      html("tr", {}, html("td", {}, clean(why)), html("td", { class: "num" }, String(count)))))));
}

function tell(text) {
  const banner = byId("connection");
  banner.textContent = text;
  banner.hidden = text === "";
}

document.addEventListener("visibilitychange", ask);
window.addEventListener("hashchange", ask);
ask();
