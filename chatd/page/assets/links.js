// Finds the links in a text. The text stays as it was written; only http and https become links.

import { createElement } from "./dom.js";

const ADDRESS = /\bhttps?:\/\/[^\s<>"“”«»]+/gi;
const PAIRS = { ")": "(", "]": "[", "}": "{" };

/** The text as nodes of the page: texts, and links that tell their targets nothing of the page. */
export function linkify(text) {
  const nodes = [];
  let end = 0;
  for (const { 0: match, index } of text.matchAll(ADDRESS)) {
    const address = trim(match);
    const link = createLink(address);
    if (!link) continue;
    nodes.push(text.slice(end, index), link);
    end = index + address.length;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== "");
}

function createLink(address) {
  if (!URL.canParse(address) || !new URL(address).hostname) return null;
  const link = createElement("a", "", address);
  link.href = address;
  link.rel = "noopener noreferrer";
  link.target = "_blank";
  return link;
}

/**
 * Without the punctuation of the sentence, and brackets that were opened before the address.
 * Anybody may send an address of thousands of brackets, so each character is looked at once.
 */
function trim(address) {
  const counts = {};
  for (const character of address) counts[character] = (counts[character] ?? 0) + 1;
  let end = address.length;
  for (; end > 0; end--) {
    const last = address[end - 1];
    const opening = PAIRS[last];
    if (opening) {
      if (counts[last]-- <= (counts[opening] ?? 0)) break;
    } else if (!/[.,;:!?'’*_…]/.test(last)) break;
  }
  return address.slice(0, end);
}
