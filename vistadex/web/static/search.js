// The search box: completes the class at the caret. Without this module it is a plain form.
const box = document.querySelector('#q');
const list = document.querySelector('#choices');
const ALL = 1000; // with more classes than these, each prefix is asked for
const SHOWN = 8;
let known; // promise of {total, classes}
let active = -1;
let asked = 0;

async function get(query) {
  const answer = await fetch('/api/v1/classes?' + new URLSearchParams(query));
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.json();
}

// Every class, or the first ALL. What failed is asked for again at the next letter.
function everything() {
  known ??= get({ limit: ALL }).catch((error) => {
    known = undefined;
    throw error;
  });
  return known;
}

async function matches(prefix) {
  const { total, classes } = await everything();
  if (total > ALL) return (await get({ prefix, limit: SHOWN })).classes;
  const wanted = prefix.toLowerCase();
  const names = classes.map((one) => [one, one.class.toLowerCase()]);
  const begin = names.filter(([, name]) => name.startsWith(wanted));
  const inside = names.filter(([, name]) => !name.startsWith(wanted) && name.includes(' ' + wanted));
  return [...begin, ...inside].slice(0, SHOWN).map(([one]) => one);
}

// What stands before the class at the caret, and its letters so far; null where no class is meant.
function atCaret() {
  const before = box.value.slice(0, box.selectionStart);
  const [, head, word] = /^(.*[&|]\s*|.*\s-|-|)\s*"?([^&|"<>]*)$/s.exec(before) ?? [];
  if (!word?.trim() || /^(source|model):/.test(word)) return null;
  return /^-/.test(word) ? { head: head + '-', word: word.slice(1) } : { head, word: word.trimStart() };
}

function close() {
  list.hidden = true;
  active = -1;
  box.setAttribute('aria-expanded', 'false');
  box.removeAttribute('aria-activedescendant');
}

async function suggest() {
  const here = atCaret();
  const turn = ++asked;
  if (!here?.word) return close();
  const all = await matches(here.word).catch(() => []);
  const found = all.filter((one) => !one.class.includes('"')); // no query can name such a class
  if (turn !== asked || document.activeElement !== box) return;
  list.replaceChildren(...found.map((one, i) => {
    const item = document.createElement('li');
    const count = document.createElement('span');
    item.id = 'choice-' + i;
    item.role = 'option';
    item.dataset.name = one.class;
    count.textContent = one.images.toLocaleString('en');
    item.append(one.class, ' ', count);
    return item;
  }));
  close();
  list.hidden = !found.length;
  box.setAttribute('aria-expanded', String(found.length > 0));
}

function mark(i) {
  const items = [...list.children];
  active = (i + items.length + 1) % (items.length + 1);
  if (active === items.length) active = -1;
  items.forEach((item, at) => item.setAttribute('aria-selected', String(at === active)));
  if (active < 0) box.removeAttribute('aria-activedescendant');
  else box.setAttribute('aria-activedescendant', items[active].id);
}

const quoted = (name) =>
  /["&|<>]|^-|\s-|(^|\s)((source|model):|score$)|^\s|\s$|\s\s/.test(name) ? `"${name}"` : name;

function take(name) {
  const { head } = atCaret() ?? { head: '' };
  const rest = box.value.slice(box.selectionStart).replace(/^[^&|]*?(?=\s*([&|]|\s-|$))/, '');
  const start = head.replace(/([&|])\s*$/, '$1 ') + quoted(name);
  box.value = start + rest;
  box.setSelectionRange(start.length, start.length);
  asked++;
  close();
}

box.addEventListener('input', suggest);
box.addEventListener('focus', () => everything().catch(() => {}), { once: true });
box.addEventListener('blur', () => { asked++; close(); });
box.addEventListener('keydown', (event) => {
  const open = !list.hidden;
  if (event.isComposing) return;
  if (event.key === 'ArrowDown' && !open) document.querySelector('.tile')?.focus();
  else if (event.key === 'ArrowDown') mark(active + 1);
  else if (event.key === 'ArrowUp' && open) mark(active < 0 ? list.children.length - 1 : active - 1);
  else if (event.key === 'Escape') open ? close() : box.blur();
  else if (event.key === 'Tab' && open && active >= 0) take(list.children[active].dataset.name);
  else if (event.key === 'Enter' && open && active >= 0) {
    take(list.children[active].dataset.name);
    box.form.requestSubmit();
  } else return;
  event.preventDefault();
});
list.addEventListener('mousedown', (event) => {
  event.preventDefault();
  const item = event.target.closest('li');
  if (!item) return;
  take(item.dataset.name);
  box.form.requestSubmit();
});
