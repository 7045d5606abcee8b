// Endless scrolling, and the way back: the server renders every page, this module joins them.
const grid = document.querySelector('#grid');
const here = location.pathname + location.search;
const place = 'grid:' + here;
const AHEAD = '1500px';
let loading = false;

async function load(limit) {
  const more = document.querySelector('#more');
  if (!more || loading) return false;
  loading = true;
  try {
    const answer = await fetch(more.getAttribute('href') + (limit ? '&limit=' + limit : ''), { headers: { Accept: 'text/html' } });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const have = new Set([...grid.children].map((tile) => tile.dataset.id));
    const fresh = [...page.querySelectorAll('.tile')].filter((tile) => !have.has(tile.dataset.id));
    grid.append(...fresh.map((tile) => document.importNode(tile, true)));
    // Put anew, not moved: nothing that is seen may shift.
    more.parentElement.replaceWith(...page.querySelectorAll('.more'));
    settle();
    return true;
  } catch {
    watcher.disconnect();
    settle(null);
    more.textContent = 'The server did not answer. Try again';
    return false;
  } finally {
    loading = false;
  }
}

// The last row stays unseen until it is whole: it would grow before one's eyes.
function settle(coming = document.querySelector('#more')) {
  const end = coming && grid.lastElementChild.offsetTop;
  for (const tile of grid.children) tile.style.visibility = tile.offsetTop === end ? 'hidden' : '';
}

// As long as the end is near: a wide window may need several pages before it is not.
const watcher = new IntersectionObserver(async ([end]) => {
  if (end.isIntersecting && (await load())) watch();
}, { rootMargin: AHEAD });

function watch() {
  watcher.disconnect();
  const more = document.querySelector('#more');
  if (more) watcher.observe(more);
}

async function restore() {
  const saved = JSON.parse(sessionStorage.getItem(place) ?? 'null');
  const [{ type }] = performance.getEntriesByType('navigation');
  const returning = sessionStorage.getItem('returning') === here;
  sessionStorage.removeItem('returning');
  if (!saved || !(returning || type === 'back_forward' || type === 'reload')) return;
  while (grid.children.length < saved.count && (await load(Math.min(1000, saved.count - grid.children.length))));
  scrollTo(0, saved.y);
  const last = [...grid.children].find((tile) => tile.getAttribute('href') === sessionStorage.getItem('last'));
  if (!last || type === 'reload') return;
  last.focus({ preventScroll: true });
  const { top, bottom } = last.getBoundingClientRect();
  if (bottom < 80 || top > innerHeight - 40) last.scrollIntoView({ block: 'center' });
}

function save() {
  const hrefs = [...grid.children].map((tile) => tile.getAttribute('href'));
  try {
    sessionStorage.setItem(place, JSON.stringify({ count: hrefs.length, y: scrollY }));
    sessionStorage.setItem('walk', JSON.stringify({ from: here, hrefs }));
  } catch {
    sessionStorage.clear(); // full: the way back starts at the top
  }
}

if (grid) {
  history.scrollRestoration = 'manual';
  await restore();
  settle();
  addEventListener('resize', () => settle());
  addEventListener('pagehide', save);
  watch();
}
