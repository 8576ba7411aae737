// Curves over rounds: how good the averaged model is, and each peer's training loss.

import { byId, html, formatted, isNew, number, peerName, svg } from "./dom.js";

const LEFT = 52;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 24;
const NAMED_UP_TO = 8;
const MAX_CURVES = 256;
const reading = new Map();

export function drawQuality(page) {
  const rounds = page.rounds.filter((round) => round.loss !== null || round.metrics.length > 0);
  const box = byId("quality");
  if (!isNew(box, rounds.at(-1), rounds.length, page.status.phase)) return;
  if (rounds.length === 0) {
    box.replaceChildren(html("p", { class: "quiet" },
      page.status.phase === "observing"
        ? "This peer only observes: it holds no model to test."
        : page.status.evaluate === "none"
          ? "No round is evaluated: this swarm was founded so."
          : "The first curve comes with the first complete round."));
    return;
  }
  // Each metric that any round has, as the newest has it: a task may come to measure others.
  const metrics = new Map(rounds.flatMap((round) => round.metrics).map((one) => [one.name, one]));
  const value = (round, name) => round.metrics.find((one) => one.name === name)?.value;
  const better = { higher: ", higher is better", lower: ", lower is better" };
  const known = [...metrics.values()].map((one) => ({ key: `metric ${one.name}`, title: one.name,
    about: better[one.better] ?? "", format: (number) => formatted(number, one.format),
    series: [{ points: points(rounds, (round) => value(round, one.name)), css: "c2" }] }));
  if (!metrics.has("loss")) {
    known.push({ key: "loss", title: "loss", about: better.lower, format: number,
      series: [{ points: points(rounds, (round) => round.loss), css: "c0" }] });
  }
  const charts = html("div", { class: "charts" }, ...known
    .filter((one) => one.series[0].points.length > 0)
    .map((one) => chart({ box, height: 165, ...one })));
  const claimed = rounds.filter((round) => round.evaluated_by).length;
  box.replaceChildren(...(claimed === 0 ? [] : [html("p", { class: "quiet" },
    `One peer in turn evaluates. ${claimed} of these rounds are as others say.`)]), charts);
}

export function drawCurves(page, choose) {
  const box = byId("losses");
  const names = new Map(page.status.peers.map((peer) => [peer.peer_id, peerName(peer)]));
  names.set(page.status.peer_id, `${page.status.name || "this peer"} (here)`);
  const current = page.history.current;
  const rounds = current && Object.keys(current.losses).length ? [...page.rounds, current] : page.rounds;
  const ids = [...new Set(rounds.flatMap((round) => Object.keys(round.losses)))].sort();
  if (!isNew(box, rounds.at(-1)?.losses, rounds.length, page.chosen, [...names])) return;
  if (ids.length === 0) {
    box.replaceChildren(html("p", { class: "quiet" }, "Each peer's update says its training loss. None came yet."));
    return;
  }
  const few = ids.length <= NAMED_UP_TO;
  const series = ids.slice(0, MAX_CURVES).map((id, index) => ({
    points: points(rounds, (round) => round.losses[id]),
    css: few ? `c${index}` : id === page.chosen ? "c1" : "faint",
    label: names.get(id) ?? id.slice(0, 8),
    id,
  }));
  if (!few) {
    series.sort((a, b) => (a.id === page.chosen) - (b.id === page.chosen));
    series.push({ points: points(rounds, (round) => mean(Object.values(round.losses))), css: "mean",
      label: "mean of all" });
  }
  const figure = chart({ box, key: "losses", title: "training loss", height: 300, format: number, series });
  const named = series.filter((one) => one.css !== "faint");
  const legend = html("ul", { class: "legend" }, ...named.map((one) => html("li", {},
    svg("svg", { width: 20, height: 8, "aria-hidden": "true" },
      svg("line", { x1: 0, y1: 4, x2: 20, y2: 4, class: `curve ${one.css}` })),
    one.label)));
  if (!few) legend.append(html("li", {}, `${ids.length} peers; choose one in the map or the list to see its curve`));
  const note = html("p", { class: "quiet" },
    "As each peer's update says; how good others' models are on their own test data does not travel.");
  box.replaceChildren(figure, legend, note);
}

