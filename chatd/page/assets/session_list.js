// The sessions that are logged in to the account, which can be ended one by one.

import { byId, createButton, createElement } from "./dom.js";
import { describeError } from "./errors.js";
import { dateTime } from "./format.js";

export class SessionList {
  #api;
  #signal;

  constructor({ api, signal }) {
    this.#api = api;
    this.#signal = signal;
    const endOthers = () => this.#end({ others: true });
    byId("end-others").addEventListener("click", endOthers, { signal });
  }

  async load() {
    await this.#attempt(async () => {
      const { tokens } = (await this.#request("GET", {})).body;
      tokens.sort((one, other) => other.current - one.current);
      byId("sessions").replaceChildren(...tokens.map((token) => this.#row(token)));
      byId("end-others").hidden = tokens.length < 2;
    });
  }

  #row({ id, label, created_at, last_used_at, current }) {
    const row = createElement("li");
    const entry = createElement("div", "entry");
    const name = createElement("bdi", "name", label ?? "Unnamed session");
    const used = dateTime(new Date(last_used_at ?? created_at));
    entry.append(name, createElement("span", "note", current ? "This session" : `Last used ${used}`));
    row.append(entry);
    if (current) return row;
    const button = createButton("secondary", "Log out");
    button.setAttribute("aria-label", `Log out ${label ?? "unnamed session"}, last used ${used}`);
    button.addEventListener("click", () => this.#end({ id }));
    row.append(button);
    return row;
  }

  async #end(query) {
    await this.#attempt(() => this.#request("DELETE", { query }));
    await this.load();
  }

  async #attempt(action) {
    const result = byId("sessions-result");
    try {
      await action();
      result.textContent = "";
    } catch (error) {
      if (!this.#signal.aborted) result.textContent = describeError(error);
    }
    result.classList.toggle("error", result.textContent !== "");
  }

  #request(method, options) {
    return this.#api.request(method, "/tokens/", { ...options, signal: this.#signal });
  }
}
