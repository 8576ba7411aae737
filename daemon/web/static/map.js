// The swarm as a map: this peer in the middle, the others around it. The closer, the shorter the
// round trip; the line says over which kind of path.

import { byId, bytes, clean, html, isNew, milliseconds, onChoice, peerName, svg } from "./dom.js";

const MARGIN = { x: 100, y: 34 };
const HIGHEST = 820;
const LABELS_UP_TO = 14;
const FEW = 40;
const KINDS = ["direct", "punched", "ice", "relay", "connecting", "failed"];
const KIND_NAMES = {
  direct: "direct", punched: "punched through routers", ice: "ICE over UDP", relay: "over a relay",
  connecting: "connecting", failed: "no path",
};

export function swatch(kind) {
  return svg("svg", { width: 26, height: 10, "aria-hidden": "true" },
    svg("line", { x1: 0, y1: 5, x2: 26, y2: 5, class: `path ${kind}` }),
    svg("circle", { cx: 13, cy: 5, r: 4, class: `dot ${kind}` }));
}

export function isLate(peer) {
  return (peer.round_lag ?? 0) > 0;
}

export function isRefused(peer) {
  return peer.rejects > 0;
}

// In steps, so that a round trip that wavers moves nobody.
function nearness(peer) {
  return Math.round(6 * Math.log1p(peer.rtt_ms ?? 300));
}

export function drawMap(page, choose) {
  const { status } = page;
  const box = byId("map");
  if (!isNew(box, page.chosen, status.peers.map((peer) => [peer.peer_id, peer.name, peer.path,
    nearness(peer), peer.round_lag, peer.rejects]))) return;
  const width = Math.max(box.clientWidth, 240);
  const height = Math.min(Math.max(0.72 * width, 260), HIGHEST);
  const focused = document.activeElement?.dataset?.peer;
  const peers = [...status.peers].sort((a, b) =>
    KINDS.indexOf(a.path) - KINDS.indexOf(b.path) || a.peer_id.localeCompare(b.peer_id));
  const many = peers.length > FEW;
  const [cx, cy] = [width / 2, height / 2];
  const size = { wide: cx - (many ? 16 : Math.min(MARGIN.x, 0.28 * width)), high: cy - MARGIN.y };
  const places = place(peers, cx, cy, size);
  const lines = [];
  const nodes = [];
  for (const [index, peer] of peers.entries()) {
    const { x, y } = places[index];
    const chosen = page.chosen === peer.peer_id;
    lines.push(svg("line", { x1: cx, y1: cy, x2: x, y2: y,
      class: `path ${peer.path}${chosen ? " chosen" : ""}` }));
    nodes.push(node(peer, x, y, { many, chosen, labelled: peers.length <= LABELS_UP_TO || chosen,
      right: x >= cx, choose }));
  }
  const radii = [0.36, 0.68, 1];
  const drawing = svg("svg", { width, height, class: many ? "many" : null,
    role: "group", "aria-label": `Map of ${peers.length} other peers` },
  ...radii.map((r) => svg("ellipse", { cx, cy, rx: r * size.wide, ry: r * size.high,
    class: "ring" })),
  ...lines,
  svg("g", { class: "me" }, svg("circle", { cx, cy, r: 11, class: "dot" })),
  svg("text", { x: cx, y: cy + 27, "text-anchor": "middle" }, "this peer"),
  ...nodes);
  const empty = peers.length === 0
    ? html("p", { class: "quiet" }, "No other peers yet. Whoever has the swarm's invite link can join.")
    : null;
  box.replaceChildren(...[empty, drawing].filter(Boolean));
  if (focused) box.querySelector(`[data-peer="${CSS.escape(focused)}"]`)?.focus();
  drawLegend(peers);
}

