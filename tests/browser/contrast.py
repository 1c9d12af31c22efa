"""Contrast of text on a page, by WCAG 2."""

from tests.browser.pages import Page

_LOW_CONTRAST = r"""
const luminance = (color) => {
  const channels = color.match(/[0-9.]+/g).map(Number).slice(0, 3).map((each) => each / 255)
    .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
  return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2];
};
const background = (element) => {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (!/^rgba.*, 0\)$/.test(color)) return color;
  }
  return "rgb(255, 255, 255)";
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!hasText || !element.checkVisibility()) continue;
  if (element.closest(".visually-hidden, noscript")) continue;
  const [one, two] = [getComputedStyle(element).color, background(element)].map(luminance);
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  if (ratio < 4.5) found.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
}
return found;
"""


def low_contrast(page: Page) -> list[str]:
    """Visible elements whose text misses level AA (4.5:1)."""
    found: list[str] = page.run(_LOW_CONTRAST)
    return found
