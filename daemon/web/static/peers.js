// The list of peers: sorted, searched, and never more rows than a reader takes in.

import { ago, byId, bytes, clean, html, milliseconds, onChoice, peerName } from "./dom.js";
import { isLate, isRefused, swatch } from "./map.js";

const MAX_ROWS = 15;
let shown = MAX_ROWS;
const collator = new Intl.Collator(undefined, { numeric: true });

const COLUMNS = [
  { key: "name", label: "Peer", value: (peer) => peerName(peer).toLowerCase() },
  { key: "path", label: "Path", value: (peer) => peer.path },
  { key: "rtt", label: "Round trip", kind: "num", value: (peer) => peer.rtt_ms ?? Infinity },
  { key: "round", label: "Round", kind: "num", value: (peer) => peer.round ?? -1 },
  { key: "sent", label: "Sent", kind: "num", value: (peer) => peer.bytes_sent },
  { key: "received", label: "Received", kind: "num", value: (peer) => peer.bytes_received },
  { key: "update", label: "Last update", kind: "num", value: (peer) => peer.last_update_s ?? Infinity },
  { key: "refused", label: "Refused", kind: "num", value: (peer) => peer.rejects },
  { key: "why", label: "Why", value: (peer) => why(peer) },
];

export function drawPeers(page, choose, redraw) {
  const box = byId("peers");
  const focused = document.activeElement;
  const focusedColumn = box.contains(focused) ? focused.dataset.column : null;
  const focusedPeer = box.contains(focused) ? focused.dataset.row : null;
  const wanted = page.filter.trim().toLowerCase();
  const column = COLUMNS.find((one) => one.key === page.sort.column) ?? COLUMNS[0];
  const selection = document.getSelection();
  if (selection?.type === "Range" && box.contains(selection.anchorNode)) return;
  const found = page.status.peers
    .filter((peer) => !wanted || `${peerName(peer)} ${peer.peer_id} ${peer.path}`.toLowerCase().includes(wanted))
    .sort((a, b) => compare(column.value(a), column.value(b)) * (page.sort.down ? -1 : 1)
      || collator.compare(peerName(a), peerName(b)) || a.peer_id.localeCompare(b.peer_id));
  // What wants a look comes first, and whoever was chosen in the map is to be seen.
  if (page.sort.column === null) found.sort((a, b) => concern(b) - concern(a));
  found.sort((a, b) => (b.peer_id === page.chosen) - (a.peer_id === page.chosen));
  const rows = found.slice(0, shown).map((peer) => row(peer, page.chosen === peer.peer_id, choose));
  const head = html("tr", {}, ...COLUMNS.map((one) => heading(one, page, redraw)));
  const table = html("table", {}, html("thead", {}, head), html("tbody", {}, ...rows));
  const rest = found.length - rows.length;
  const more = html("button", { type: "button" }, `Show ${Math.min(rest, MAX_ROWS)} more of ${rest}`);
  more.addEventListener("click", () => {
    shown += MAX_ROWS;
    redraw();
  });
  const none = wanted ? "No peer has that in its name, id or path." : "No other peers yet.";
  box.replaceChildren(...(found.length === 0 ? [html("p", { class: "quiet" }, none)] : [table]),
    ...(rest > 0 ? [more] : []));
  if (focusedColumn) box.querySelector(`[data-column="${focusedColumn}"]`)?.focus();
  if (focusedPeer) box.querySelector(`[data-row="${CSS.escape(focusedPeer)}"]`)?.focus();
}

function concern(peer) {
  return 4 * (peer.path === "failed") + 2 * isRefused(peer) + isLate(peer);
}

function compare(a, b) {
  if (typeof a === "string") return collator.compare(a, b);
  return a === b ? 0 : a < b ? -1 : 1;
}

function heading(column, page, redraw) {
  const sorted = page.sort.column === column.key;
  const button = html("button", { type: "button", "data-column": column.key },
    column.label + (sorted ? (page.sort.down ? " ↓" : " ↑") : ""));
  button.addEventListener("click", () => {
    page.sort = { column: column.key, down: sorted ? !page.sort.down : column.kind === "num" };
    redraw();
  });
  return html("th", { class: column.kind, scope: "col",
    "aria-sort": sorted ? (page.sort.down ? "descending" : "ascending") : null }, button);
}

function row(peer, chosen, choose) {
  const lag = isLate(peer)
    ? html("span", { class: "late" }, ` (${peer.round_lag} behind)`) : null;
  const element = html("tr", { class: chosen ? "chosen" : null, tabindex: 0,
    "data-row": peer.peer_id, "aria-selected": String(chosen) },
  html("td", { class: "name" }, peerName(peer), html("span", { class: "id" }, peer.peer_id.slice(0, 8))),
  html("td", {}, html("span", { class: "pill" }, swatch(peer.path), peer.path)),
  html("td", { class: "num", "data-label": "round trip" }, milliseconds(peer.rtt_ms)),
  html("td", { class: "num", "data-label": "round" }, peer.round === null ? "–" : String(peer.round), lag),
  html("td", { class: "num", "data-label": "sent" }, bytes(peer.bytes_sent)),
  html("td", { class: "num", "data-label": "received" }, bytes(peer.bytes_received)),
  html("td", { class: "num", "data-label": "last update" }, ago(peer.last_update_s)),
  html("td", { class: isRefused(peer) ? "num refused" : "num none", "data-label": "refused" }, String(peer.rejects)),
  html("td", { class: "why" }, why(peer)));
  return onChoice(element, () => choose(peer.peer_id));
}

function why(peer) {
  const parts = [clean(peer.reason)];
  if (peer.connections > 1) parts.unshift(`${peer.connections} connections`);
  if (isRefused(peer) && peer.last_reject) parts.unshift(`refused: ${clean(peer.last_reject)}`);
  return parts.filter(Boolean).join(". ");
}
