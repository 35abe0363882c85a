// Dialogs: the login, and changes, which show their SQL before anything is done.

import { el } from "./dom.js";
import { exec, login, logout, state } from "./live.js";

const dialog = () => document.getElementById("dialog");

function open(title, ...content) {
  const d = dialog();
  d.replaceChildren(el("h2", { id: "dialog-title" }, title), ...content.filter(Boolean));
  d.showModal();
  return d;
}

// confirm shows the SQL and runs it if the user says so. done is called with its result.
export function confirm(title, why, sql, done) {
  const out = el("p", { class: "answer", role: "status" });
  const go = el("button", { type: "button", class: "danger", onclick: async () => {
    go.disabled = true;
    out.className = "answer";
    out.textContent = "Running…";
    try {
      const r = await exec(sql);
      out.className = "answer ok";
      out.textContent = "Done: " + (r.tag || "OK");
      back.textContent = "Close";
      go.remove();
      if (done) done(r);
    } catch (e) {
      go.disabled = false;
      out.className = "answer bad";
      out.textContent = (e.code ? e.code + ": " : "") + e.message + (e.hint ? " " + e.hint : "");
    }
  } }, "Run it");
  const back = el("button", { type: "button", onclick: () => dialog().close() }, "Cancel");
  open(title, el("p", null, why), el("pre", { class: "sql", tabindex: "0" }, sql), out, el("div", { class: "buttons" }, back, go));
  back.focus();
}

// action is a button for admins; for others it is not there.
export function action(label, title, why, sql, done) {
  if (!state.me.admin) return null;
  return el("button", { type: "button", class: "act", onclick: () => confirm(title, why, typeof sql === "function" ? sql() : sql, done) }, label);
}

export function askLogin(after, must) {
  const out = el("p", { class: "answer", role: "status" });
  const user = el("input", { id: "login-user", autocomplete: "username", required: true }), pw = el("input", { id: "login-pw", type: "password", autocomplete: "current-password" });
  const form = el("form", { onsubmit: async (e) => {
    e.preventDefault();
    try {
      await login(user.value, pw.value);
      dialog().close();
      after();
    } catch (x) { out.className = "answer bad"; out.textContent = x.message; pw.select(); }
  } }, el("label", { for: "login-user" }, "Name"), user, el("label", { for: "login-pw" }, "Password"), pw, out,
  el("div", { class: "buttons" }, must ? null : el("button", { type: "button", onclick: () => dialog().close() }, "Cancel"), el("button", { type: "submit", class: "main" }, "Log in")));
  const d = open("Log in", el("p", null, "As one of admin_users, who may change things, or stats_users, who may look."), form);
  d.oncancel = must ? (e) => e.preventDefault() : null;
  user.focus();
}

export function askLogout(after) {
  open("Log out", el("p", null, "Logged in as " + state.me.user + (state.me.admin ? ", an admin." : ".")),
    el("div", { class: "buttons" }, el("button", { type: "button", onclick: () => dialog().close() }, "Stay"), el("button", { type: "button", class: "main", onclick: async () => { await logout(); dialog().close(); after(); } }, "Log out")));
}

export const quote = (name) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : '"' + name.replace(/"/g, '""') + '"');
