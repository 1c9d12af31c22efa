// Notifications of the browser while the page is in the background, if the user has agreed.

import { load, save } from "./storage.js";

export class Notifications {
  #stored;
  #onOpen;
  #shown = new Map();

  /** `onOpen(peer)` is called when a notification is clicked. */
  constructor({ userId, signal, onOpen }) {
    this.#stored = `notifications.${userId}`;
    this.#onOpen = onOpen;
    signal.addEventListener("abort", () => this.#shown.forEach((each) => each.close()));
  }

  /** Why there can be none; empty if there can. */
  get obstacle() {
    if (!isSecureContext || !("Notification" in window)) {
      return "This browser offers notifications only to pages with an HTTPS address.";
    }
    const isDenied = Notification.permission === "denied";
    return isDenied ? "Notifications of this page are blocked in the browser's settings." : "";
  }

  get isEnabled() {
    return !this.obstacle && Notification.permission === "granted" && load(this.#stored, false);
  }

  /** Turn them on, for which the browser may ask the user, or off. */
  async setEnabled(enabled) {
    if (enabled && !this.obstacle) await Notification.requestPermission();
    save(this.#stored, enabled);
  }

  show(peer, name, text) {
    if (!this.isEnabled) return;
    // All windows of the page show the same one.
    const options = { body: text, tag: `chatd.${peer}`, icon: "/web/icon.svg" };
    try {
      const notification = new Notification(name, options);
      notification.onclick = () => {
        focus();
        notification.close();
        this.#onOpen(peer);
      };
      this.#shown.set(peer, notification);
    } catch {
      // Chromium on Android permits them to service workers only.
    }
  }

  /** The conversation was read, here or on another device. */
  close(peer) {
    this.#shown.get(peer)?.close();
    this.#shown.delete(peer);
  }
}
