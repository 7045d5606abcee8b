// Selected images, kept for the tab across searches. Actions are for them; without any, for all found.
const grid = document.querySelector('#grid');
const menu = document.querySelector('#actions');
const [all, none, csv, dataset] = ['#pick-all', '#pick-none', '#csv', '#dataset'].map((id) => menu?.querySelector(id));
const forms = menu?.querySelectorAll('form');
const FEW = 500; // ids that fit into an address
const picked = new Set(JSON.parse(sessionStorage.getItem('picked') ?? '[]'));
const usual = menu && { summary: menu.firstElementChild.textContent, csv: csv.href, dataset: dataset?.href };
let last; // where a range begins

function show() {
  const ids = [...picked];
  const some = ids.length > 0;
  for (const tile of grid.children) tile.toggleAttribute('data-picked', picked.has(tile.dataset.id));
  menu.firstElementChild.textContent = some ? ids.length.toLocaleString('en') + ' selected' : usual.summary;
  if (some !== menu.classList.contains('picking')) menu.open = some;
  menu.classList.toggle('picking', some);
  none.hidden = !some;
  csv.href = some ? '/api/v1/search.csv?ids=' + ids.slice(0, FEW) : usual.csv;
  for (const form of forms) {
    form.elements.ids.value = ids;
    if ('remove' in form.elements) form.hidden = !some;
  }
  if (!dataset) return;
  dataset.href = some ? '/datasets?ids=' + ids : usual.dataset;
  dataset.hidden = ids.length > FEW; // a collection holds more
}

function pick(tiles, on) {
  for (const tile of tiles) on ? picked.add(tile.dataset.id) : picked.delete(tile.dataset.id);
  sessionStorage.setItem('picked', JSON.stringify([...picked]));
  show();
}

function toggle(tile, range) {
  const tiles = [...grid.children];
  const [from, to] = [tiles.indexOf(last), tiles.indexOf(tile)];
  const meant = range && from >= 0 ? tiles.slice(Math.min(from, to), Math.max(from, to) + 1) : [tile];
  pick(meant, !picked.has(tile.dataset.id));
  last = tile;
}

// More ids than an address holds: several answers in one file, with one header.
async function download(event) {
  if (picked.size <= FEW) return;
  event.preventDefault();
  const ids = [...picked];
  const parts = [];
  for (let i = 0; i < ids.length; i += FEW) {
    const text = await (await fetch('/api/v1/search.csv?ids=' + ids.slice(i, i + FEW))).text();
    parts.push(i ? text.slice(text.indexOf('\n') + 1) : text);
  }
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob(parts));
  link.download = 'vistadex.csv';
  link.click();
}

if (menu) {
  all.hidden = false;
  show();
  new MutationObserver(show).observe(grid, { childList: true });
  all.addEventListener('click', () => pick(grid.children, true));
  for (const form of forms) if ('remove' in form.elements) form.addEventListener('submit', () => sessionStorage.removeItem('picked'));
  none.addEventListener('click', () => { picked.clear(); pick([], true); });
  csv.addEventListener('click', download);
  grid.addEventListener('click', (event) => {
    const tile = event.target.closest('.tile');
    if (!tile || !(event.target.matches('.pick') || event.shiftKey)) return;
    event.preventDefault();
    toggle(tile, event.shiftKey);
  });
  grid.addEventListener('keydown', (event) => {
    if (event.key !== ' ' || !event.target.matches('.tile')) return;
    event.preventDefault();
    toggle(event.target, event.shiftKey);
  });
}
