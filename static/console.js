/*
 * Progressive enhancement for the console. Every page works without it. Pages opt in through attributes:
 *
 *   data-needs-js                   hidden unless this script runs
 *   time[data-relative|-countdown]  shows "3 min ago", or "23 h 59 min" and then "expired"
 *   data-focus, data-announce="…"   gets the focus, is announced to screen readers, when it appears
 *   dialog[data-modal]              opens as a modal dialog that only its own links close
 *   data-reveal > data-secret       masked, also inside <code>, and erased when the page is left
 *   data-show|copy|download="id"    button for the element with that ID; data-file is the name of the download
 *   input[data-saved], a[data-done] checkbox that enables the link; the link replaces this page in the history
 *   data-first-use="url"            event stream; the line turns green on the event `used`
 *   data-tail="url" data-after="seq" data-rows="id"  event stream of table rows, with [data-tail-toggle|-status]
 *   data-search                     field that "/" focuses
 *   data-palette                    button that opens the command palette, as Ctrl-K does
 *   form[data-bulk]                 with [data-all], [data-bulk-bar], [data-bulk-count]
 *   form[data-once|-autosubmit]     can be submitted only once; is submitted on load
 *   form[data-confirm-name="…"]     keeps its button disabled until `confirm` holds this name
 *   data-passkey="register|login" data-options="url"  button that fills `credential` and submits its form
 *   data-confirm="url"              page to open if the options require a recent proof of identity
 *   details[data-drop|-menu]        closes on Escape; data-drop also closes on a click elsewhere
 */
'use strict';
(() => {
const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const label = (element) => element.querySelector('[data-label]') ?? element;
const setText = (element, text) => {
  if (element && element.textContent !== text) element.textContent = text;
};

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

function showError(text) {
  const toasts = document.querySelector('.toasts') ?? make('div', { class: 'toasts', role: 'alert' });
  const toast = make('div', { class: 'notice notice--bad' }, make('p', {}, text));
  // Nothing outside of a modal dialog is visible above it.
  (document.querySelector('dialog:modal') ?? document.body).append(toasts);
  toasts.append(toast);
  setTimeout(() => toast.remove(), 10_000);
}

/* ---- time ---- */

const UNITS = [[2_700, 60, 'min'], [79_200, 3_600, 'h'], [3_888_000, 86_400, 'day'], [31_536_000, 2_592_000, 'month'], [Infinity, 31_536_000, 'year']];
const quantity = (count, unit) => `${count} ${unit}${count > 1 && unit.length > 2 && unit !== 'min' ? 's' : ''}`;

// The same format as on the server, so that the text does not change when this script runs.
function relative(then) {
  const seconds = Math.floor((then - Date.now()) / 1_000);
  const distance = Math.abs(seconds);
  if (distance < 45) return seconds > 0 ? 'in a moment' : 'just now';
  const [, length, unit] = UNITS.find(([below]) => distance < below);
  const text = quantity(Math.floor((distance + length / 2) / length), unit);
  return seconds > 0 ? `in ${text}` : `${text} ago`;
}

function remaining(then) {
  const seconds = Math.ceil((then - Date.now()) / 1_000);
  const parts = [[seconds / 86_400, 'day'], [(seconds / 3_600) % 24, 'h'], [(seconds / 60) % 60, 'min'], [seconds % 60, 's']];
  const first = parts.findIndex(([count]) => count >= 1);
  if (first < 0 || seconds <= 0) return null;
  return parts.slice(first, first + 2).map(([count, unit]) => quantity(Math.floor(count), unit)).join(' ');
}

function updateRelativeTimes() {
  for (const time of all('time[data-relative]')) setText(time, relative(Date.parse(time.dateTime)));
}
function updateCountdowns() {
  for (const time of all('time[data-countdown]')) setText(time, remaining(Date.parse(time.dateTime)) ?? 'expired');
}
setInterval(updateRelativeTimes, 30_000);
setInterval(updateCountdowns, 1_000);

/* ---- dialogs and secrets ---- */

function openModal(dialog) {
  dialog.removeAttribute('open');
  dialog.showModal();
  dialog.addEventListener('cancel', (event) => event.preventDefault());
  // Browsers close the dialog on a second Escape, even if the first event was cancelled.
  dialog.addEventListener('close', () => dialog.isConnected && dialog.showModal());
  dialog.querySelector('[data-focus]')?.focus();
}
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && document.querySelector('dialog[data-modal]:modal')) event.preventDefault();
}, true);

