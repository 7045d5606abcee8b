// The image page: boxes by class and score, and walking the result one came from.
import { find, picture, zoomBy } from './zoom.js';

const boxes = [...picture.querySelectorAll('rect')];
const labels = [...picture.querySelectorAll('.label')];
const switches = [...document.querySelectorAll('.found input, .finders input')];
const least = find('#least');
const drawn = find('#drawn');

function draw() {
  const off = switches.filter((one) => !one.checked);
  boxes.forEach((box, i) => {
    const { dataset } = box;
    const gone = Number(dataset.score) < least.value || off.some((one) => one.dataset.class === dataset.class || one.dataset.model === dataset.model);
    box.toggleAttribute('hidden', gone);
    labels[i].hidden = gone;
  });
  find('#least-shown').textContent = Number(least.value).toFixed(2);
  if (!drawn) return;
  const shown = new URLSearchParams({ min_score: least.value });
  for (const [key, name] of [['class', 'classes'], ['model', 'models']]) {
    if (!off.some((one) => key in one.dataset)) continue;
    shown.append(name, ''); // none of all, or those that follow
    for (const one of switches) if (one.checked && key in one.dataset) shown.append(name, one.dataset[key]);
  }
  drawn.search = shown;
}

if (least) {
  for (const one of [least, ...switches]) {
    (one.closest('[hidden]') ?? one).hidden = false;
    one.addEventListener('input', draw);
  }
  draw(); // a reload keeps what was set
}

const img = picture.querySelector('img');
if ('nominal' in picture.dataset) img.decode().then(() => { // its boxes are fractions
  picture.style.setProperty('--w', img.naturalWidth);
  picture.style.setProperty('--ht', img.naturalHeight);
}, () => {});

// What is pointed at: a box shows its label; a relation both of its boxes, a part its own.
const both = find('#both');
for (const type of ['pointerover', 'focusin']) document.addEventListener(type, ({ target }) => {
  labels.forEach((label, i) => label.classList.toggle('on', boxes[i] === target));
  const path = target.closest('[data-marks]')?.dataset.marks ?? '';
  both.setAttribute('d', path);
  picture.classList.toggle('marked', !!path);
});

// Parts of other pages, fetched once they are looked at.
async function fill(place) {
  const { from, take } = place.dataset;
  delete place.dataset.from;
  const answer = from && await fetch(from, { headers: { Accept: 'text/html' } }).catch(() => null);
  if (!answer) return;
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  place.querySelector('p')?.remove();
  place.append(...page.querySelectorAll(take));
}

const camera = find('#camera');
camera?.addEventListener('toggle', () => fill(camera));
const alike = find('#alike');
if (alike) new IntersectionObserver(([seen]) => seen.isIntersecting && fill(alike)).observe(alike);

const here = location.pathname + location.search;
const [back, previous, next] = ['#back', '#previous', '#next'].map(find);
const walk = JSON.parse(sessionStorage.getItem('walk') ?? 'null');
const at = walk?.hrefs.indexOf(here) ?? -1;

function show(link, href) {
  if (!href) return;
  link.setAttribute('href', href);
  link.hidden = false;
}

if (at >= 0) {
  sessionStorage.setItem('last', here);
  back.setAttribute('href', walk.from);
  show(previous, walk.hrefs[at - 1]);
  show(next, walk.hrefs[at + 1]);
}

// Walking replaces: the browser's own back then leads to the grid, not through every image.
function go(link) {
  if (link.hidden) return;
  if (link === next && at >= 0 && at === walk.hrefs.length - 1) {
    walk.hrefs.push(next.getAttribute('href'));
    sessionStorage.setItem('walk', JSON.stringify(walk));
    const place = 'grid:' + walk.from;
    const saved = JSON.parse(sessionStorage.getItem(place) ?? '{"y":0}');
    sessionStorage.setItem(place, JSON.stringify({ ...saved, count: walk.hrefs.length }));
  }
  location.replace(link.getAttribute('href'));
}

function leave() {
  sessionStorage.setItem('returning', back.getAttribute('href'));
  location.href = back.getAttribute('href');
}

for (const [link, act] of [[previous, go], [next, go], [back, leave]]) {
  link.addEventListener('click', (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    act(link);
  });
}
document.addEventListener('keydown', (event) => {
  if (event.target.matches('input:not([type=checkbox])') || find('dialog[open]')) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'ArrowLeft') go(previous);
  else if (event.key === 'ArrowRight') go(next);
  else if (event.key === 'Escape') leave();
  else zoomBy(event.key);
});
