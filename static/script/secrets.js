/*
 *   dialog[data-modal]              opens as a modal dialog that only its own links close
 *   data-reveal > data-secret       masked, also inside <code>, and erased when the page is left
 *   data-show|copy|download="id"    button for the element with that ID; data-file is the name of the download
 *   input[data-saved], a[data-done] checkbox that enables the link; the link replaces this page in the history
 */
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

enhancements.push(['[data-reveal]', maskSecrets], ['a[data-done]', updateDoneLink], ['dialog[data-modal]:not(:modal)', openModal]);
clicks.push(['[data-copy]', copy], ['[data-download]', download], ['[data-show]', toggleSecrets], ['a[data-done]', finish]);
