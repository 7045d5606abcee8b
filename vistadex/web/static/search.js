// The search box: completes what stands at the caret: a class, a relation, a collection or a word. Without this module it is a plain form.
const box = document.querySelector('#q');
const list = document.querySelector('#choices');
let active = -1;
let asked = 0;
const WORDS = { duplicate: ['exact', 'near'], status: ['ok', 'failed', 'vanished', 'unseen'], sort: ['newest', 'score'] };

// What is being written at the caret: its letters, how to ask for choices, and how to put one there.
function atCaret() {
  const before = box.value.slice(0, box.selectionStart);
  const relation = /^(.*\brelation:)"?([^"\s]*|[^"]*(?="?$))$/is.exec(before);
  if (relation) {
    const parts = relation[2].split(/(?<!\\)\//);
    if (parts.length > 3) return null;
    const word = parts.pop();
    const start = `${relation[1]}"${parts.map((part) => part + '/').join('')}`;
    const kind = parts.length === 1 ? 'predicate' : 'class';
    const end = parts.length < 2 ? '/' : '" ';
    return { word, kind, put: (one) => [start + literal(one.name) + end, /^[^"/&|]*["/]?\s*/] };
  }
  const field = /^(.*(?:^|[\s&|])-?(collection|duplicate|sort|status):)(?:("[^"]*)|([^\s&|"]*))$/is.exec(before);
  if (field) {
    const [, start, name, quote, plain] = field;
    const word = quote?.slice(1) ?? plain;
    const words = WORDS[name.toLowerCase()];
    return { word, words, kind: 'collection', put: (one) => [start + simple(one.name) + ' ', quote ? /^[^"]*"?\s*/ : /^[^\s&|"]*\s*/] };
  }
  const [, head, word] = /^(.*[&|]\s*|.*\s-|-|)\s*"?([^&|"<>]*)$/s.exec(before) ?? [];
  if (!word?.trim() || /^[A-Za-z_][\w.-]*:/.test(word)) return null;
  const minus = word.startsWith('-') ? '-' : '';
  const start = head.replace(/([&|])\s*$/, '$1 ') + minus;
  return { word: word.slice(minus.length).trim(), kind: '', put: (one) => [start + text(one), /^[^&|]*?(?=\s*([&|]|\s-|$))/] };
}

const simple = (name) => (/^[\w.-]+$/.test(name) ? name : `"${name}"`);
const literal = (name) => name.replace(/[\\%_/]/g, '\\$&');
const quoted = (name) => (/["&|<>]|^-|\s-|(^|\s)([\w.-]+:|(score|size)$)|^\s|\s$|\s\s/.test(name) ? `"${name}"` : name);
const text = (one) => (one.kind === 'class' ? quoted(one.name) : `relation:"/${literal(one.name)}/"`);

function close() {
  list.hidden = true;
  active = -1;
  box.setAttribute('aria-expanded', 'false');
  box.removeAttribute('aria-activedescendant');
}

async function choices({ word, words, kind }) {
  if (words) return words.filter((name) => name.startsWith(word.toLowerCase())).map((name) => ({ name, kind: 'word' }));
  const answer = await fetch('/api/v1/complete?' + new URLSearchParams({ prefix: word, kind }));
  return (await answer.json()).choices.filter((one) => !one.name.includes('"')); // no query can name such a one
}

async function suggest() {
  const here = atCaret();
  const turn = ++asked;
  if (!here || (here.kind !== 'collection' && !here.word)) return close();
  const found = await choices(here).catch(() => []);
  if (turn !== asked || document.activeElement !== box) return;
  list.replaceChildren(...found.map((one, i) => {
    const item = document.createElement('li');
    const count = document.createElement('span');
    item.id = 'choice-' + i;
    item.role = 'option';
    Object.assign(item.dataset, { name: one.name, kind: one.kind });
    count.textContent = (one.kind === 'predicate' ? 'relation · ' : '') + (one.images?.toLocaleString('en') ?? '');
    item.append(one.name, ' ', count);
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

// Whether the query is whole with this choice: a relation may still lack its other end.
function take(item) {
  const [start, replaced] = atCaret()?.put(item.dataset) ?? [text(item.dataset), /.*/];
  const rest = box.value.slice(box.selectionStart).replace(replaced, '');
  box.value = start + rest;
  box.setSelectionRange(start.length, start.length);
  asked++;
  close();
  return !start.endsWith('/');
}

box.addEventListener('input', suggest);
box.addEventListener('blur', () => { asked++; close(); });
box.addEventListener('keydown', (event) => {
  const open = !list.hidden;
  if (event.isComposing) return;
  if (event.key === 'ArrowDown' && !open) document.querySelector('.tile')?.focus();
  else if (event.key === 'ArrowDown') mark(active + 1);
  else if (event.key === 'ArrowUp' && open) mark(active < 0 ? list.children.length - 1 : active - 1);
  else if (event.key === 'Escape') open ? close() : box.blur();
  else if (event.key === 'Tab' && open && active >= 0) take(list.children[active]);
  else if (event.key === 'Enter' && open && active >= 0) {
    if (take(list.children[active])) box.form.requestSubmit();
  } else return;
  event.preventDefault();
});
list.addEventListener('mousedown', (event) => {
  event.preventDefault();
  const item = event.target.closest('li');
  if (item && take(item)) box.form.requestSubmit();
});
