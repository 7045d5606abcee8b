// Lists of classes and relations: they follow the boxes above them, and show what a class looks like.
const form = document.querySelector('.filter');
const list = document.querySelector('#list');
const about = document.querySelector('#about');
let timer, latest;

async function part(href, selector) {
  const mine = latest = {};
  const answer = await fetch(href, { headers: { Accept: 'text/html' } }).catch(() => null);
  const page = answer && new DOMParser().parseFromString(await answer.text(), 'text/html');
  return mine === latest ? page?.querySelector(selector)?.childNodes : undefined;
}

function soon(act, wait) {
  clearTimeout(timer);
  timer = setTimeout(act, wait);
}

form.addEventListener('input', () => soon(async () => {
  const href = form.getAttribute('action') + '?' + new URLSearchParams(new FormData(form));
  const found = await part(href, '#list');
  if (!found) return;
  list.replaceChildren(...found);
  history.replaceState(null, '', href);
}, 120));

function show({ target }) {
  const name = target.closest('[data-name]')?.dataset.name;
  if (name && name !== about.dataset.name) soon(async () => {
    const found = await part('/classes/about?name=' + encodeURIComponent(name), '#about');
    if (!found) return;
    about.dataset.name = name;
    about.hidden = false;
    about.replaceChildren(...found);
  }, 80);
}

if (about) for (const type of ['pointerover', 'focusin', 'click']) list.addEventListener(type, show);
