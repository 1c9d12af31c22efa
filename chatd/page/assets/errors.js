// Errors of the service in words for the people who use the page.

import { NetworkError } from "./api.js";

const BUSY = "The server is busy. Try again in a moment.";
const UNSUPPORTED = "This server does not offer that.";

const TEXTS = {
  blocked: "This person does not accept messages from you.",
  body_too_large: "The message is too long. Send it in parts.",
  first_contact_closed: "On this server you can only write to people who have written to you.",
  insufficient_scope: "This session may not do that. Log out and in again.",
  message_deleted: "The message was deleted meanwhile.",
  message_not_found: "The message does not exist any more.",
  message_too_large: "The message is too long. Send it in parts.",
  method_not_allowed: UNSUPPORTED,
  not_found: UNSUPPORTED,
  not_the_sender: "Only your own messages can be changed.",
  overloaded: BUSY,
  registration_closed: "Accounts on this server are created by its operator. Ask there for one.",
  store_unavailable: BUSY,
  token_not_found: "That session has ended already.",
  too_late: "The message is too old to be changed.",
  too_many_blocks: "You have blocked too many people. Unblock somebody first.",
  unauthorized: "Username or password are not right.",
  user_not_found: "This account does not exist any more.",
  username_taken: "This username is taken. Choose another one.",
  wrong_password: "The current password is not right.",
};

/** The text of an error, for the user. */
export function describeError(error) {
  if (error instanceof NetworkError) return "The server cannot be reached right now.";
  if (error.code === "rate_limited") return `Too many attempts. Wait ${duration(error.retryAfter)}.`;
  if (error.code === "invalid_body") return describeInvalid(error.message);
  if (Object.hasOwn(TEXTS, error.code ?? "")) return TEXTS[error.code];
  return error.status >= 500
    ? "Something went wrong on the server. Try again later."
    : "The server has not accepted this.";
}

/** Which of a form's fields was refused: the details of these errors begin with its name. */
function describeInvalid(detail) {
  const [, field, shortest] = /^(?:body\.)?(\w+): (?:(\d+) to)?/.exec(detail) ?? [];
  if (field === "password") {
    const needed = `The password needs at least ${shortest} characters.`;
    return shortest ? needed : "Choose another password.";
  }
  if (field === "email") return "This is not an email address.";
  if (field === "username") return "Usernames have up to 32 letters, digits, dots, dashes and underscores.";
  return "The server has not accepted this text.";
}

function duration(seconds) {
  if (seconds <= 1) return "a moment";
  return seconds < 90 ? `${Math.ceil(seconds)} seconds` : `${Math.ceil(seconds / 60)} minutes`;
}
