// Keys that work on every page, and arrows over the grid.
const dialog = document.querySelector('#keys');
const help = document.querySelector('#help');
const tiles = () => [...document.querySelectorAll('.tile')];
const SIDEWAYS = { h: -1, ArrowLeft: -1, l: 1, ArrowRight: 1 };
const UPDOWN = { k: -1, ArrowUp: -1, j: 1, ArrowDown: 1 };

function sideways(step) {
  const all = tiles();
  const at = all.indexOf(document.activeElement);
  return at < 0 ? all[0] : all[at + step];
}

// The tile of the next row whose middle is nearest.
function upDown(step) {
  const all = tiles();
  const here = document.activeElement;
  const at = all.indexOf(here);
  if (at < 0) return all[0];
  const middle = (tile) => tile.offsetLeft + tile.offsetWidth / 2;
  let best;
  for (let i = at + step, row; all[i]; i += step) {
    if (all[i].offsetTop === here.offsetTop) continue;
    row ??= all[i].offsetTop;
    if (all[i].offsetTop !== row) break;
    if (!best || Math.abs(middle(all[i]) - middle(here)) < Math.abs(middle(best) - middle(here))) best = all[i];
  }
  return best;
}

function toggleBoxes() {
  const name = document.querySelector('#picture') ? 'plain' : 'boxes';
  sessionStorage.setItem(name, document.documentElement.classList.toggle(name) ? '1' : '');
}

// Images like the one in focus, or the one of this page.
function similar() {
  const id = document.activeElement.dataset.id ?? /^\/image\/(\d+)/.exec(location.pathname)?.[1];
  if (id) location.href = '/similar/' + id;
}

for (const name of ['plain', 'boxes']) document.documentElement.classList.toggle(name, !!sessionStorage.getItem(name));
help.hidden = false;
help.addEventListener('click', () => dialog.showModal());
document.addEventListener('keydown', (event) => {
  const typing = event.target.matches('input:not([type=checkbox]), textarea');
  if (typing || dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const { key } = event;
  let tile;
  if (key === '/') {
    document.querySelector('#q').focus();
    document.querySelector('#q').select();
  } else if (key === '?') dialog.showModal();
  else if (key === 'b') toggleBoxes();
  else if (key === 's') similar();
  else if (document.querySelector('#grid') && key in SIDEWAYS) tile = sideways(SIDEWAYS[key]);
  else if (document.querySelector('#grid') && key in UPDOWN) tile = upDown(UPDOWN[key]);
  else return;
  event.preventDefault();
  tile?.focus();
});