// Angles are dealt out in the order of kinds and ids, so that a peer keeps its place; peers that
// would touch go to another ring.
function place(peers, cx, cy, { wide, high }) {
  const farthest = Math.max(...peers.map(nearness));
  return peers.map((peer, index) => {
    const angle = 2 * Math.PI * (index + 0.5) / peers.length - Math.PI / 2;
    let far = 0.45 + 0.5 * nearness(peer) / Math.max(farthest, 1);
    if (peer.path === "failed" || peer.path === "connecting") far = 1;
    if (peers.length > FEW) far = Math.min(0.7 * far + 0.3 * (0.4 + 0.6 * (index % 4) / 3), 1);
    return { x: cx + far * wide * Math.cos(angle), y: cy + far * high * Math.sin(angle) };
  });
}

function node(peer, x, y, { many, chosen, labelled, right, choose }) {
  const radius = many ? 5 : 9;
  const parts = [
    svg("circle", { cx: x, cy: y, r: radius + 4, class: "halo" }),
    svg("circle", { cx: x, cy: y, r: radius, class: `dot ${peer.path}` }),
  ];
  if (isLate(peer)) parts.push(svg("circle", { cx: x, cy: y, r: radius + 3, class: "lag" }));
  if (isRefused(peer)) {
    parts.push(svg("circle", { cx: x + radius, cy: y - radius, r: 6.5, class: "badge" }));
    parts.push(svg("text", { x: x + radius, y: y - radius + 3.5, "text-anchor": "middle",
      class: "badge-text" }, "!"));
  }
  if (labelled) {
    const side = right ? 1 : -1;
    const at = { x: x + side * (radius + 9), "text-anchor": right ? "start" : "end" };
    const name = peerName(peer);
    parts.push(svg("text", { ...at, y: y - 1 }, name.length > 13 ? `${name.slice(0, 12)}…` : name));
    parts.push(svg("text", { ...at, y: y + 13, class: "second" },
      peer.rtt_ms === null || peer.rtt_ms === undefined ? peer.path : milliseconds(peer.rtt_ms)));
  }
  const element = svg("g", { class: `node${chosen ? " chosen" : ""}`, tabindex: 0, role: "button",
    "aria-pressed": String(chosen), "aria-label": describe(peer), "data-peer": peer.peer_id },
  svg("title", {}, describe(peer)), ...parts);
  return onChoice(element, () => choose(peer.peer_id));
}

function describe(peer) {
  const parts = [peerName(peer), KIND_NAMES[peer.path] ?? peer.path];
  if (peer.rtt_ms !== null && peer.rtt_ms !== undefined) parts.push(`round trip ${milliseconds(peer.rtt_ms)}`);
  parts.push(`sent ${bytes(peer.bytes_sent)}, received ${bytes(peer.bytes_received)}`);
  if (isLate(peer)) parts.push(`${peer.round_lag} behind`);
  if (isRefused(peer)) parts.push(`refused ${peer.rejects} times: ${clean(peer.last_reject)}`);
  return parts.join(", ");
}

function drawLegend(peers) {
  const counts = new Map();
  for (const peer of peers) counts.set(peer.path, (counts.get(peer.path) ?? 0) + 1);
  const items = KINDS.filter((kind) => counts.has(kind)).map((kind) =>
    html("li", {}, swatch(kind), `${counts.get(kind)} ${KIND_NAMES[kind]}`));
  const late = peers.filter(isLate).length;
  if (late) {
    items.push(html("li", {}, svg("svg", { width: 16, height: 16, "aria-hidden": "true" },
      svg("circle", { cx: 8, cy: 8, r: 6, class: "lag" })), `${late} behind`));
  }
  const refused = peers.filter(isRefused).length;
  if (refused) {
    items.push(html("li", {}, svg("svg", { width: 14, height: 14, "aria-hidden": "true" },
      svg("circle", { cx: 7, cy: 7, r: 6.5, class: "badge" }),
      svg("text", { x: 7, y: 10.5, "text-anchor": "middle", class: "badge-text" }, "!")),
    `${refused} refused`));
  }
  byId("map-legend").replaceChildren(...items);
}