const secrets = () => all('[data-secret]');
const contentOf = (element) => (element.value ?? (all('li', element).map((item) => item.textContent).join('\n') || element.textContent)).trim();

function maskSecrets(reveal) {
  for (const secret of all('[data-secret]', reveal)) {
    secret.dataset.masked = '';
    for (const code of all('code', reveal)) {
      const parts = code.textContent.split(contentOf(secret));
      code.replaceChildren(...parts.flatMap((part, place) => (place ? [make('span', { 'data-masked': '' }, contentOf(secret)), part] : [part])));
    }
  }
}

function toggleSecrets(button) {
  const shown = button.getAttribute('aria-pressed') !== 'true';
  button.setAttribute('aria-pressed', shown);
  for (const masked of all('[data-secret], code span', button.closest('[data-reveal]'))) masked.toggleAttribute('data-masked', !shown);
}

function eraseSecrets() {
  for (const secret of secrets()) {
    all('code', secret.closest('[data-reveal]') ?? secret).forEach((code) => setText(code, ''));
    if ('value' in secret) secret.value = '';
    secret.removeAttribute('value');
    setText(secret, '');
  }
}

// The back-forward cache must not keep a page that contains a secret.
let erased = false;
addEventListener('pagehide', () => {
  erased = secrets().length > 0;
  eraseSecrets();
});
addEventListener('pageshow', (event) => {
  if (!event.persisted || !erased) return;
  const done = document.querySelector('a[data-done]');
  // Reloading the response to a form would submit the form again.
  if (done) location.replace(done.href);
  else location.reload();
});

// `navigator.clipboard` exists only in secure contexts.
async function toClipboard(text) {
  if (await navigator.clipboard?.writeText(text).then(() => true, () => false)) return true;
  const focused = document.activeElement;
  const field = make('textarea', { class: 'sr-only' }, text);
  // Text outside of a modal dialog cannot be selected.
  focused.after(field);
  field.select();
  const copied = document.execCommand('copy');
  field.remove();
  focused.focus();
  return copied;
}

async function copy(button) {
  if (!(await toClipboard(contentOf(byId(button.dataset.copy))))) return showError('Your browser blocked copying. Select the text and copy it yourself.');
  announce('Copied');
  const name = [...button.childNodes].find((node) => node.data?.trim() === 'Copy');
  if (!name) return;
  name.data = 'Copied';
  setTimeout(() => { name.data = 'Copy'; }, 2_000);
}

function download(button) {
  const href = URL.createObjectURL(new Blob([`AIMS_API_KEY=${contentOf(byId(button.dataset.download))}\n`]));
  make('a', { href, download: button.dataset.file ?? '.env' }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1_000);
  announce('Downloaded');
}

function updateDoneLink(link) {
  const saved = link.closest('[data-reveal]')?.querySelector('[data-saved]');
  link.setAttribute('aria-disabled', Boolean(saved && !saved.checked));
}

function finish(link) {
  if (link.getAttribute('aria-disabled') === 'true') return;
  eraseSecrets();
  link.closest('[data-reveal]')?.remove();
  location.replace(link.href);
}

/* ---- event streams ---- */

