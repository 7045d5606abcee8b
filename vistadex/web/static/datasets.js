// Counts while one chooses: the page of the form as it stands, of which the table is taken.
const form = document.querySelector('#build');
let asked;
let timer;

async function count() {
  if (!form.checkValidity()) return;
  asked?.abort();
  asked = new AbortController();
  const address = '/datasets?' + new URLSearchParams(new FormData(form));
  try {
    const answer = await fetch(address, { signal: asked.signal });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    document.querySelector('#plan').innerHTML = page.querySelector('#plan').innerHTML;
    history.replaceState(history.state, '', address);
  } catch (error) {
    if (error.name !== 'AbortError') throw error;
  }
}

form.addEventListener('input', () => {
  clearTimeout(timer);
  timer = setTimeout(count, 250);
});
