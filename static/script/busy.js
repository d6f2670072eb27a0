/*
 * Shows that an answer takes longer than a moment: for requests of htmx, links and forms. What is on the page stays.
 *
 *   form[data-download]             answers with a file, so that this page stays
 */
const BUSY_AFTER = 300;
const BUSY_AT_MOST = 30_000;
const waits = new Map();
const progressLine = make('div', { class: 'progress', role: 'progressbar', 'aria-label': 'Loading' });

function startWait(reason, region) {
  endWait(reason);
  const show = () => {
    region?.setAttribute('aria-busy', true);
    (document.querySelector('dialog:modal') ?? document.body).append(progressLine);
  };
  const timers = [setTimeout(show, BUSY_AFTER), setTimeout(() => endWait(reason), BUSY_AT_MOST)];
  waits.set(reason, { region, timers });
}

function endWait(reason) {
  const wait = waits.get(reason);
  if (!wait) return;
  wait.timers.forEach(clearTimeout);
  waits.delete(reason);
  wait.region?.removeAttribute('aria-busy');
  if (!waits.size) progressLine.remove();
}

const PAGE_LOAD = 'navigation';
// On the window, so that a handler that keeps the browser on this page has run before.
addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href]');
  const stays = event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
  if (!link || stays || link.target || link.hasAttribute('download') || link.origin !== location.origin) return;
  if (link.hash && link.pathname === location.pathname && link.search === location.search) return;
  startWait(PAGE_LOAD, byId('main'));
});
addEventListener('submit', (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.target || form.matches('[data-download]')) return;
  startWait(PAGE_LOAD, byId('main'));
});
for (const event of ['pageshow', 'pagehide']) addEventListener(event, () => endWait(PAGE_LOAD));
document.addEventListener('htmx:before:request', ({ detail: { ctx } }) => startWait(ctx, typeof ctx.target === 'object' ? ctx.target : byId('main')));
document.addEventListener('htmx:finally:request', ({ detail: { ctx } }) => endWait(ctx));
