/*
 *   .clip                           a name that may be cut off: shown in full while the pointer or the keyboard is on it
 */
function showWholeName({ target }) {
  const name = target.closest?.('.clip');
  if (name && name.scrollWidth > name.clientWidth) name.title ||= name.textContent.trim();
}
for (const event of ['pointerover', 'focusin']) document.addEventListener(event, showWholeName);
