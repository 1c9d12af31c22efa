// Where the icon of the page is: next to this file, also under a path with a version.

export function iconUrl(unread = false) {
  return new URL(unread ? "icon_unread.svg" : "icon.svg", import.meta.url).pathname;
}
