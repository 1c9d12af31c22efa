// Elements of the page. User text is only ever set as textContent, never parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function createElement(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function createButton(className, text) {
  const button = createElement("button", className, text);
  button.type = "button";
  return button;
}

/** One of the symbols in the page, for decoration. */
export function createIcon(name) {
  const icon = document.createElementNS(SVG, "svg");
  icon.setAttribute("class", "icon");
  icon.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  icon.append(use);
  return icon;
}

/** Show a name whose direction of writing does not affect the text around it. */
export function setName(target, name) {
  let isolated = target.querySelector("bdi");
  if (!isolated) target.append((isolated = createElement("bdi")));
  isolated.textContent = name;
}

export function setAvatar(target, id, name) {
  target.className = `avatar hue${id % 8}`;
  target.textContent = name.slice(0, 1);
}
