/*
 *   data-toast="stay"               message at the lower edge; without "stay" it goes after a while
 *   data-dismiss                    button that removes it
 */
const TOAST_SECONDS = 12;

function startToast(toast) {
  announce(toast.querySelector('p').textContent.trim());
  if (toast.dataset.toast === 'stay') return;
  let left = TOAST_SECONDS;
  const timer = setInterval(() => {
    // The countdown stops while the message is read or its link has the focus.
    if (document.hidden || toast.matches(':hover, :focus-within')) return;
    left -= 1;
    if (left > 0 && toast.isConnected) return;
    clearInterval(timer);
    removeToast(toast);
  }, 1_000);
}

function removeToast(toast) {
  const toasts = toast.closest('.toasts');
  const hadFocus = toast.contains(document.activeElement);
  toast.remove();
  if (toasts && !toasts.childElementCount) toasts.remove();
  if (hadFocus) byId('main')?.focus();
}

function showError(text) {
  if (all('.toast p').some((shown) => shown.textContent === text)) return;
  const toasts = document.querySelector('.toasts') ?? make('div', { class: 'toasts' });
  const close = make('button', { class: 'toast__close', type: 'button', 'aria-label': 'Dismiss message', 'data-dismiss': '' }, '×');
  const toast = make('div', { class: 'toast notice notice--bad', role: 'alert', 'data-toast': 'stay' }, make('p', {}, text), close);
  // Nothing outside of a modal dialog is visible above it.
  (document.querySelector('dialog:modal') ?? byId('main') ?? document.body).prepend(toasts);
  toasts.append(toast);
}

// What has the focus is never behind a message.
function revealFocus() {
  const toasts = document.querySelector('.toasts');
  const focused = document.activeElement;
  if (!toasts || toasts.contains(focused) || focused.contains(toasts)) return;
  const isCovered = () => {
    const [a, b] = [toasts, focused].map((element) => element.getBoundingClientRect());
    return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  };
  toasts.removeAttribute('data-up');
  if (!isCovered()) return;
  toasts.dataset.up = '';
  if (isCovered()) toasts.removeAttribute('data-up');
}
document.addEventListener('focusin', revealFocus);
for (const event of ['scroll', 'resize']) addEventListener(event, revealFocus, { passive: true });
document.addEventListener('keydown', ({ key, target }) => {
  const toast = key === 'Escape' && target.closest('[data-toast]');
  if (toast) removeToast(toast);
});

enhancements.push(['[data-toast]', startToast]);
clicks.push(['[data-dismiss]', (button) => removeToast(button.closest('[data-toast]'))]);
