// Facets come when the pictures are there; below 720 px they are a sheet that slides up.
const facets = document.querySelector('#facets');
const refine = document.querySelector('#refine');
const narrow = matchMedia('(max-width: 719px)');

async function fill() {
  const skeleton = facets.querySelector('.skeleton:not(.asked)');
  if (!skeleton) return;
  skeleton.classList.add('asked');
  try {
    const answer = await fetch(facets.dataset.href, { headers: { Accept: 'text/html' } });
    if (!answer.ok) throw new Error(answer.statusText);
    facets.innerHTML = await answer.text();
  } catch {
    facets.textContent = 'The server did not answer.';
  }
}

function slide(open) {
  facets.classList.toggle('open', open);
  refine.setAttribute('aria-expanded', String(open));
  if (!open) return;
  fill();
  facets.tabIndex = -1;
  facets.focus();
}

if (facets) {
  if (!narrow.matches) fill();
  narrow.addEventListener('change', () => narrow.matches || fill());
  refine.addEventListener('click', (event) => {
    event.preventDefault();
    slide(!facets.classList.contains('open'));
  });
  document.addEventListener('click', (event) => {
    if (!facets.contains(event.target) && !refine.contains(event.target)) slide(false);
  });
  facets.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    slide(false);
    refine.focus();
  });
}
