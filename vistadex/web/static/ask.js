// Asking about pictures that are dropped, pasted or chosen: each is sent by itself, and the server's card takes its place;
// sent once more where it shall be kept.
const form = document.querySelector('#ask');
const answers = document.querySelector('#answers');
const keep = form?.querySelector('[formaction]');
const root = document.documentElement;
const AT_A_TIME = 2;
const BUSY_MS = 2000;
const waiting = [];
let sending = 0;
let files = [];

function sift() {
  const least = Number(form.elements.min_score.value);
  form.querySelector('output').textContent = least.toFixed(2);
  for (const one of answers.querySelectorAll('[data-score]')) one.toggleAttribute('hidden', Number(one.dataset.score) < least);
  for (const card of answers.querySelectorAll('.card')) {
    const below = card.querySelector('.below');
    const hidden = card.querySelectorAll('tr[hidden]').length;
    if (below && card.querySelector('tr')) below.textContent = hidden ? `${hidden} less sure` : '';
  }
}

function say() {
  const left = waiting.length + sending;
  document.querySelector('#said').textContent = left ? `${left} to go.` : '';
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function ask(chosen, action = form.getAttribute('action')) {
  files = [...chosen];
  const jobs = files.map((file) => {
    const card = element('article', '');
    const bar = element('progress', '');
    card.className = 'card';
    bar.setAttribute('aria-label', file.name);
    bar.value = 0;
    card.append(element('h2', file.name), bar);
    return { file, card, bar, action, model: form.elements.model.value };
  });
  form.elements.files.required = false; // what was dropped is asked about again
  answers.prepend(...jobs.map((job) => job.card));
  waiting.push(...jobs);
  next();
}

function next() {
  while (sending < AT_A_TIME && waiting.length) send(waiting.shift());
  say();
}

function fail(job, text) {
  const said = element('p', text);
  said.className = 'problem';
  job.bar.replaceWith(said);
}

function show(job, card) {
  job.card.replaceWith(card);
  job.card = card;
  sift();
  const button = card.querySelector('.kept button');
  button?.addEventListener('click', () => {
    button.replaceWith(job.bar);
    job.bar.value = 0;
    job.action = keep.getAttribute('formaction');
    waiting.push(job);
    next();
  });
}

function send(job) {
  const request = new XMLHttpRequest();
  const body = new FormData();
  body.append('files', job.file);
  body.append('model', job.model);
  sending++;
  request.open('POST', job.action);
  request.setRequestHeader('Accept', 'text/html');
  request.responseType = 'document';
  request.upload.onprogress = (event) => {
    if (event.loaded < event.total) job.bar.value = event.loaded / event.total;
    else job.bar.removeAttribute('value'); // it is being looked at
  };
  request.onloadend = () => {
    sending--;
    const page = request.response;
    const card = page?.querySelector('.card');
    if (request.status === 503) {
      setTimeout(() => { waiting.push(job); next(); }, BUSY_MS);
    } else if (card) {
      show(job, document.importNode(card, true));
    } else {
      fail(job, page?.querySelector('.problem')?.textContent ?? 'The server did not answer; reload this page');
    }
    next();
  };
  request.send(body);
}

function carries(event) {
  return event.dataTransfer?.types.includes('Files');
}

if (form) {
  form.elements.min_score.addEventListener('input', sift);
  form.elements.files.addEventListener('change', () => ask(form.elements.files.files));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const unkept = answers.querySelectorAll('.kept button');
    const keeping = keep && event.submitter === keep;
    if (keeping && unkept.length) unkept.forEach((button) => button.click());
    else ask(form.elements.files.files.length ? form.elements.files.files : files, keeping ? keep.getAttribute('formaction') : undefined);
  });
  document.addEventListener('dragover', (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    root.dataset.dropping = '';
  });
  document.addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) delete root.dataset.dropping;
  });
  document.addEventListener('drop', (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    delete root.dataset.dropping;
    form.elements.files.value = '';
    ask(event.dataTransfer.files);
  });
  document.addEventListener('paste', (event) => {
    if (event.clipboardData.files.length) ask(event.clipboardData.files);
  });
  sift(); // a reload keeps what was set
}
