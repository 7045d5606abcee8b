// The image page: boxes by class and score, and walking the result one came from.
const picture = document.querySelector('#picture');
const boxes = [...picture.querySelectorAll('rect')];
const labels = [...picture.querySelectorAll('.label')];
const toggles = [...document.querySelectorAll('.found input')];
const finders = [...document.querySelectorAll('.finders input')];
const least = document.querySelector('#least');

function draw() {
  const off = new Set(toggles.filter((toggle) => !toggle.checked).map((toggle) => toggle.dataset.class));
  const away = new Set(finders.filter((finder) => !finder.checked).map((finder) => finder.dataset.model));
  boxes.forEach((box, i) => {
    const gone = off.has(box.dataset.class) || away.has(box.dataset.model) || Number(box.dataset.score) < Number(least.value);
    box.toggleAttribute('hidden', gone);
    labels[i].hidden = gone;
  });
  document.querySelector('#least-shown').textContent = Number(least.value).toFixed(2);
}

for (const toggle of toggles) {
  toggle.hidden = false;
  toggle.addEventListener('change', draw);
}
for (const finder of finders) {
  finder.closest('p').hidden = false;
  finder.addEventListener('change', draw);
}
if (least) {
  least.closest('p').hidden = false;
  least.addEventListener('input', draw);
  draw(); // a reload keeps what was set
}
boxes.forEach((box, i) => {
  box.addEventListener('pointerenter', () => labels[i].classList.add('on'));
  box.addEventListener('pointerleave', () => labels[i].classList.remove('on'));
});

const img = picture.querySelector('img');
function fit() { // boxes are known as fractions alone: the picture says its shape itself
  if (!img.naturalWidth) return;
  picture.style.setProperty('--w', img.naturalWidth);
  picture.style.setProperty('--ht', img.naturalHeight);
}
if ('nominal' in picture.dataset) {
  img.addEventListener('load', fit);
  fit();
}

const here = location.pathname + location.search;
const [back, previous, next] = ['#back', '#previous', '#next'].map((id) => document.querySelector(id));
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
  if (event.target.matches('input:not([type=checkbox])') || document.querySelector('dialog[open]')) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'ArrowLeft') go(previous);
  else if (event.key === 'ArrowRight') go(next);
  else if (event.key === 'Escape') leave();
});
