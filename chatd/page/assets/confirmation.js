// Asks before something is done that cannot be undone.

import { byId } from "./dom.js";

/** Whether the user confirms; `action` is the text of the button that does. */
export function confirmAction({ title, text, action }) {
  const dialog = byId("confirmation");
  byId("confirmation-title").textContent = title;
  byId("confirmation-text").textContent = text;
  byId("confirm").textContent = action;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
