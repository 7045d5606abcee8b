// Looking closer: wheel, two fingers, dragging, double click, the keys + - 0.
export const find = (selector) => document.querySelector(selector);
export const picture = find('#picture');
const stage = find('.stage');
const buttons = find('#zoom');
const fingers = new Map();
let scale = 1, x = 0, y = 0;

// What lies under a point of the window stays there, and no side leaves a gap.
function zoom(to, px = 0, py = 0) {
  const { left, top, width, height } = stage.getBoundingClientRect();
  const next = Math.min(32, Math.max(1, to));
  const place = (value, at, start, size, room) => {
    const [low, high] = [room - start - size * next, -start];
    const moved = at - start - (at - start - value) * next / scale;
    return low < high ? Math.min(high, Math.max(low, moved)) : next > 1 ? (low + high) / 2 : 0;
  };
  x = place(x, px - left, picture.offsetLeft, picture.offsetWidth, width);
  y = place(y, py - top, picture.offsetTop, picture.offsetHeight, height);
  scale = next;
  picture.style.transform = scale > 1 ? `translate(${x}px, ${y}px) scale(${scale})` : '';
  picture.style.setProperty('--z', scale);
  stage.classList.toggle('close', scale > 1);
}

export function zoomBy(key) {
  const { left, top, width, height } = stage.getBoundingClientRect();
  const by = { '+': 1.5, '-': 1 / 1.5, 0: 0 }[key];
  if (by !== undefined) zoom(scale * by, left + width / 2, top + height / 2);
}

stage.addEventListener('wheel', (event) => {
  if (scale === 1 && !event.ctrlKey && (event.deltaY > 0 || scrollY > 0)) return; // the page scrolls
  event.preventDefault();
  zoom(scale * (event.deltaY > 0 ? 0.85 : 1.18), event.clientX, event.clientY);
}, { passive: false });
stage.addEventListener('pointerdown', (event) => !event.button && fingers.set(event.pointerId, event));
addEventListener('pointermove', (event) => {
  const was = fingers.get(event.pointerId);
  if (!was) return;
  const other = [...fingers.values()].find((one) => one !== was);
  fingers.set(event.pointerId, event);
  if (other) {
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) + 1;
    zoom(scale * apart(event) / apart(was), other.clientX, other.clientY);
  } else if (scale > 1) {
    x += event.clientX - was.clientX;
    y += event.clientY - was.clientY;
    zoom(scale);
  }
});
for (const type of ['pointerup', 'pointercancel']) addEventListener(type, (event) => fingers.delete(event.pointerId));
stage.addEventListener('dblclick', (event) => picture.contains(event.target) && zoom(scale > 1 ? 1 : 3, event.clientX, event.clientY));
addEventListener('resize', () => zoom(scale));

buttons.hidden = false;
buttons.addEventListener('click', (event) => zoomBy(event.target.dataset.key));
