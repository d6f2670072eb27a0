/*
 *   data-search                     field that "/" focuses
 *   details[data-drop|-menu]        closes on Escape; data-drop also closes on a click elsewhere
 */
document.addEventListener('click', (event) => {
  for (const menu of all('details[data-drop][open]')) if (!menu.contains(event.target)) menu.open = false;
  for (const [selector, handle] of clicks) {
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

// Omits empty parameters from the URL, and all of an API key but its prefix.
document.addEventListener('htmx:config:request', ({ detail: { ctx: { request } } }) => {
  if (request.method !== 'GET') return;
  for (const [name, value] of [...request.body]) if (holdsKey(value)) request.body.set(name, withoutKey(value));
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
  for (const [selector, enhanceOne] of enhancements) all(selector, within).forEach(enhanceOne);
  updateRelativeTimes();
  updateCountdowns();
}
enhance(document);
all('main [data-focus]').find((element) => !element.closest('dialog'))?.focus();

// Navigating back to a submitted form must not submit it again.
if (arrivalEntry?.type !== 'back_forward') document.querySelector('form[data-autosubmit]')?.requestSubmit();
