// Tells the user whether the page is connected.

import { byId } from "./dom.js";

const TEXTS = {
  connecting: "Connecting …",
  online: "Connected",
  offline: "Offline, trying again",
};

/** Show the state of a `Connection`, in both of its places: phones show one at a time. */
export function showConnectionState(state) {
  for (const id of ["status", "conversation-status"]) {
    byId(id).dataset.state = state;
    byId(id).textContent = TEXTS[state];
  }
}
