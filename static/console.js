/*
 * Makes the console livelier; every page works without it. Pages ask with attributes:
 *
 *   data-needs-js, data-no-js       shown with, without, this script
 *   time[data-relative|-countdown]  "3 min ago"; "23 h 59 min", then "ended"
 *   data-focus, data-announce="…"   is focused, is read out, when it comes into the page
 *   dialog[data-modal]              opens; "locked": only its own links close it; a[data-cancel] closes others
 *   data-reveal > data-secret       veiled, with its copies in <code>, and wiped when the page is left
 *   data-show|copy|download="id"    buttons for the element of that id; data-file names the download
 *   input[data-saved], a[data-done] the tick that frees the link; the link takes this page's place in the history
 *   data-first-use="url"            event stream: turns green at `used`
 *   data-tail="url" data-after="seq" data-rows="id"  event stream of rows, with [data-tail-toggle|-status]
 *   data-search, data-palette       where "/" goes; opens the palette, as Ctrl-K does
 *   form[data-bulk]                 with [data-all], [data-bulk-bar], [data-bulk-count]
 *   form[data-once|-autosubmit]     is sent once; is sent at once
 *   form[data-confirm-name="…"]     its button waits for this name in `confirm`
 *   data-passkey="register|login" data-options="url"  button that fills `credential` and sends its form
 *   data-confirm="url"              where such a button leads when the options ask for a recent proof
 *   details[data-drop|-menu]        closes on Escape; data-drop also on a click elsewhere
 */
'use strict';
(() => {
const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const label = (element) => element.querySelector('[data-label]') ?? element;
const tell = (element, text) => {
  if (element && element.textContent !== text) element.textContent = text;
};

// Text becomes elements in two places, in htmx and in the live view, and only text that this server rendered does.
const markup = { createHTML: (text) => text };
const policy = window.trustedTypes?.createPolicy('aims', markup) ?? markup;
function refuse() {
  throw new Error('Pages hold no programs');
}
window.htmx?.registerExtension('aims', { init: (api) => api.initSecurity(policy, refuse, refuse) });

root.dataset.js = '';
if (window.PublicKeyCredential) root.dataset.passkeys = '';

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function announce(text) {
  tell(byId('announcer'), '');
  // The same words are read again only when the region was empty in between.
  setTimeout(() => tell(byId('announcer'), text), 50);
}

function warn(text) {
  const toasts = document.querySelector('.toasts') ?? make('div', { class: 'toasts', role: 'alert' });
  const toast = make('div', { class: 'notice notice--bad' }, make('p', {}, text));
  // Above an open dialog nothing shows that is not in it.
  (document.querySelector('dialog:modal') ?? document.body).append(toasts);
  toasts.append(toast);
  setTimeout(() => toast.remove(), 10_000);
}

/* ---- time ---- */

const UNITS = [[2_700, 60, 'min'], [79_200, 3_600, 'h'], [3_888_000, 86_400, 'day'], [31_536_000, 2_592_000, 'month'], [Infinity, 31_536_000, 'year']];
const counted = (count, unit) => `${count} ${unit}${count > 1 && unit.length > 2 && unit !== 'min' ? 's' : ''}`;

// The server's own words, so that nothing jumps when the script takes over.
function relative(then) {
  const seconds = Math.floor((then - Date.now()) / 1_000);
  const distance = Math.abs(seconds);
  if (distance < 45) return seconds > 0 ? 'in a moment' : 'just now';
  const [, length, unit] = UNITS.find(([below]) => distance < below);
  const text = counted(Math.floor((distance + length / 2) / length), unit);
  return seconds > 0 ? `in ${text}` : `${text} ago`;
}

function remaining(then) {
  const seconds = Math.ceil((then - Date.now()) / 1_000);
  const parts = [[seconds / 86_400, 'day'], [(seconds / 3_600) % 24, 'h'], [(seconds / 60) % 60, 'min'], [seconds % 60, 's']];
  const first = parts.findIndex(([count]) => count >= 1);
  if (first < 0 || seconds <= 0) return null;
  return parts.slice(first, first + 2).map(([count, unit]) => counted(Math.floor(count), unit)).join(' ');
}

function refresh() {
  for (const time of all('time[data-relative]')) tell(time, relative(Date.parse(time.dateTime)));
}
function count() {
  for (const time of all('time[data-countdown]')) tell(time, remaining(Date.parse(time.dateTime)) ?? 'ended');
}
setInterval(refresh, 30_000);
setInterval(count, 1_000);

/* ---- dialogs and secrets ---- */

function openModal(dialog) {
  const locked = dialog.dataset.modal === 'locked';
  dialog.setAttribute('closedby', locked ? 'none' : 'any');
  dialog.removeAttribute('open');
  dialog.showModal();
  if (locked) {
    dialog.addEventListener('cancel', (event) => event.preventDefault());
    // Browsers let a second Escape through, whatever became of the first one's event.
    dialog.addEventListener('close', () => dialog.isConnected && dialog.showModal());
  } else dialog.addEventListener('close', () => dialog.remove());
  dialog.querySelector('[data-focus], [autofocus]')?.focus();
}
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && document.querySelector('dialog[data-modal="locked"]:modal')) event.preventDefault();
}, true);

