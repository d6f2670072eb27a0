/*
 * A page is where it was after an action that returns to it: a list after a bulk action, any page after a change of theme.
 * For Back and Forward, browsers do the same.
 */
const PLACES = 'aims-places';
const currentAddress = () => location.pathname + location.search;
const readPlaces = () => {
  try {
    return JSON.parse(sessionStorage.getItem(PLACES)) ?? [];
  } catch {
    return [];
  }
};

let hasSubmitted = false;
addEventListener('submit', (event) => { hasSubmitted = !event.defaultPrevented; });
addEventListener('pagehide', () => {
  const others = readPlaces().filter(({ url }) => url !== currentAddress());
  const place = { url: currentAddress(), top: Math.round(scrollY), hasSubmitted, at: Date.now() };
  hasSubmitted = false;
  try {
    sessionStorage.setItem(PLACES, JSON.stringify([...others.slice(-9), place]));
  } catch {
    // Without storage, the page starts at its top.
  }
});

const [arrivalEntry] = performance.getEntriesByType('navigation');
const rememberedPlace = readPlaces().find(({ url }) => url === currentAddress());
const returnsFromAction = rememberedPlace && (document.querySelector('[data-toast]') || (rememberedPlace.hasSubmitted && Date.now() - rememberedPlace.at < 10_000));
if (returnsFromAction && arrivalEntry?.type === 'navigate' && !location.hash) scrollTo(0, rememberedPlace.top);
