"""Hostile text stays text, and the policy stops scripts, styles and requests from elsewhere."""

import json

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import CreateAccount, OpenPage

HOSTILE = [
    "<script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title = 'taken'\">",
    "</li></ol><h1>taken</h1>",
    "&lt;b&gt; &amp; {{7*7}} ${7*7} javascript:alert(1)",
    "\u202etxt.exe\u202c and \u200b zero width",
    "a" * 500,
    "line one\n  line two\n\nline four",
    "'\"`\\",
]

LINKIFY = """
return import("/web/links.js").then(({ linkify }) => {
  const holder = document.createElement("div");
  holder.append(...linkify(arguments[0]));
  const links = [...holder.querySelectorAll("a")];
  return [
    links.map((link) => link.textContent),
    holder.textContent,
    links.map((link) => [link.target, link.rel]),
  ];
});
"""

LINKIFY_SECONDS = """
return import("/web/links.js").then(({ linkify }) => {
  const began = performance.now();
  linkify(arguments[0]);
  return (performance.now() - began) / 1000;
});
"""

# Gives everybody in the list of conversations one name.
RENAME = """{
const { fetch } = window;
window.fetch = async (...parameters) => {
  const response = await fetch(...parameters);
  if (!String(parameters[0]).includes("/conversations/?")) return response;
  const body = await response.json();
  for (const each of body.conversations) each.username = %s;
  return Response.json(body);
};
}"""


def test_hostile_messages_stay_text(create_account: CreateAccount, open_page: OpenPage) -> None:
    ann, mallory = create_account("ann"), create_account("mallory")
    page = open_page(ann)
    mallory.send(ann, *HOSTILE)
    page.open_conversation(mallory)
    page.wait_for_messages(HOSTILE)
    assert page.driver.title == "chatd"
    assert page.driver.find_elements(By.CSS_SELECTOR, "#messages :is(script, img, h1, b)") == []
    assert page.texts("#conversations .last") == [HOSTILE[-1]]
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.assert_no_errors()


def test_addresses_become_links(open_page: OpenPage) -> None:
    page = open_page()
    for text, links in [
        ("no link: example.org, ftp://example.org, javascript:alert(1)", []),
        ("HTTPS://example.org/a?b=c&d#e!", ["HTTPS://example.org/a?b=c&d#e"]),
        ("(see http://a.b/c_(d)), or <http://e>.", ["http://a.b/c_(d)", "http://e"]),
        ("“https://example.org/ü”…", ["https://example.org/ü"]),
        ("http:// https://: xhttp://example.org", []),
    ]:
        found, whole, attributes = page.run(LINKIFY, text)
        assert (found, whole) == (links, text)
        assert attributes == [["_blank", "noopener noreferrer"]] * len(links)


def test_an_address_of_brackets_does_not_stop_the_page(open_page: OpenPage) -> None:
    # It took several seconds when each was counted again for the next one.
    page = open_page()
    assert page.run(LINKIFY_SECONDS, "http://a.b/" + ")" * 16_000) < 0.5


def test_hostile_names_stay_text(create_account: CreateAccount, open_page: OpenPage) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    bob.send(ann, "hello")
    page = open_page(ann)
    # The service has no such names, but the page must not depend on that.
    name = "<img src=x onerror=alert(1)>\u202e"
    script = page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": RENAME % json.dumps(name)}
    )
    page.driver.refresh()
    page.until(lambda: page.conversations == [name], "the name is not shown")
    page.devtools("Page.removeScriptToEvaluateOnNewDocument", script)
    assert page.driver.find_elements(By.CSS_SELECTOR, "#conversations :is(img, b)") == []
    page.type("#search", "<i>nobody</i>" + Keys.ENTER)
    page.until(
        lambda: page.find("#search-error").text == "There is no user named “<i>nobody</i>”.",
        "no error for an unknown name",
    )


def test_the_content_security_policy_is_enforced(open_page: OpenPage) -> None:
    page = open_page()
    for attempt in [
        "document.body.innerHTML = '<p>taken</p>'",
        "document.head.insertAdjacentHTML('beforeend', '<p>taken</p>')",
        "document.head.append(Object.assign(document.createElement('script'), {src: '/x.js'}))",
    ]:
        refused = page.run(f"try {{ {attempt}; return false }} catch {{ return true }}")
        assert refused, attempt
    page.run(
        "const s = document.createElement('script'); s.append('window.taken = 1');"
        "document.head.append(s)"
    )
    assert page.run("return window.taken") is None
    page.run(
        "const s = document.createElement('style'); s.textContent = 'body { color: red }';"
        "document.head.append(s)"
    )
    assert page.run("return getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
    assert page.run("return fetch('http://127.0.0.1:9/').then(() => true, () => false)") is False
    third_party = page.run(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        ".filter((name) => !name.startsWith(location.origin))"
    )
    assert set(third_party) <= {"http://127.0.0.1:9/"}
