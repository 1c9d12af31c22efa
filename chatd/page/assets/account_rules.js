// What can be told of an account's data before the service is asked.

const MIN_PASSWORD_LENGTH = 5;

/** What is wrong with a username; empty if nothing is. */
export const checkUsername = (username) =>
  /^[A-Za-z0-9._-]{1,32}$/.test(username)
    ? ""
    : "Usernames have up to 32 letters, digits, dots, dashes and underscores.";

/** What is wrong with an email address; empty if nothing is. */
export const checkEmail = (email) =>
  /^[^@]+@[^@]+$/.test(email) ? "" : "This is not an email address.";

/** What is wrong with a new password that was entered twice; empty if nothing is. */
export function checkPassword(password, repeated) {
  if (password.length < MIN_PASSWORD_LENGTH) {
    return `The password needs at least ${MIN_PASSWORD_LENGTH} characters.`;
  }
  return password === repeated ? "" : "The passwords differ: enter the same one twice.";
}
