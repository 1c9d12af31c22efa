// A menu of actions beside the button that opens it, for mouse, touch and keyboard.

import { createButton, createElement } from "./dom.js";

const MARGIN = 8;
let close = () => {};

/**
 * Open a menu at `button`; `actions` are `[text, run, className?]`. Another open menu closes.
 *
 * The menu closes when something is chosen or clicked elsewhere, with Escape, or when what is
 * below it moves. Except after a click elsewhere, the focus returns to the button.
 */
export function openMenu(button, actions) {
  const wasOpen = button.getAttribute("aria-expanded") === "true";
  close();
  if (wasOpen) return;
  const menu = createElement("div", "menu");
  menu.setAttribute("role", "menu");
  menu.setAttribute("aria-label", button.getAttribute("aria-label"));
  const ended = new AbortController();
  close = ({ focus = false } = {}) => {
    close = () => {};
    ended.abort();
    menu.remove();
    button.setAttribute("aria-expanded", "false");
    if (focus) button.focus();
  };
  menu.append(...actions.map((action) => menuItem(action)));
  menu.addEventListener("keydown", (event) => handleKey(event, menu));
  button.setAttribute("aria-expanded", "true");
  // In the list item or bar of the button, so that Tab goes on from there.
  button.after(menu);
  place(menu, button);
  menu.firstChild.focus();
  const options = { signal: ended.signal, capture: true };
  const closeOutside = ({ target }) => menu.contains(target) || button.contains(target) || close();
  document.addEventListener("pointerdown", closeOutside, options);
  document.addEventListener("scroll", () => close(), options);
  addEventListener("resize", () => close(), options);
  menu.addEventListener("focusout", ({ relatedTarget }) => {
    if (relatedTarget && !menu.contains(relatedTarget) && relatedTarget !== button) close();
  }, options);
}

/** Close the menu that is open, if one is. */
export const closeMenu = () => close();

function menuItem([text, run, className = ""]) {
  const item = createButton(className, text);
  item.setAttribute("role", "menuitem");
  item.tabIndex = -1;
  item.addEventListener("click", () => {
    close({ focus: true });
    run();
  });
  return item;
}

function handleKey(event, menu) {
  const items = [...menu.children];
  const step = { ArrowDown: 1, ArrowUp: items.length - 1 }[event.key];
  if (step) {
    items[(items.indexOf(document.activeElement) + step) % items.length].focus();
  } else if (event.key === "Escape" || event.key === "Tab") {
    close({ focus: true });
  } else return;
  if (event.key !== "Tab") event.preventDefault();
  event.stopPropagation();
}

/** Below the button, or above where there is no room; never outside of the window. */
function place(menu, button) {
  const anchor = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  const below = anchor.bottom + 4;
  const top = below + height + MARGIN <= innerHeight ? below : anchor.top - height - 4;
  const left = Math.min(anchor.right - width, innerWidth - width - MARGIN);
  menu.style.top = `${Math.max(MARGIN, top)}px`;
  menu.style.left = `${Math.max(MARGIN, left)}px`;
}
