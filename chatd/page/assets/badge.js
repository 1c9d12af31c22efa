// The number of unread messages in the page's title, and a mark on its icon.

import { byId } from "./dom.js";
import { countText } from "./format.js";
import { iconUrl } from "./icons.js";

export function showUnread(count) {
  document.title = count ? `(${countText(count)}) chatd` : "chatd";
  const icon = iconUrl(count > 0);
  if (byId("icon").getAttribute("href") !== icon) byId("icon").setAttribute("href", icon);
  // The icon of an installed page; browsers without it, or that forbid it, have the title.
  navigator.setAppBadge?.(count).catch(() => {});
}
