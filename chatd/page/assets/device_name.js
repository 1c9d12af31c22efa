// What this browser is called in the list of sessions.

const BROWSERS = [
  [/Edg\//, "Edge"],
  [/OPR\//, "Opera"],
  [/Firefox\//, "Firefox"],
  [/Chrome\//, "Chrome"],
  [/Safari\//, "Safari"],
];
const SYSTEMS = [
  [/iPhone|iPad/, "iOS"],
  [/Android/, "Android"],
  [/Windows/, "Windows"],
  [/Mac OS X/, "macOS"],
  [/Linux/, "Linux"],
];

/** Such as "Firefox on Linux". */
export function deviceName(userAgent = navigator.userAgent) {
  const find = (names, fallback) => names.find(([pattern]) => pattern.test(userAgent))?.[1] ?? fallback;
  return `${find(BROWSERS, "A browser")} on ${find(SYSTEMS, "a computer")}`;
}