const secrets = () => all('[data-secret]');
const read = (element) => (element.value ?? (all('li', element).map((item) => item.textContent).join('\n') || element.textContent)).trim();

function veil(reveal) {
  for (const secret of all('[data-secret]', reveal)) {
    secret.dataset.masked = '';
    for (const code of all('code', reveal)) {
      const parts = code.textContent.split(read(secret));
      code.replaceChildren(...parts.flatMap((part, place) => (place ? [make('span', { 'data-masked': '' }, read(secret)), part] : [part])));
    }
  }
}

function show(button) {
  const shown = button.getAttribute('aria-pressed') !== 'true';
  button.setAttribute('aria-pressed', shown);
  for (const veiled of all('[data-secret], code span', button.closest('[data-reveal]'))) veiled.toggleAttribute('data-masked', !shown);
}

function wipe() {
  for (const secret of secrets()) {
    all('code', secret.closest('[data-reveal]') ?? secret).forEach((code) => tell(code, ''));
    if ('value' in secret) secret.value = '';
    secret.removeAttribute('value');
    tell(secret, '');
  }
}

// Neither the page that the browser keeps for Back, nor the one it then shows, may hold a secret.
let wiped = false;
addEventListener('pagehide', () => {
  wiped = secrets().length > 0;
  wipe();
});
addEventListener('pageshow', (event) => {
  if (!event.persisted || !wiped) return;
  const done = document.querySelector('a[data-done]');
  // To reload the answer to a form would be to send the form again.
  if (done) location.replace(done.href);
  else location.reload();
});

// `navigator.clipboard` is there on secure addresses only.
async function toClipboard(text) {
  if (await navigator.clipboard?.writeText(text).then(() => true, () => false)) return true;
  const focused = document.activeElement;
  const field = make('textarea', { class: 'sr-only' }, text);
  // Nothing outside of an open dialog can be selected.
  focused.after(field);
  field.select();
  const copied = document.execCommand('copy');
  field.remove();
  focused.focus();
  return copied;
}

async function copy(button) {
  if (!(await toClipboard(read(byId(button.dataset.copy))))) return warn('The browser does not let the page copy. Select the text and copy it.');
  announce('Copied');
  const name = [...button.childNodes].find((node) => node.data?.trim() === 'Copy');
  if (!name) return;
  name.data = 'Copied';
  setTimeout(() => { name.data = 'Copy'; }, 2_000);
}

function download(button) {
  const href = URL.createObjectURL(new Blob([`AIMS_API_KEY=${read(byId(button.dataset.download))}\n`]));
  make('a', { href, download: button.dataset.file ?? '.env' }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1_000);
  announce('Downloaded');
}

function free(link) {
  const tick = link.closest('[data-reveal]')?.querySelector('[data-saved]');
  link.setAttribute('aria-disabled', Boolean(tick && !tick.checked));
}

function done(link) {
  if (link.getAttribute('aria-disabled') === 'true') return;
  wipe();
  link.closest('[data-reveal]')?.remove();
  location.replace(link.href);
}

/* ---- what happens elsewhere ---- */

