/*
 *   form[data-bulk="keys"]          selection of rows, with [data-all], [data-bulk-bar], [data-bulk-count]
 *   form[data-bulk][data-whole="…"] acts on everything that matches while no row is selected, in these words
 *   form[data-once|-autosubmit]     can be submitted only once; is submitted on load
 *   form[data-confirm-name="…"]     keeps its button disabled until `confirm` holds this name
 */
function updateSelection(form) {
  const boxes = all('input[name="id"]', form);
  const selected = boxes.filter((box) => box.checked).length;
  const matching = form.querySelector('input[name="all"]')?.checked;
  const [page, bar] = ['[data-all]', '[data-bulk-bar]'].map((selector) => form.querySelector(selector));
  if (!page || !bar) return;
  page.checked = selected > 0 && selected === boxes.length;
  page.indeterminate = selected > 0 && !page.checked;
  bar.hidden = !selected && !matching && !form.dataset.whole;
  // While nothing is selected, the actions already cover everything that matches.
  const everything = form.querySelector('input[name="all"]')?.closest('label');
  if (everything) everything.hidden = Boolean(form.dataset.whole) && !selected && !matching;
  const whole = form.dataset.whole ?? `All matching ${form.dataset.bulk || 'agents'}`;
  setText(form.querySelector('[data-bulk-count]'), matching || !selected ? whole : `${selected} selected`);
}

// Shift and a click select every row from the last one that was clicked.
let lastTicked;
document.addEventListener('click', ({ target, shiftKey }) => {
  if (!target.matches?.('form[data-bulk] input[name="id"]')) return;
  const boxes = all('input[name="id"]', target.form);
  const [from, to] = [boxes.indexOf(lastTicked), boxes.indexOf(target)].sort((a, b) => a - b);
  if (shiftKey && from >= 0) for (const box of boxes.slice(from, to + 1)) box.checked = target.checked;
  lastTicked = target;
  updateSelection(target.form);
});

// "x" selects the row that has the focus.
document.addEventListener('keydown', ({ key, target, ctrlKey, metaKey, altKey }) => {
  if (key !== 'x' || ctrlKey || metaKey || altKey || target.matches('input:not([type="checkbox"]), textarea, select')) return;
  target.closest('form[data-bulk] tr')?.querySelector('input[name="id"]')?.click();
});

function requireName(form) {
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
  // Allows another attempt if the user stopped the page from loading.
  setTimeout(() => { form.ariaBusy = null; }, 8_000);
});
addEventListener('pageshow', () => {
  for (const form of all('form')) form.ariaBusy = null;
  // Browsers restore checkboxes after this script has run.
  all('form[data-bulk]').forEach(updateSelection);
});

enhancements.push(['form[data-bulk]', updateSelection], ['form[data-confirm-name]', requireName]);
