"""The messages of a conversation: their order in simulated histories, and what was changed."""

from tests.browser.conftest import CreateAccount, OpenPage
from tests.browser.pages import PICTURE

_SIMULATION = r"""
const [done] = arguments;
(async () => {
  const { MessageHistory } = await import("/web/message_history.js");
  const { messageKey } = await import("/web/messages.js");
  for (let seed = 1; seed <= 500; seed += 1) {
    const problems = simulate(seed);
    if (problems.length) return [seed, ...problems];
  }
  return [];

  function simulate(seed) {
    let state = seed;
    const random = (below) => (state = (state * 48271) % 2147483647) % below;
    const ME = 1, PEER = 2, PAGE = 4;

    const stored = []; // in the order of the service
    const seqs = { [ME]: 0, [PEER]: 0 };
    let time = 0;
    const arriving = []; // committed, not yet delivered by the poll
    const history = new MessageHistory();

    function commit(from) {
      const to = from === ME ? PEER : ME;
      time += random(3) === 0 ? 1 : 0;
      const sent_at = `2026-01-01T00:${String(Math.floor(time / 60)).padStart(2, "0")}:` +
        `${String(time % 60).padStart(2, "0")}Z`;
      const message = { received_by: to, sent_by: from, seq: (seqs[to] += 1), sent_at };
      stored.push(message);
      return message;
    }
    function page(before) {
      const end = before === null ? stored.length : before;
      const start = Math.max(0, end - PAGE);
      return [stored.slice(start, end), start === 0 ? null : start];
    }
    function refresh() { history.mergeNewest(...page(null)); }
    function loadOlder() { if (history.older !== null) history.mergeOlder(...page(history.older)); }
    function deliver() { while (arriving.length) history.add(arriving.shift()); }

    const steps = [
      () => arriving.push(commit(PEER)),
      () => history.add(commit(ME)),
      () => commit(ME), // from another device
      deliver, deliver, refresh, loadOlder,
    ];
    const problems = [];
    for (let step = 0; step < 60; step += 1) {
      steps[random(steps.length)]();
      const keys = history.messages.map(messageKey);
      if (new Set(keys).size !== keys.length) problems.push(`twice: ${keys}`);
      for (const inbox of [ME, PEER]) {
        const shown = history.messages.filter((each) => each.received_by === inbox);
        if (shown.some((each, index) => index && each.seq < shown[index - 1].seq)) {
          problems.push(`out of order: ${keys}`);
        }
      }
      const times = history.messages.map((each) => each.sent_at);
      if (times.some((each, index) => index && each < times[index - 1])) problems.push(`${times}`);
    }
    deliver();
    refresh();
    while (history.older !== null) loadOlder();
    const [shown, all] = [history.messages, stored].map((each) => each.map(messageKey).join(" "));
    if (shown !== all) problems.push(`${shown} instead of ${all}`);
    return problems;
  }
})().then(done, (error) => done([String(error)]));
"""


def test_any_history_is_shown_in_the_order_of_the_service(open_page: OpenPage) -> None:
    page = open_page(path=PICTURE)
    assert page.driver.execute_async_script(_SIMULATION) == []


def test_edited_and_deleted_messages_are_marked(
    create_account: CreateAccount, open_page: OpenPage
) -> None:
    ann, bob = create_account("ann"), create_account("bob")
    bob.send(ann, "frist", "a secret", "third")
    bob.edit(ann, 1, "first")
    bob.delete(ann, 2)
    page = open_page(ann)
    page.open_conversation(bob)
    page.wait_for_messages(["first", "This message was deleted.", "third"])
    assert page.find("#messages .edited .details").text.startswith("edited")
    bob.delete(ann, 3)
    page.driver.refresh()
    page.wait_for_messages(["first"] + 2 * ["This message was deleted."])
    assert page.texts("#conversations .last") == ["This message was deleted."]
