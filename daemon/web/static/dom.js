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

// `element`, which calls `act` when it is chosen with the mouse or with the keyboard.
export function onChoice(element, act) {
  element.addEventListener("click", act);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      act();
    }
  });
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

// A number as Python's format() writes it by `spec`, such as ".1%" or ",.2f"; per cent with a space.
export function formatted(value, spec) {
  if (value === null || value === undefined) return "–";
  const [, sign, grouped, digits, kind] = /^([+ ]?)(,?)(?:\.(\d+))?([eEfFgG%]?)$/.exec(spec) ?? [];
  const places = digits === undefined ? 6 : Number(digits);
  let text;
  if (kind === "%") text = (100 * value).toFixed(places);
  else if (kind === "f" || kind === "F") text = value.toFixed(places);
  else if (kind === "e" || kind === "E") text = value.toExponential(places);
  else if (kind || digits !== undefined) text = general(value, Math.max(places, 1));
  else text = String(value);
  text = text.replace(/e([+-])(\d)$/, "e$10$2");
  if (grouped) text = text.replace(/^-?\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ","));
  if (kind && kind === kind.toUpperCase() && kind !== "%") text = text.toUpperCase();
  return (sign && value >= 0 ? sign : "") + text + (kind === "%" ? " %" : "");
}

function general(value, significant) {
  if (value === 0) return "0";
  const [digits, power] = value.toExponential(significant - 1).split("e");
  const short = (number) => (number.includes(".") ? number.replace(/\.?0+$/, "") : number);
  if (Number(power) < -4 || Number(power) >= significant) {
    return `${short(digits)}e${power}`;
  }
  return short(value.toFixed(significant - 1 - Number(power)));
}
