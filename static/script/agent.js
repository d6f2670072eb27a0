/*
 *   input[data-narrow="id"]         hides the options of the list with this ID that do not contain its text
 *   input[data-reveals="id"]        checkbox that shows the element with this ID
 */
function narrowOptions(search) {
  const options = () => all('.option', byId(search.dataset.narrow));
  search.addEventListener('input', () => {
    const wanted = search.value.trim().toLowerCase();
    // What is chosen stays visible, so that nothing is granted unseen.
    for (const option of options()) option.hidden = !option.textContent.toLowerCase().includes(wanted) && !option.querySelector(':checked');
  });
  search.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') event.preventDefault();
  });
}

function revealFields(box) {
  const update = () => { byId(box.dataset.reveals).hidden = !box.checked; };
  box.addEventListener('change', update);
  update();
}

enhancements.push(['input[data-narrow]', narrowOptions], ['input[data-reveals]', revealFields]);
