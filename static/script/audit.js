/*
 *   dialog[data-drawer]             shows the record of a row beside the list: a click opens it, J, K and the arrows move,
 *                                   Escape closes it
 *   data-tail="url" data-after="seq" data-rows="id"  event stream of table rows, with [data-tail-toggle|-status|-show]
 */
function watchDrawer(drawer) {
  let latest = 0;
  let opener = null;
  const shown = () => drawer.querySelector('[data-record]')?.dataset.record;
  const linkOf = (seq) => document.querySelector(`tr[data-seq="${seq}"] a[data-open]`);

  function settle() {
    const url = new URL(location.href);
    if (drawer.open) url.searchParams.set('record', shown());
    else url.searchParams.delete('record');
    history.replaceState(history.state, '', url);
    for (const row of all('tr[data-seq]')) {
      if (drawer.open && row.dataset.seq === shown()) row.setAttribute('aria-current', 'true');
      else row.removeAttribute('aria-current');
    }
  }
  async function open(href) {
    const request = (latest += 1);
    startWait(drawer, drawer.open ? drawer : byId('main'));
    let response;
    try {
      response = await fetch(href, { headers: { 'HX-Request': 'true' } });
    } catch {
      showError('AIMS did not respond. Check your connection and try again.');
      return endWait(drawer);
    }
    const template = make('template');
    template.innerHTML = policy.createHTML(await response.text());
    const record = template.content.querySelector('[data-record]');
    // A faster key press has asked for another record.
    if (request !== latest) return;
    endWait(drawer);
    // The session has ended, or the record does not exist: the page of the record says so.
    if (!record) return location.assign(href);
    drawer.replaceChildren(record);
    enhance(drawer);
    if (!drawer.open) drawer.show();
    drawer.scrollTop = 0;
    drawer.querySelector('[data-title]').focus({ preventScroll: true });
    settle();
    linkOf(shown())?.closest('tr').scrollIntoView({ block: 'nearest' });
  }
  function close() {
    latest += 1;
    endWait(drawer);
    const link = linkOf(shown()) ?? opener;
    drawer.close();
    drawer.replaceChildren();
    settle();
    link?.focus();
  }
  const step = (name) => drawer.querySelector(`[data-step="${name}"]`)?.click();

  document.addEventListener('click', (event) => {
    const { target } = event;
    if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const link = target.closest('a[data-step]') ?? target.closest('tr[data-seq]')?.querySelector('a[data-open]');
    const control = target.closest('a, button, summary, input');
    if (!link || (control && control !== link) || (!control && String(getSelection()))) return;
    event.preventDefault();
    if (!drawer.contains(link)) opener = link;
    open(link.href);
  });
  drawer.addEventListener('click', (event) => {
    if (!event.target.closest('[data-drawer-close]')) return;
    event.preventDefault();
    close();
  });
  drawer.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const name = { j: 'older', ArrowRight: 'older', k: 'newer', ArrowLeft: 'newer' }[event.key];
    if (!name) return;
    event.preventDefault();
    step(name);
  });
  document.addEventListener('keydown', ({ key, target }) => {
    if (key !== 'Escape' || !drawer.open || document.querySelector('dialog:modal') || target.closest('details[open]:is([data-drop], [data-menu])')) return;
    close();
  });
  if (drawer.open) settle();
}

function followTail(tail) {
  const toggle = tail.querySelector('[data-tail-toggle]');
  const status = tail.querySelector('[data-tail-status]');
  const show = tail.querySelector('[data-tail-show]');
  const name = label(toggle).textContent;
  let last = Number(tail.dataset.after);
  let added = 0;
  let held = [];
  let stream = null;

  const rows = () => byId(tail.dataset.rows);
  // What is being read must not move: new rows wait while somebody has scrolled down, points at a row or has opened one.
  const isReading = () => scrollY > 0 || byId('drawer')?.open || rows()?.matches(':hover, :focus-within');

  function setState(on, text) {
    toggle.setAttribute('aria-pressed', on);
    setText(label(toggle), on ? 'Pause' : name);
    setText(status, text);
  }
  function insert() {
    const empty = document.querySelector('[data-empty]');
    const table = document.querySelector('template[data-empty-table]');
    if (empty && table) empty.replaceWith(table.content.cloneNode(true));
    for (const row of held) {
      row.classList.add('fresh');
      rows().prepend(row);
      // Limits the size of a page that stays open for days.
      rows().children[200]?.remove();
    }
    held = [];
    show.hidden = true;
    updateRelativeTimes();
  }
  function add({ data }) {
    const template = make('template');
    template.innerHTML = policy.createHTML(data);
    const row = template.content.querySelector('tr');
    if (!(Number(row?.dataset.seq) > last)) return;
    last = Number(row.dataset.seq);
    added += 1;
    held.push(row);
    if (held.length > 200) held.shift();
    if (!isReading()) return insert();
    show.hidden = false;
    setText(label(show), held.length === 1 ? 'Show 1 new record' : `Show ${held.length} new records`);
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
  show.addEventListener('click', () => {
    insert();
    rows().querySelector('a[data-open]')?.focus();
  });
  addEventListener('pagehide', () => stop('Paused'));
}

enhancements.push(['dialog[data-drawer]', watchDrawer], ['[data-tail]', followTail]);
