/*
 *   data-meter="url"                event stream that replaces the content: when an old key was last used
 *   data-save="id"                  button that downloads the content of the element with that ID as it is
 */
function watchMeter(meter) {
  const stream = new EventSource(meter.dataset.meter);
  addEventListener('pagehide', () => stream.close());
  stream.addEventListener('use', ({ data }) => {
    meter.innerHTML = policy.createHTML(data);
    updateRelativeTimes();
    updateCountdowns();
    // The stream ends when the key does. The browser would open it again and again.
    if (meter.querySelector('[data-ended]')) stream.close();
  });
}

function saveFile(button) {
  const href = URL.createObjectURL(new Blob([`${contentOf(byId(button.dataset.save))}\n`]));
  make('a', { href, download: button.dataset.file }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1_000);
  announce('Downloaded');
}

// Browsers ask before they leave a page with a new key that nobody has confirmed to have saved.
addEventListener('beforeunload', (event) => {
  const saved = document.querySelector('[data-reveal] [data-saved]');
  if (saved && !saved.checked && secrets().some(contentOf)) event.preventDefault();
});

// A key in a search field would get into a URL. It goes to the form that finds leaked keys instead.
const COMPLETE_KEY = /aims_[0-9A-Za-z]{49}/;
function divertKey(event) {
  const field = event.type === 'submit' ? event.target.elements.q : event.target;
  if (field?.name !== 'q' || field.closest('.palette') || !holdsKey(field.value)) return;
  event.stopImmediatePropagation();
  if (event.type === 'submit') event.preventDefault();
  else if (!COMPLETE_KEY.test(field.value)) return;
  const key = field.value;
  field.value = '';
  lookUpKey(key);
}
for (const type of ['input', 'submit']) addEventListener(type, divertKey, true);
// A search that was already waiting when more of the key was typed.
document.addEventListener('htmx:config:request', (event) => {
  const { body } = event.detail.ctx.request;
  if (!holdsKey(body?.get?.('q'))) return;
  body.delete('q');
  event.preventDefault();
});

enhancements.push(['[data-meter]', watchMeter]);
clicks.push(['[data-save]', saveFile]);