function watchFirstUse(line) {
  const stream = new EventSource(line.dataset.firstUse);
  // An open connection would keep the page out of the back-forward cache.
  addEventListener('pagehide', () => stream.close());
  stream.addEventListener('used', () => {
    stream.close();
    line.dataset.used = '';
    setText(label(line), 'First token exchange received');
  });
}

function followTail(tail) {
  const rows = byId(tail.dataset.rows);
  const toggle = tail.querySelector('[data-tail-toggle]');
  const status = tail.querySelector('[data-tail-status]');
  const name = label(toggle).textContent;
  let last = Number(tail.dataset.after);
  let added = 0;
  let stream = null;

  function setState(on, text) {
    toggle.setAttribute('aria-pressed', on);
    setText(label(toggle), on ? 'Pause' : name);
    setText(status, text);
  }
  function add({ data }) {
    const template = make('template');
    template.innerHTML = policy.createHTML(data);
    const row = template.content.querySelector('tr');
    if (!(Number(row?.dataset.seq) > last)) return;
    last = Number(row.dataset.seq);
    row.classList.add('fresh');
    rows.prepend(row);
    // Limits the size of a page that stays open for days.
    rows.children[200]?.remove();
    document.querySelector('main > .empty')?.remove();
    added += 1;
    updateRelativeTimes();
  }
  // Updated at an interval, so that a busy log does not flood screen readers.
  setInterval(() => {
    if (stream?.readyState === EventSource.OPEN) setText(status, added ? `Live, ${added} new` : 'Live');
  }, 2_000);

  function start() {
    const url = new URL(tail.dataset.tail, location.href);
    url.searchParams.set('after', last);
    stream = new EventSource(url);
    stream.onmessage = add;
    stream.onerror = () => {
      if (stream.readyState === EventSource.CLOSED) stop('Disconnected. Reload the page to follow again.');
      else setText(status, 'Reconnecting…');
    };
    setState(true, 'Connecting…');
  }
  function stop(text) {
    stream?.close();
    stream = null;
    setState(false, text);
  }
  toggle.addEventListener('click', () => (stream ? stop('Paused') : start()));
  addEventListener('pagehide', () => stop('Paused'));
}

/* ---- forms ---- */

function updateSelection(form) {
  const boxes = all('input[name="id"]', form);
  const selected = boxes.filter((box) => box.checked).length;
  const matching = form.querySelector('input[name="all"]')?.checked;
  const [page, bar] = ['[data-all]', '[data-bulk-bar]'].map((selector) => form.querySelector(selector));
  if (!page || !bar) return;
  page.checked = selected > 0 && selected === boxes.length;
  page.indeterminate = selected > 0 && !page.checked;
  bar.hidden = !selected && !matching;
  setText(form.querySelector('[data-bulk-count]'), matching ? 'All matching agents' : `${selected} selected`);
}

function requireName(form) {
  const typed = form.elements.confirm;
  const check = () => { form.querySelector('button').disabled = typed.value.trim() !== form.dataset.confirmName; };
  typed.addEventListener('input', check);
  check();
}

document.addEventListener('submit', (event) => {
  const form = event.target;
  if (!form.matches('[data-once]')) return;
  if (form.ariaBusy === 'true') return event.preventDefault();
  form.ariaBusy = 'true';
  // Allows another attempt if the user stopped the page from loading.
  setTimeout(() => { form.ariaBusy = null; }, 8_000);
});
addEventListener('pageshow', () => {
  for (const form of all('form')) form.ariaBusy = null;
  // Browsers restore checkboxes after this script has run.
  all('form[data-bulk]').forEach(updateSelection);
});

/* ---- passkeys ---- */

const toBytes = (text) => Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (char) => char.charCodeAt(0));
const toText = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');

