// Notifications of the browser while the page is in the background, if the user has agreed.

import { iconUrl } from "./icons.js";
import { messageText } from "./messages.js";
import { load, save } from "./storage.js";

export class Notifications {
  #stored;
  #users;
  #onOpen;
  #shown = new Map();

  /** `onOpen(peer)` is called when a notification is clicked. */
  constructor({ me, users, signal, onOpen }) {
    this.#stored = `notifications.${me.id}`;
    this.#users = users;
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

  /** Show the last message of each sender, if the user is elsewhere. */
  announce(messages) {
    if (!this.isEnabled || (!document.hidden && document.hasFocus())) return;
    const latest = new Map(messages.map((message) => [message.sent_by, message]));
    for (const message of latest.values()) this.#show(message);
  }

  async #show(message) {
    const peer = message.sent_by;
    await this.#users.load(peer);
    this.#notify(peer, this.#users.name(peer), messageText(message));
  }

  #notify(peer, name, text) {
    // All windows of the page show the same one.
    const options = { body: text, tag: `chatd.${peer}`, icon: iconUrl() };
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
