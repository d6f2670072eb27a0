/*
 * Progressive enhancement for the console. Every page works without it. The build joins these files, core.js first and
 * page.js last, into one script with one scope. Pages opt in through attributes, which each file lists.
 *
 *   data-needs-js                   hidden unless this script runs
 *   data-focus, data-announce="…"   gets the focus, is announced to screen readers, when it appears
 */
const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const label = (element) => element.querySelector('[data-label]') ?? element;
const setText = (element, text) => {
  if (element && element.textContent !== text) element.textContent = text;
};

// Each file registers what it does to elements as they appear, and to clicks: pairs of a selector and a function.
const enhancements = [];
const clicks = [];

// Only htmx and the live view turn text into elements, and only text that this server rendered.
const markup = { createHTML: (text) => text };
const policy = window.trustedTypes?.createPolicy('aims', markup) ?? markup;
function rejectScript() {
  throw new Error('Evaluating scripts is not allowed');
}
window.htmx?.registerExtension('aims', { init: (api) => api.initSecurity(policy, rejectScript, rejectScript) });

root.dataset.js = '';
if (window.PublicKeyCredential) root.dataset.passkeys = '';

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function announce(text) {
  setText(byId('announcer'), '');
  // Screen readers repeat a message only if the region was empty in between.
  setTimeout(() => setText(byId('announcer'), text), 50);
}
