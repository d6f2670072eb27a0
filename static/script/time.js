/*
 *   time[data-relative|-countdown]  shows "3 min ago", or "23 h 59 min" and then "expired"
 *   time[data-instant]              shows a date and a time: with html[data-local-times] in local time
 */
const UNITS = [[2_700, 60, 'min'], [79_200, 3_600, 'h'], [3_888_000, 86_400, 'day'], [31_536_000, 2_592_000, 'month'], [Infinity, 31_536_000, 'year']];
const quantity = (count, unit) => `${count} ${unit}${count > 1 && unit.length > 2 && unit !== 'min' ? 's' : ''}`;

// The same format as on the server, so that the text does not change when this script runs.
function relative(then) {
  const seconds = Math.floor((then - Date.now()) / 1_000);
  const distance = Math.abs(seconds);
  if (distance < 45) return seconds > 0 ? 'in a moment' : 'just now';
  const [, length, unit] = UNITS.find(([below]) => distance < below);
  const text = quantity(Math.floor((distance + length / 2) / length), unit);
  return seconds > 0 ? `in ${text}` : `${text} ago`;
}

function remaining(then) {
  const seconds = Math.ceil((then - Date.now()) / 1_000);
  const parts = [[seconds / 86_400, 'day'], [(seconds / 3_600) % 24, 'h'], [(seconds / 60) % 60, 'min'], [seconds % 60, 's']];
  const first = parts.findIndex(([count]) => count >= 1);
  if (first < 0 || seconds <= 0) return null;
  return parts.slice(first, first + 2).map(([count, unit]) => quantity(Math.floor(count), unit)).join(' ');
}

const inLocalTime = 'localTimes' in root.dataset;
const twoDigits = (number) => String(Math.floor(number)).padStart(2, '0');

// The same format as on the server.
function exactTime(then) {
  const offset = inLocalTime ? -new Date(then).getTimezoneOffset() : 0;
  const [date, clock] = new Date(then + offset * 60_000).toISOString().split(/[T.]/);
  const distance = Math.abs(offset);
  return `${date} ${clock} ${inLocalTime ? `${offset < 0 ? '−' : '+'}${twoDigits(distance / 60)}:${twoDigits(distance % 60)}` : 'UTC'}`;
}

function updateRelativeTimes() {
  for (const time of all('time[data-relative]')) {
    setText(time, relative(Date.parse(time.dateTime)));
    if (inLocalTime) time.dataset.hint = exactTime(Date.parse(time.dateTime));
  }
  for (const time of all('time[data-instant]')) {
    if (inLocalTime) setText(time, exactTime(Date.parse(time.dateTime)));
    time.dataset.hint = relative(Date.parse(time.dateTime));
  }
}
// In a table, the focus on anything in the row shows the exact time. Elsewhere the time itself is a stop.
function makeReachable(time) {
  if (!time.closest('tr, a, button, summary, label')) time.tabIndex = 0;
}
function toggleHint(time) {
  for (const other of all('time[data-shown]')) if (other !== time) other.removeAttribute('data-shown');
  time.toggleAttribute('data-shown');
}
enhancements.push(['time[data-relative]', makeReachable]);
// For screens without a pointer that hovers.
clicks.push(['time[data-hint]:not(a time, button time, summary time, label time)', toggleHint]);
function updateCountdowns() {
  for (const time of all('time[data-countdown]')) setText(time, remaining(Date.parse(time.dateTime)) ?? 'expired');
}
setInterval(updateRelativeTimes, 30_000);
setInterval(updateCountdowns, 1_000);