function points(rounds, value) {
  return rounds.map((round) => [round.round, value(round)])
    .filter(([, y]) => y !== null && y !== undefined);
}

function mean(values) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function chart({ box, key, title, about = "", height, format, series }) {
  const width = Math.max(box.clientWidth, 240);
  const all = series.flatMap((one) => one.points);
  const [firstX, lastX] = range(all.map(([x]) => x), 1);
  const [low, high] = padded(range(all.map(([, y]) => y), 0));
  const x = (value) => LEFT + (width - LEFT - RIGHT) * (value - firstX) / (lastX - firstX);
  const y = (value) => height - BOTTOM - (height - TOP - BOTTOM) * (value - low) / (high - low);
  const marks = ticks(low, high, height > 180 ? 5 : 3);
  const lines = series.map((one) => one.points.length === 1
    ? svg("circle", { cx: x(one.points[0][0]), cy: y(one.points[0][1]), r: 2.5, class: `curve ${one.css}` })
    : svg("path", { d: one.points.map(([px, py], index) =>
      `${index ? "L" : "M"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join(""), class: `curve ${one.css}` }));
  const cursor = svg("line", { y1: TOP, y2: height - BOTTOM, class: "reading", visibility: "hidden" });
  const drawing = svg("svg", { width, height, tabindex: 0, role: "img",
    "aria-label": `${title} by round${about}; arrow keys read it round by round`, "data-chart": key },
  ...marks.map((mark) => svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(mark), y2: y(mark), class: "gridline" })),
  ...marks.map((mark) => svg("text", { x: LEFT - 7, y: y(mark) + 4, "text-anchor": "end" }, short(format, mark))),
  svg("line", { x1: LEFT, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM, class: "axis" }),
  ...roundTicks(firstX, lastX).map((mark) => svg("text", { x: x(mark), y: height - 8, "text-anchor": "middle" }, String(mark))),
  ...lines, cursor);
  const caption = html("figcaption", { "aria-live": "polite" });
  const figure = html("figure", { class: "chart" }, caption, drawing);
  const known = [...new Set(all.map(([px]) => px))].sort((a, b) => a - b);
  const named = series.filter((one) => one.css !== "faint").slice(0, NAMED_UP_TO + 1);
  const read = (round) => {
    reading.set(key, round);
    const at = known.includes(round) ? round : known.at(-1);
    cursor.setAttribute("visibility", round === undefined ? "hidden" : "visible");
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    const values = named.map((one) => [one.label, one.points.find(([px]) => px === at)?.[1]])
      .filter(([, value]) => value !== undefined);
    caption.replaceChildren(`${title}, round ${at}: `, ...values.flatMap(([label, value], index) =>
      [index ? ", " : "", label ? `${label} ` : "", html("strong", {}, format(value))]));
  };
  const nearest = (event) => {
    const { left } = drawing.getBoundingClientRect();
    const at = firstX + (event.clientX - left - LEFT) / (width - LEFT - RIGHT) * (lastX - firstX);
    return known.reduce((best, round) => Math.abs(round - at) < Math.abs(best - at) ? round : best, known[0]);
  };
  drawing.addEventListener("pointermove", (event) => read(nearest(event)));
  drawing.addEventListener("pointerleave", () => read(undefined));
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const index = known.indexOf(reading.get(key) ?? known.at(-1)) + step;
    read(known[Math.min(Math.max(index, 0), known.length - 1)]);
  });
  const hadFocus = document.activeElement?.dataset?.chart === key;
  read(reading.get(key));
  if (hadFocus) requestAnimationFrame(() => drawing.focus());
  return figure;
}

function range(values, least) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return high - low < least ? [low, low + least] : [low, high];
}

function padded([low, high]) {
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  return [low >= 0 ? Math.max(0, low - pad) : low - pad, high + pad];
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const marks = [];
  for (let mark = Math.ceil(low / step) * step; mark <= high; mark += step) marks.push(mark);
  return marks;
}

function roundTicks(first, last) {
  return ticks(first, last, 8).filter((mark) => Number.isInteger(mark));
}

function short(format, value) {
  const text = format(value);
  return text.endsWith("%") ? text.replace(/\.0+ %/, " %") : String(Number(value.toPrecision(3)));
}