// For browsers without the JSON methods of WebAuthn Level 3.
function readOptions({ challenge, user, ...rest }) {
  const withBytes = (one) => ({ ...one, id: toBytes(one.id) });
  for (const list of ['excludeCredentials', 'allowCredentials']) if (rest[list]) rest[list] = rest[list].map(withBytes);
  return { ...rest, challenge: toBytes(challenge), ...(user && { user: withBytes(user) }) };
}
function writeCredential({ id, rawId, type, response }) {
  const members = ['clientDataJSON', 'attestationObject', 'authenticatorData', 'signature', 'userHandle'];
  const present = members.flatMap((name) => (response[name] ? [[name, toText(response[name])]] : []));
  return { id, rawId: toText(rawId), type, response: Object.fromEntries(present), clientExtensionResults: {} };
}

const PASSKEY_ERRORS = {
  400: 'No passkey is available for this account. Use another method.',
  429: 'Too many attempts. Wait a minute and try again.',
  NotAllowedError: 'The passkey request was cancelled or timed out. Try again, or use another method.',
  InvalidStateError: 'This device already has a passkey for your account.',
};

async function usePasskey(button) {
  const { form, dataset: { passkey, options, confirm } } = button;
  // Validates the form before the device creates a passkey.
  if (!form.reportValidity()) return;
  button.disabled = true;
  try {
    const body = new URLSearchParams(new FormData(form));
    const response = await fetch(options, { method: 'POST', body, headers: { Accept: 'application/json' }, redirect: 'error' });
    if (response.status === 401 && confirm) return location.assign(confirm);
    if (!response.ok) throw { name: response.status };
    const { publicKey: json } = await response.json();
    const [parse, use] = passkey === 'register' ? ['parseCreationOptionsFromJSON', 'create'] : ['parseRequestOptionsFromJSON', 'get'];
    const publicKey = PublicKeyCredential[parse]?.(json) ?? readOptions(json);
    const credential = await navigator.credentials[use]({ publicKey });
    form.elements.credential.value = JSON.stringify(credential.toJSON?.() ?? writeCredential(credential));
    form.requestSubmit();
  } catch (error) {
    const text = PASSKEY_ERRORS[error.name] ?? 'The passkey did not work. Reload the page and try again.';
    setText(form.querySelector('[data-passkey-error]'), text);
  } finally {
    button.disabled = false;
  }
}

/* ---- palette ---- */

let palette;
function openPalette() {
  palette ??= makePalette();
  const input = palette.querySelector('input');
  if (!palette.open) palette.showModal();
  input.select();
  input.dispatchEvent(new Event('palette'));
}

function makePalette() {
  const input = make('input', {
    name: 'q', maxlength: 128, autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false',
    placeholder: 'Search pages, agents and actions…', 'aria-label': 'Search pages, agents and actions', role: 'combobox',
    'aria-expanded': true, 'aria-autocomplete': 'list', 'aria-controls': 'palette-found',
    'hx-get': '/console/palette', 'hx-trigger': 'input changed delay:100ms, palette', 'hx-target': '#palette-found', 'hx-sync': 'this:replace',
  });
  // Scrollable regions must be reachable with the keyboard.
  const found = make('div', { class: 'palette__found', id: 'palette-found', role: 'group', 'aria-label': 'Results', tabindex: 0 });
  const dialog = make('dialog', { class: 'palette', 'aria-label': 'Command palette', closedby: 'any' }, input, found);
  document.body.append(dialog);
  window.htmx?.process(dialog);
  dialog.addEventListener('htmx:after:swap', () => select(0));
  input.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === 'Enter') options()[selectedIndex()]?.click();
    else if (step) select(selectedIndex() + step);
    else return;
    event.preventDefault();
  });
  // Options must not contain links, so the script follows `data-href`.
  found.addEventListener('click', ({ target }) => {
    const href = target.closest('[role="option"]')?.dataset.href;
    if (href?.startsWith('/console')) location.assign(href);
  });
  return dialog;
}

