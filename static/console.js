/*
 * Makes the console livelier; every page works without it. Pages ask for things with attributes:
 *
 *   data-needs-js, data-no-js        shown only with, only without, this script
 *   time[data-relative|data-countdown]   "3 min ago"; "23 h 59 min", then data-ended or "ended"
 *   data-focus                       takes the focus when it appears; data-announce="…" is read out when swapped in
 *   dialog[data-modal]               opens; "locked": only its own controls close it; a[data-cancel] closes any other
 *   data-reveal                      holds secrets: [data-secret], and their copies in <code>, are veiled and wiped
 *   data-show|copy|download="id"     buttons for the element with that id; data-file names the download
 *   input[data-saved], a[data-done]  the tick that frees the link; the link replaces this page in the history
 *   data-first-use="url"             event stream: turns green at `used`
 *   data-tail="url" data-after="seq" data-rows="id"   event stream of table rows; [data-tail-toggle|-status] inside
 *   data-tabs                        its <details> become tabs
 *   data-search, data-palette        where "/" goes; what opens the palette (also Ctrl or Cmd K); "?" tells the keys
 *   form[data-bulk]                  [data-all] ticks the page, [data-bulk-bar] shows with a tick, [data-bulk-count]
 *   form[data-once|data-autosubmit]  is sent once; is sent at once
 *   form[data-confirm-name="…"]      its button waits until this was typed
 *   button[data-passkey="register|login"][data-options="url"]   fills input[name=credential] and sends the form
 *   details[data-drop|data-menu]     closes on Escape; data-drop also on a click elsewhere
 */
