// Follows runs: each event of a run, or every two seconds of a list, brings the page's live part anew.
const live = document.querySelector('#live');

async function renew() {
  if (live.contains(document.activeElement)) return; // nobody loses the link that they are at
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  const next = page.querySelector('#live');
  live.innerHTML = next.innerHTML;
  live.className = next.className;
  if (!next.hasAttribute('data-live')) document.querySelector('form[action$="/stop"]')?.remove();
  return next.hasAttribute('data-live');
}

if (live.dataset.events) {
  const stream = new EventSource(live.dataset.events);
  stream.onmessage = async (event) => {
    if (JSON.parse(event.data).status !== 'running') stream.close();
    await renew();
  };
} else if ('live' in live.dataset) {
  const timer = setInterval(async () => { if (await renew() === false) clearInterval(timer); }, 2000);
}