const options = () => all('[role="option"]:not([aria-disabled="true"])', palette);
const selectedIndex = () => options().findIndex((option) => option.ariaSelected === 'true');
function select(index) {
  const found = options();
  const option = found.at(index % found.length);
  for (const other of found) other.ariaSelected = String(other === option);
  palette.querySelector('input').setAttribute('aria-activedescendant', option?.id ?? '');
  option?.scrollIntoView({ block: 'nearest' });
}

/* ---- the whole page ---- */

const CLICKS = [
  ['[data-copy]', copy], ['[data-download]', download], ['[data-show]', toggleSecrets], ['[data-passkey]', usePasskey],
  ['[data-palette]', openPalette], ['a[data-done]', finish],
];
document.addEventListener('click', (event) => {
  for (const menu of all('details[data-drop][open]')) if (!menu.contains(event.target)) menu.open = false;
  for (const [selector, handle] of CLICKS) {
    const control = event.target.closest(selector);
    if (!control) continue;
    event.preventDefault();
    return handle(control);
  }
});

document.addEventListener('change', ({ target }) => {
  const form = target.closest('form[data-bulk]');
  if (target.matches('[data-all]')) for (const box of all('input[name="id"]', form)) box.checked = target.checked;
  if (form) updateSelection(form);
  if (target.matches('[data-saved]')) all('a[data-done]', target.closest('[data-reveal]')).forEach(updateDoneLink);
});

document.addEventListener('keydown', (event) => {
  const { key, target } = event;
  const modified = event.ctrlKey || event.metaKey || event.altKey;
  const modal = document.querySelector('dialog:modal');
  const menu = target.closest('details:is([data-drop], [data-menu])[open]');
  const search = document.querySelector('[data-search]');
  if (key === 'Escape' && menu) {
    menu.open = false;
    menu.querySelector('summary').focus();
  } else if (key.toLowerCase() === 'k' && (event.ctrlKey || event.metaKey) && (!modal || modal === palette) && document.querySelector('[data-palette]')) {
    event.preventDefault();
    openPalette();
  } else if (key === '/' && search && !modal && !modified && !target.closest('input, textarea, select')) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});

/* ---- htmx ---- */

// Omits empty parameters from the URL.
document.addEventListener('htmx:config:request', ({ detail: { ctx: { request } } }) => {
  if (request.method !== 'GET') return;
  for (const name of new Set(request.body.keys())) if (request.body.getAll(name).every((value) => !value)) request.body.delete(name);
});
document.addEventListener('htmx:error', () => showError('AIMS did not respond. Check your connection and try again.'));
document.addEventListener('htmx:after:swap', ({ detail: { ctx: { target } } }) => {
  const region = target?.isConnected ? target : byId(target?.id);
  if (!region || region.closest('.palette')) return;
  enhance(region);
  const announced = region.closest('[data-announce]') ?? region.querySelector('[data-announce]');
  if (announced) announce(announced.dataset.announce);
  const heading = region.querySelector('[data-focus], h1, h2, h3');
  if (!heading || document.activeElement !== document.body) return;
  if (heading.tabIndex < 0) heading.tabIndex = -1;
  heading.focus();
});

function enhance(within) {
  all('[data-reveal]', within).forEach(maskSecrets);
  all('a[data-done]', within).forEach(updateDoneLink);
  all('dialog[data-modal]:not(:modal)', within).forEach(openModal);
  all('[data-first-use]', within).forEach(watchFirstUse);
  all('[data-tail]', within).forEach(followTail);
  all('form[data-bulk]', within).forEach(updateSelection);
  all('form[data-confirm-name]', within).forEach(requireName);
  updateRelativeTimes();
  updateCountdowns();
}
enhance(document);
all('main [data-focus]').find((element) => !element.closest('dialog'))?.focus();

// Navigating back to a submitted form must not submit it again.
const [navigation] = performance.getEntriesByType('navigation');
if (navigation?.type !== 'back_forward') document.querySelector('form[data-autosubmit]')?.requestSubmit();
})();