'use strict';
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // Markup becomes elements in two places, in htmx and in the live view, and only what this server rendered does.
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
    const region = byId('announcer');
    if (!region) return;
    region.textContent = '';
    // A region that says the same as before is read again only when it was empty in between.
    setTimeout(() => { region.textContent = text; }, 50);
  }

  function warn(text) {
    let toasts = document.querySelector('.toasts');
    if (!toasts) document.body.append(toasts = make('div', { class: 'toasts', role: 'alert' }));
    const toast = make('div', { class: 'notice notice--bad' }, make('p', {}, text));
    toasts.append(toast);
    setTimeout(() => toast.remove(), 10_000);
  }

  const label = (element) => element.querySelector('[data-label]') ?? element;

  /* ---- time ---- */

  // The same words as the server's, so that nothing jumps when the script takes over.
  function relative(then, now) {
    const seconds = Math.floor((then - now) / 1000);
    const distance = Math.abs(seconds);
    const of = (second, unit) => [Math.floor((distance + second / 2) / second), unit];
    if (distance < 45) return seconds > 0 ? 'in a moment' : 'just now';
    const [count, unit] =
      distance < 2_700 ? of(60, 'min')
      : distance < 79_200 ? of(3_600, 'h')
      : distance < 3_888_000 ? of(86_400, 'day')
      : distance < 31_536_000 ? of(2_592_000, 'month')
      : of(31_536_000, 'year');
    const text = `${count} ${unit}${count > 1 && !['min', 'h'].includes(unit) ? 's' : ''}`;
    return seconds > 0 ? `in ${text}` : `${text} ago`;
  }

  function remaining(then, now) {
    const seconds = Math.max(0, Math.ceil((then - now) / 1000));
    const parts = [[86_400, 'day'], [3_600, 'h'], [60, 'min'], [1, 's']];
    const first = parts.findIndex(([length]) => seconds >= length);
    const told = parts.slice(first, first + 2).map(([length, unit], place) => {
      const count = Math.floor((place ? seconds % parts[first][0] : seconds) / length);
      return `${count} ${unit}${unit === 'day' && count > 1 ? 's' : ''}`;
    });
    return first < 0 ? null : told.join(' ');
  }

  function tell(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }
  function refresh() {
    for (const time of all('time[data-relative]')) tell(time, relative(Date.parse(time.dateTime), Date.now()));
  }
  function count() {
    for (const time of all('time[data-countdown]')) {
      tell(time, remaining(Date.parse(time.dateTime), Date.now()) ?? time.dataset.ended ?? 'ended');
    }
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
    } else if (dialog.closest('#dialog')) {
      dialog.addEventListener('close', () => dialog.remove());
    }
    (dialog.querySelector('[data-focus], [autofocus]') ?? dialog).focus();
  }
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && document.querySelector('dialog[data-modal="locked"]:modal')) event.preventDefault();
  }, true);

  const secrets = (within = document) => all('[data-secret]', within);
  const textOf = (element) => element.value ?? all('li', element).map((item) => item.textContent).join('\n');
  const read = (element) => (textOf(element) || element.textContent).trim();

  function veil(reveal) {
    for (const secret of secrets(reveal)) {
      const text = read(secret);
      secret.toggleAttribute('data-masked', true);
      for (const code of all('pre code', reveal)) {
        const parts = code.textContent.split(text);
        if (parts.length < 2) continue;
        const veiled = () => make('span', { 'data-masked': '' }, text);
        code.replaceChildren(...parts.flatMap((part, place) => (place ? [veiled(), part] : [part])));
      }
    }
  }

  function wipe() {
    for (const secret of secrets()) {
      const reveal = secret.closest('[data-reveal]');
      for (const code of all('code', reveal ?? secret)) code.textContent = '';
      if ('value' in secret) secret.value = '';
      secret.removeAttribute('value');
      secret.textContent = '';
    }
  }

  // Neither the page that the browser keeps for Back, nor the one it shows again, may hold a secret.
  let wiped = false;
  addEventListener('pagehide', () => {
    wiped = secrets().length > 0;
    wipe();
  });
  addEventListener('pageshow', (event) => {
    if (!event.persisted || !wiped) return;
    const done = document.querySelector('a[data-done]');
    // Reloading the answer to a form would send the form again.
    if (done) location.replace(done.href);
    else location.reload();
  });

  async function copy(button) {
    const source = byId(button.dataset.copy);
    const text = read(source);
    let copied = await (navigator.clipboard?.writeText(text).then(() => true, () => false) ?? false);
    if (!copied) {
      const field = make('textarea', { class: 'sr-only', readonly: '', 'aria-label': 'Copy' });
      field.value = text;
      button.after(field);
      field.select();
      try { copied = document.execCommand('copy'); } catch { copied = false; }
      field.remove();
      button.focus();
    }
    announce(copied ? 'Copied' : 'The browser does not let the page copy. Select the text and copy it.');
    if (!copied) return warn('The browser does not let the page copy. Select the text and copy it.');
    const text_ = [...label(button).childNodes].find((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!text_ || text_.data === 'Copied') return;
    const before = text_.data;
    text_.data = 'Copied';
    setTimeout(() => { text_.data = before; }, 2_000);
  }

  function download(button) {
    const content = `AIMS_API_KEY=${read(byId(button.dataset.download))}\n`;
    const href = URL.createObjectURL(new Blob([content], { type: 'text/plain' }));
    make('a', { href, download: button.dataset.file ?? '.env' }).click();
    setTimeout(() => URL.revokeObjectURL(href), 1_000);
    announce('Downloaded');
  }

  function show(button) {
    const shown = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', shown);
    // The name stays: pressed or not is what changes.
    for (const secret of secrets().concat(all('[data-reveal] code span'))) secret.toggleAttribute('data-masked', !shown);
  }

  function free(link) {
    const tick = link.closest('[data-reveal]')?.querySelector('[data-saved]');
    if (tick && !tick.checked) link.setAttribute('aria-disabled', 'true');
    else link.removeAttribute('aria-disabled');
  }

  function done(link) {
    wipe();
    const reveal = link.closest('[data-reveal]');
    reveal?.remove();
    location.replace(link.href);
  }

  /* ---- what happens elsewhere ---- */

  const streams = new Set();
  function listen(url) {
    const stream = new EventSource(url);
    streams.add(stream);
    return stream;
  }
  function stop(stream) {
    stream?.close();
    streams.delete(stream);
  }
  // An open connection would keep the page from being kept for Back.
  addEventListener('pagehide', () => streams.forEach(stop));

  function awaitFirstUse(line) {
    const stream = listen(line.dataset.firstUse);
    stream.addEventListener('used', () => {
      stop(stream);
      line.dataset.used = '';
      label(line).textContent = 'First token exchange arrived';
    });
  }

  function followTail(tail) {
    const MOST = 200;
    const rows = byId(tail.dataset.rows);
    const toggle = tail.querySelector('[data-tail-toggle]');
    const status = tail.querySelector('[data-tail-status]');
    const name = label(toggle).textContent;
    let last = Number(tail.dataset.after);
    let stream = null;
    let added = 0;

    function set(on, text) {
      toggle.setAttribute('aria-pressed', on);
      label(toggle).textContent = on ? 'Pause' : name;
      tell(status, text);
    }
    function add(event) {
      const template = document.createElement('template');
      template.innerHTML = policy.createHTML(event.data);
      const row = template.content.querySelector('tr');
      const seq = Number(row?.dataset.seq);
      if (!row || !(seq > last)) return;
      last = seq;
      row.classList.add('fresh');
      rows.prepend(row);
      all('tr', rows).slice(MOST).forEach((old) => old.remove());
      document.querySelector('main > .empty')?.remove();
      added += 1;
      refresh();
    }
    // One sentence now and then: a busy log would drown whoever listens.
    setInterval(() => {
      if (stream && added) tell(status, `Live: ${added} new`);
    }, 3_000);

    function start() {
      const url = new URL(tail.dataset.tail, location.href);
      url.searchParams.set('after', last);
      stream = listen(url);
      stream.onopen = () => set(true, added ? `Live: ${added} new` : 'Live');
      stream.onmessage = add;
      stream.onerror = () => {
        if (stream.readyState !== EventSource.CLOSED) return tell(status, 'Connecting again…');
        end('Ended. Reload the page to follow again.');
      };
      set(true, 'Connecting…');
    }
    function end(text) {
      stop(stream);
      stream = null;
      set(false, text);
    }
    toggle.addEventListener('click', () => (stream ? end('Paused') : start()));
    addEventListener('pagehide', () => stream && end('Paused'));
  }

  /* ---- tabs ---- */

  function makeTabs(box) {
    const panels = all(':scope > details', box);
    const list = make('div', { class: 'snippets__tabs', role: 'tablist', 'aria-label': 'Languages' });
    const tabs = panels.map((panel, place) => {
      const summary = panel.querySelector('summary');
      const body = summary.nextElementSibling;
      body.id ||= `panel-${place}-${Math.random().toString(36).slice(2)}`;
      const tab = make('button', { type: 'button', role: 'tab', class: 'snippets__tab', 'aria-controls': body.id, id: `${body.id}-tab` });
      tab.textContent = summary.textContent;
      body.setAttribute('role', 'tabpanel');
      body.setAttribute('aria-labelledby', tab.id);
      panel.removeAttribute('name');
      panel.open = true;
      summary.hidden = true;
      return tab;
    });
    const choose = (chosen) => tabs.forEach((tab, place) => {
      tab.setAttribute('aria-selected', tab === chosen);
      tab.tabIndex = tab === chosen ? 0 : -1;
      panels[place].hidden = tab !== chosen;
    });
    list.addEventListener('click', (event) => tabs.includes(event.target) && choose(event.target));
    list.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs.at((tabs.indexOf(event.target) + step) % tabs.length);
      choose(next);
      next.focus();
    });
    list.append(...tabs);
    box.prepend(list);
    box.dataset.ready = '';
    choose(tabs[0]);
  }

  /* ---- forms ---- */

  function countTicks(form) {
    const ticks = all('input[name="id"]', form);
    const ticked = ticks.filter((tick) => tick.checked).length;
    const matching = form.querySelector('input[name="all"]')?.checked;
    const page = form.querySelector('[data-all]');
    const bar = form.querySelector('[data-bulk-bar]');
    if (page) {
      page.checked = ticked > 0 && ticked === ticks.length;
      page.indeterminate = ticked > 0 && ticked < ticks.length;
    }
    if (bar) bar.hidden = !ticked && !matching;
    const told = form.querySelector('[data-bulk-count]');
    if (told) tell(told, matching ? 'All that match' : `${ticked} selected`);
  }

  function awaitName(form) {
    const typed = form.elements.confirm;
    const button = form.querySelector('button:not([type="button"])');
    const check = () => { button.disabled = typed.value.trim() !== form.dataset.confirmName; };
    typed.addEventListener('input', check);
    check();
  }

  document.addEventListener('submit', (event) => {
    const form = event.target;
    if (!form.matches('[data-once]') || event.defaultPrevented) return;
    if (form.getAttribute('aria-busy') === 'true') return event.preventDefault();
    form.setAttribute('aria-busy', 'true');
    // Whoever stopped the page from loading may try again.
    setTimeout(() => form.removeAttribute('aria-busy'), 8_000);
  });
  addEventListener('pageshow', () => {
    all('form[aria-busy]').forEach((form) => form.removeAttribute('aria-busy'));
    all('form[data-bulk]').forEach(countTicks);
  });

  /* ---- passkeys ---- */

  const toBytes = (text) => Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
  const toText = (bytes) =>
    btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');

  // For browsers that cannot read the JSON of WebAuthn level 3 themselves.
  function readOptions(json) {
    const withBytes = (one) => ({ ...one, id: toBytes(one.id) });
    const options = { ...json, challenge: toBytes(json.challenge) };
    if (json.user) options.user = withBytes(json.user);
    for (const list of ['excludeCredentials', 'allowCredentials']) if (json[list]) options[list] = json[list].map(withBytes);
    return options;
  }
  function writeCredential(credential) {
    if (credential.toJSON) return credential.toJSON();
    const { id, rawId, type, response } = credential;
    const members = ['clientDataJSON', 'attestationObject', 'authenticatorData', 'signature', 'userHandle'];
    const given = members.filter((name) => response[name]).map((name) => [name, toText(response[name])]);
    const clientExtensionResults = credential.getClientExtensionResults();
    return { id, rawId: toText(rawId), type, response: Object.fromEntries(given), clientExtensionResults };
  }

  async function usePasskey(button) {
    const form = button.form;
    const registers = button.dataset.passkey === 'register';
    button.disabled = true;
    try {
      const answer = await fetch(button.dataset.options, {
        method: 'POST',
        body: new URLSearchParams(new FormData(form)),
        headers: { Accept: 'application/json' },
        redirect: 'error',
      });
      if (!answer.ok) throw new Error(String(answer.status));
      const json = await answer.json();
      const options = json.publicKey ?? json;
      const parse = registers ? 'parseCreationOptionsFromJSON' : 'parseRequestOptionsFromJSON';
      const publicKey = PublicKeyCredential[parse]?.(options) ?? readOptions(options);
      const credential = await navigator.credentials[registers ? 'create' : 'get']({ publicKey });
      form.elements.credential.value = JSON.stringify(writeCredential(credential));
      form.noValidate = true;
      form.requestSubmit();
    } catch (error) {
      const text =
        error.name === 'NotAllowedError' ? 'No passkey was used. Try again, or choose another way.'
        : error.name === 'InvalidStateError' ? 'This device has a passkey for your account already.'
        : 'The passkey could not be used. Reload the page and try again.';
      const told = form.querySelector('[data-passkey-error]');
      if (told) tell(told, text);
      else warn(text);
    } finally {
      button.disabled = false;
    }
  }

  /* ---- palette ---- */

  let palette;
  function openPalette() {
    if (!palette) {
      const input = make('input', {
        name: 'q', type: 'text', maxlength: 128, autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false',
        placeholder: 'Go to a page, an agent, an act…', 'aria-label': 'Go to', role: 'combobox', 'aria-expanded': 'true',
        'aria-autocomplete': 'list', 'aria-controls': 'palette-list',
        'hx-get': '/console/palette', 'hx-trigger': 'input changed delay:100ms, palette', 'hx-target': '#palette-found', 'hx-sync': 'this:replace',
      });
      const found = make('div', { class: 'palette__found', id: 'palette-found' });
      palette = make('dialog', { class: 'palette', 'aria-label': 'Go to', closedby: 'any' }, input, found);
      document.body.append(palette);
      window.htmx?.process(palette);
      input.addEventListener('keydown', steer);
      found.addEventListener('htmx:after:swap', () => choose(options()[0]));
      input.addEventListener('htmx:after:swap', () => choose(options()[0]));
      found.addEventListener('click', (event) => go(event.target.closest('[role="option"]'), event));
    }
    const input = palette.querySelector('input');
    if (!palette.open) palette.showModal();
    input.select();
    input.dispatchEvent(new Event('palette'));
  }
  const options = () => all('[role="option"]:not([aria-disabled="true"])', palette);
  function choose(option) {
    for (const other of options()) other.setAttribute('aria-selected', other === option);
    palette.querySelector('input').setAttribute('aria-activedescendant', option?.id ?? '');
    option?.scrollIntoView({ block: 'nearest' });
  }
  function go(option, event) {
    const href = option?.dataset.href ?? option?.querySelector('a')?.getAttribute('href');
    if (!href?.startsWith('/console') || event?.ctrlKey || event?.metaKey) return;
    event?.preventDefault();
    palette.close();
    location.assign(href);
  }
  function steer(event) {
    const found = options();
    const at = found.findIndex((option) => option.getAttribute('aria-selected') === 'true');
    const to = { ArrowDown: at + 1, ArrowUp: at - 1 }[event.key];
    if (event.key === 'Enter') go(found[at], event);
    else if (to !== undefined && found.length) {
      event.preventDefault();
      choose(found.at(to % found.length));
    }
  }

  function tellKeys() {
    const keys = [['/', 'Search on this page'], ['Ctrl K', 'Go to a page, an agent, an act'], ['?', 'Show these keys'], ['Esc', 'Close']];
    const list = make('dl', { class: 'shortcuts' }, ...keys.flatMap(([key, what]) => [make('dt', {}, make('kbd', {}, key)), make('dd', {}, what)]));
    const title = make('h2', { id: 'keys-title', tabindex: -1, 'data-focus': '' }, 'Keys');
    const dialog = make('dialog', { class: 'dialog dialog--small', 'data-modal': '', 'aria-labelledby': 'keys-title' }, title, list);
    byId('dialog')?.replaceChildren(dialog);
    if (dialog.isConnected) openModal(dialog);
  }

  /* ---- clicks and keys of the whole page ---- */

  document.addEventListener('click', (event) => {
    const on = (selector) => event.target.closest?.(selector);
    const control = on('[data-copy], [data-download], [data-show], [data-palette], [data-passkey], [data-done], a[data-cancel]');
    for (const menu of all('details[data-drop][open]')) if (!menu.contains(event.target)) menu.open = false;
    if (!control) return;
    const { copy: copies, download: downloads, show: shows, passkey, done: ends, cancel } = control.dataset;
    if (copies) copy(control);
    else if (downloads) download(control);
    else if (shows) show(control);
    else if (passkey) usePasskey(control);
    else if (control.matches('[data-palette]')) openPalette();
    else if (ends !== undefined) {
      event.preventDefault();
      if (control.getAttribute('aria-disabled') !== 'true') done(control);
    } else if (cancel !== undefined && control.closest('dialog:modal')) {
      event.preventDefault();
      control.closest('dialog').close();
    }
  });

  document.addEventListener('change', (event) => {
    const form = event.target.closest('form[data-bulk]');
    if (form) {
      if (event.target.matches('[data-all]')) all('input[name="id"]', form).forEach((tick) => { tick.checked = event.target.checked; });
      countTicks(form);
    }
    if (event.target.matches('[data-saved]')) all('a[data-done]', event.target.closest('[data-reveal]')).forEach(free);
  });

  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      const menu = document.querySelector('details:is([data-drop], [data-menu])[open]');
      if (menu?.contains(document.activeElement)) {
        menu.open = false;
        menu.querySelector('summary').focus();
      }
      return;
    }
    const modal = document.querySelector('dialog:modal');
    if (event.key.toLowerCase() === 'k' && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey) {
      if (!document.querySelector('[data-palette]') || (modal && modal !== palette)) return;
      event.preventDefault();
      openPalette();
    }
    const typing = event.target.closest?.('input, textarea, select, [contenteditable]');
    if (typing || modal || event.ctrlKey || event.metaKey || event.altKey) return;
    const search = document.querySelector('[data-search]');
    if (event.key === '/' && search) {
      event.preventDefault();
      search.focus();
      search.select();
    } else if (event.key === '?') tellKeys();
  });

  /* ---- htmx ---- */

  // A URL holds what is set, and nothing else.
  document.addEventListener('htmx:config:request', ({ detail: { ctx } }) => {
    const { method, body } = ctx.request;
    if (method !== 'GET' || !body) return;
    for (const name of new Set(body.keys())) if (body.getAll(name).every((value) => !value) && name !== 'q') body.delete(name);
    if (body.get('q') === '' && ctx.sourceElement.matches('form')) body.delete('q');
  });
  document.addEventListener('htmx:error', ({ detail }) => {
    if (detail.ctx) warn('AIMS does not answer. Check the connection, then try again.');
  });
  document.addEventListener('htmx:after:swap', ({ detail: { ctx } }) => {
    const region = ctx.target?.isConnected ? ctx.target : byId(ctx.target?.id ?? '');
    if (!region || region.closest('.palette')) return;
    begin(region);
    const said = region.closest('[data-announce]') ?? region.querySelector('[data-announce]');
    if (said) announce(said.dataset.announce);
    if (document.activeElement && document.activeElement !== document.body) return;
    const place = region.querySelector('[data-focus], h1, h2, h3');
    if (!place) return;
    if (!place.matches('a, button, input, [tabindex]')) place.tabIndex = -1;
    place.focus();
  });

  /** Takes care of what has come into the page. */
  function begin(within) {
    all('[data-tabs]:not([data-ready])', within).forEach(makeTabs);
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
  document.querySelector('main [data-focus]:not(dialog [data-focus])')?.focus();

  // Coming Back to a form that was sent must not send it again.
  const [arrival] = performance.getEntriesByType('navigation');
  if (arrival?.type !== 'back_forward') document.querySelector('form[data-autosubmit]')?.requestSubmit();
})();
