// Small helpers: elements, numbers for people.

export const $ = (id) => document.getElementById(id);

export function element(name, className = "", ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";
export function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Change text only where it changed: a screen reader speaks each change. */
export function say(target, text) { if (target.textContent !== text) target.textContent = text; }

/** Show figures: [value, name, kind]; the elements stay, so nothing flickers. */
export function facts(target, list) {
  while (target.children.length > list.length) target.lastElementChild.remove();
  while (target.children.length < list.length) target.append(element("div", "", element("b"), element("span")));
  list.forEach(([value, name, kind], number) => {
    const box = target.children[number];
    say(box.firstElementChild, value);
    say(box.lastElementChild, name);
    box.className = kind ?? "";
  });
}

export const number = (value, digits = 0, unit = "") => (value === null || value === undefined ? "–" : `${value.toFixed(digits)}${unit}`);
export const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(value * 100)} %`);
export const whole = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  return value < 1e6 ? `${Math.round(value / 1e3)} kB` : `${(value / 1e6).toFixed(1)} MB`;
}
