/*
 *   data-first-use="url"            event stream; the line turns green on the event `used`
 */
function watchFirstUse(line) {
  const stream = new EventSource(line.dataset.firstUse);
  // An open connection would keep the page out of the back-forward cache.
  addEventListener('pagehide', () => stream.close());
  stream.addEventListener('used', () => {
    stream.close();
    line.dataset.used = '';
    setText(label(line), 'First token exchange received');
  });
}

enhancements.push(['[data-first-use]', watchFirstUse]);
