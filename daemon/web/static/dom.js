// Elements, text and numbers for people. Text of other peers is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";

export function byId(id) {
  return document.getElementById(id);
}

export function html(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Whether what `box` shows, by `key` and at its width, is not what it shows already.
export function isNew(box, ...key) {
  const text = JSON.stringify([box.clientWidth, ...key]);
  const changed = box.dataset.shown !== text;
  box.dataset.shown = text;
  return changed;
}

// Names come from others: what a reader cannot see, or what turns the text around, is taken out.
export function clean(text) {
  return String(text).replace(/[\p{C}\u2028\u2029]/gu, "\u00b7");
}

export function peerName(peer) {
  return clean(peer.name) || peer.peer_id.slice(0, 8);
}

export function bytes(count) {
  let value = count;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 999.5) return unit === "B" ? `${value.toFixed(0)} B` : `${value.toFixed(1)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} TB`;
}

export function duration(seconds) {
  const whole = Math.floor(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${whole % 60} s`;
  return seconds < 9.95 ? `${seconds.toFixed(1)} s` : `${whole} s`;
}

export function ago(seconds) {
  return seconds === null || seconds === undefined ? "–" : `${duration(Math.floor(seconds))} ago`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
  return value.toFixed(size < 1 ? 4 : size < 100 ? 3 : 1);
}

export function percent(value) {
  if (value === null || value === undefined) return "–";
  return value >= 0 && value <= 1 ? `${(100 * value).toFixed(1)} %` : number(value);
}