function awaitFirstUse(line) {
  const stream = new EventSource(line.dataset.firstUse);
  // An open connection would keep the page from being kept for Back.
  addEventListener('pagehide', () => stream.close());
  stream.addEventListener('used', () => {
    stream.close();
    line.dataset.used = '';
    tell(label(line), 'First token exchange arrived');
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

  function set(on, text) {
    toggle.setAttribute('aria-pressed', on);
    tell(label(toggle), on ? 'Pause' : name);
    tell(status, text);
  }
  function add({ data }) {
    const template = make('template');
    template.innerHTML = policy.createHTML(data);
    const row = template.content.querySelector('tr');
    if (!(Number(row?.dataset.seq) > last)) return;
    last = Number(row.dataset.seq);
    row.classList.add('fresh');
    rows.prepend(row);
    // A page that is left open for days must not grow for days.
    rows.children[200]?.remove();
    document.querySelector('main > .empty')?.remove();
    added += 1;
    refresh();
  }
  // A sentence now and then: a busy log would drown whoever listens.
  setInterval(() => {
    if (stream?.readyState === EventSource.OPEN) tell(status, added ? `Live: ${added} new` : 'Live');
  }, 2_000);

  function begin() {
    const url = new URL(tail.dataset.tail, location.href);
    url.searchParams.set('after', last);
    stream = new EventSource(url);
    stream.onmessage = add;
    stream.onerror = () => {
      if (stream.readyState === EventSource.CLOSED) end('Ended. Reload the page to follow again.');
      else tell(status, 'Connecting again…');
    };
    set(true, 'Connecting…');
  }
  function end(text) {
    stream?.close();
    stream = null;
    set(false, text);
  }
  toggle.addEventListener('click', () => (stream ? end('Paused') : begin()));
  addEventListener('pagehide', () => end('Paused'));
}

/* ---- forms ---- */

function countTicks(form) {
  const ticks = all('input[name="id"]', form);
  const ticked = ticks.filter((tick) => tick.checked).length;
  const matching = form.querySelector('input[name="all"]')?.checked;
  const [page, bar] = ['[data-all]', '[data-bulk-bar]'].map((selector) => form.querySelector(selector));
  if (!page || !bar) return;
  page.checked = ticked > 0 && ticked === ticks.length;
  page.indeterminate = ticked > 0 && !page.checked;
  bar.hidden = !ticked && !matching;
  tell(form.querySelector('[data-bulk-count]'), matching ? 'All that match' : `${ticked} selected`);
}

function awaitName(form) {
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
  // Whoever stopped the page from loading may try again.
  setTimeout(() => { form.ariaBusy = null; }, 8_000);
});
addEventListener('pageshow', () => {
  for (const form of all('form')) form.ariaBusy = null;
  // Browsers bring back what was ticked, after the page was first counted.
  all('form[data-bulk]').forEach(countTicks);
});

/* ---- passkeys ---- */

const toBytes = (text) => Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (char) => char.charCodeAt(0));
const toText = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');

// For browsers that do not read and write the JSON of WebAuthn level 3 themselves.
function readOptions({ challenge, user, ...rest }) {
  const withBytes = (one) => ({ ...one, id: toBytes(one.id) });
  for (const list of ['excludeCredentials', 'allowCredentials']) if (rest[list]) rest[list] = rest[list].map(withBytes);
  return { ...rest, challenge: toBytes(challenge), ...(user && { user: withBytes(user) }) };
}
function writeCredential({ id, rawId, type, response }) {
  const members = ['clientDataJSON', 'attestationObject', 'authenticatorData', 'signature', 'userHandle'];
  const given = members.flatMap((name) => (response[name] ? [[name, toText(response[name])]] : []));
  return { id, rawId: toText(rawId), type, response: Object.fromEntries(given), clientExtensionResults: {} };
}

const REFUSALS = {
  400: 'There is no passkey for you here. Choose another way.',
  429: 'Too many tries. Wait a minute, then try again.',
  NotAllowedError: 'No passkey was used. Try again, or choose another way.',
  InvalidStateError: 'This device has a passkey for your account already.',
};

