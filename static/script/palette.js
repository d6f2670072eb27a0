/*
 *   data-palette                    button that opens the command palette, as Ctrl-K does
 */
// An API key must not become part of a URL, which browsers, proxies and logs remember. Its prefix may.
const WHOLE_KEY = /(aims_[0-9A-Za-z]{8})[0-9A-Za-z]+/g;
const holdsKey = (value) => typeof value === 'string' && value.search(WHOLE_KEY) >= 0;
const withoutKey = (value) => value.replace(WHOLE_KEY, '$1');
addEventListener('submit', ({ target }) => {
  if (target.method !== 'get') return;
  for (const field of target.elements) if (holdsKey(field.value)) field.value = withoutKey(field.value);
}, true);

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
    placeholder: 'Search or act, such as “suspend planner”', 'aria-label': 'Search pages, agents, keys and actions', role: 'combobox',
    'aria-expanded': true, 'aria-autocomplete': 'list', 'aria-controls': 'palette-found',
    'hx-get': '/console/palette', 'hx-trigger': 'input changed delay:100ms, palette', 'hx-target': '#palette-found', 'hx-sync': 'this:replace',
  });
  // Scrollable regions must be reachable with the keyboard.
  const found = make('div', { class: 'palette__found', id: 'palette-found', role: 'group', 'aria-label': 'Results', tabindex: 0 });
  const dialog = make('dialog', { class: 'palette', 'aria-label': 'Command palette', closedby: 'any' }, input, found);
  document.body.append(dialog);
  // Before htmx sees it.
  dialog.addEventListener('input', (event) => {
    if (!holdsKey(input.value)) return;
    event.stopImmediatePropagation();
    offerKeyLookup(found);
  }, true);
  dialog.addEventListener('close', () => {
    if (holdsKey(input.value)) input.value = '';
  });
  window.htmx?.process(dialog);
  // A response to what was there before the key was complete may come late.
  dialog.addEventListener('htmx:after:swap', () => (holdsKey(input.value) ? offerKeyLookup(found) : select(0)));
  input.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === 'Enter') options()[selectedIndex()]?.click();
    else if (step) select(selectedIndex() + step);
    else return;
    event.preventDefault();
  });
  // Options must not contain links, so the script follows `data-href`.
  found.addEventListener('click', ({ target }) => {
    const option = target.closest('[role="option"]');
    if ('lookup' in (option?.dataset ?? {})) return lookUpKey(input.value.match(WHOLE_KEY)?.[0]);
    const href = option?.dataset.href;
    if (!href?.startsWith('/console')) return;
    startWait(PAGE_LOAD, byId('main'));
    location.assign(href);
  });
  return dialog;
}

function offerKeyLookup(found) {
  const text = make('span', { class: 'palette__text' }, 'Find the agent of this API key');
  const kind = make('span', { class: 'palette__kind' }, 'Action');
  const option = make('li', { class: 'palette__entry', role: 'option', id: 'palette-1', 'aria-selected': true, 'data-lookup': '' }, text, kind);
  found.replaceChildren(make('ul', { class: 'palette__list', role: 'listbox', 'aria-label': 'Results' }, option));
  select(0);
}

function lookUpKey(key) {
  const form = make('form', { method: 'post', action: '/console/keys/find', hidden: '' }, make('input', { type: 'hidden', name: 'leaked_key', value: key ?? '' }));
  document.body.append(form);
  form.submit();
  form.remove();
  palette?.close();
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

clicks.push(['[data-palette]', openPalette]);