async function usePasskey(button) {
  const { form, dataset: { passkey, options, confirm } } = button;
  // Before the device makes a passkey that nobody would know of.
  if (!form.reportValidity()) return;
  button.disabled = true;
  try {
    const body = new URLSearchParams(new FormData(form));
    const answer = await fetch(options, { method: 'POST', body, headers: { Accept: 'application/json' }, redirect: 'error' });
    if (answer.status === 401 && confirm) return location.assign(confirm);
    if (!answer.ok) throw { name: answer.status };
    const { publicKey: json } = await answer.json();
    const [parse, use] = passkey === 'register' ? ['parseCreationOptionsFromJSON', 'create'] : ['parseRequestOptionsFromJSON', 'get'];
    const publicKey = PublicKeyCredential[parse]?.(json) ?? readOptions(json);
    const credential = await navigator.credentials[use]({ publicKey });
    form.elements.credential.value = JSON.stringify(credential.toJSON?.() ?? writeCredential(credential));
    form.requestSubmit();
  } catch (error) {
    const text = REFUSALS[error.name] ?? 'The passkey could not be used. Reload the page and try again.';
    tell(form.querySelector('[data-passkey-error]'), text);
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
    placeholder: 'Go to a page, an agent, an act…', 'aria-label': 'Go to', role: 'combobox',
    'aria-expanded': true, 'aria-autocomplete': 'list', 'aria-controls': 'palette-found',
    'hx-get': '/console/palette', 'hx-trigger': 'input changed delay:100ms, palette', 'hx-target': '#palette-found', 'hx-sync': 'this:replace',
  });
  // Whatever scrolls can be scrolled with keys.
  const found = make('div', { class: 'palette__found', id: 'palette-found', role: 'group', 'aria-label': 'Found', tabindex: 0 });
  const dialog = make('dialog', { class: 'palette', 'aria-label': 'Go to', closedby: 'any' }, input, found);
  document.body.append(dialog);
  window.htmx?.process(dialog);
  dialog.addEventListener('htmx:after:swap', () => choose(0));
  input.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === 'Enter') options()[chosen()]?.click();
    else if (step) choose(chosen() + step);
    else return;
    event.preventDefault();
  });
  // An option is one thing to choose, and holds no link of its own.
  found.addEventListener('click', ({ target }) => {
    const href = target.closest('[role="option"]')?.dataset.href;
    if (href?.startsWith('/console')) location.assign(href);
  });
  return dialog;
}

const options = () => all('[role="option"]:not([aria-disabled="true"])', palette);
const chosen = () => options().findIndex((option) => option.ariaSelected === 'true');
function choose(place) {
  const found = options();
  const option = found.at(place % found.length);
  for (const other of found) other.ariaSelected = String(other === option);
  palette.querySelector('input').setAttribute('aria-activedescendant', option?.id ?? '');
  option?.scrollIntoView({ block: 'nearest' });
}

/* ---- the whole page ---- */

const CLICKS = [
  ['[data-copy]', copy], ['[data-download]', download], ['[data-show]', show], ['[data-passkey]', usePasskey], ['[data-palette]', openPalette],
  ['a[data-done]', done], ['dialog:modal a[data-cancel]', (link) => link.closest('dialog').close()],
];
document.addEventListener('click', (event) => {
  for (const menu of all('details[data-drop][open]')) if (!menu.contains(event.target)) menu.open = false;
  for (const [selector, act] of CLICKS) {
    const control = event.target.closest(selector);
    if (!control) continue;
    event.preventDefault();
    return act(control);
  }
});

document.addEventListener('change', ({ target }) => {
  const form = target.closest('form[data-bulk]');
  if (target.matches('[data-all]')) for (const tick of all('input[name="id"]', form)) tick.checked = target.checked;
  if (form) countTicks(form);
  if (target.matches('[data-saved]')) all('a[data-done]', target.closest('[data-reveal]')).forEach(free);
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

// A URL names what is set, and nothing else.
document.addEventListener('htmx:config:request', ({ detail: { ctx: { request } } }) => {
  if (request.method !== 'GET') return;
  for (const name of new Set(request.body.keys())) if (request.body.getAll(name).every((value) => !value)) request.body.delete(name);
});
document.addEventListener('htmx:error', () => warn('AIMS does not answer. Check the connection, then try again.'));
document.addEventListener('htmx:after:swap', ({ detail: { ctx: { target } } }) => {
  const region = target?.isConnected ? target : byId(target?.id);
  if (!region || region.closest('.palette')) return;
  begin(region);
  const said = region.closest('[data-announce]') ?? region.querySelector('[data-announce]');
  if (said) announce(said.dataset.announce);
  const place = region.querySelector('[data-focus], h1, h2, h3');
  if (!place || document.activeElement !== document.body) return;
  if (place.tabIndex < 0) place.tabIndex = -1;
  place.focus();
});

function begin(within) {
  all('[data-reveal]', within).forEach(veil);
  all('a[data-done]', within).forEach(free);
  all('dialog[data-modal]:not(:modal)', within).forEach(openModal);
  all('[data-first-use]', within).forEach(awaitFirstUse);
  all('[data-tail]', within).forEach(followTail);
  all('form[data-bulk]', within).forEach(countTicks);
  all('form[data-confirm-name]', within).forEach(awaitName);
  refresh();
  count();
}
begin(document);
all('main [data-focus]').find((place) => !place.closest('dialog'))?.focus();

// To come Back to a form that was sent must not send it again.
const [arrival] = performance.getEntriesByType('navigation');
if (arrival?.type !== 'back_forward') document.querySelector('form[data-autosubmit]')?.requestSubmit();
})();
