// The theme, before anything is painted: light, dark, or as the system has it. No module: it must not wait.
{
  const root = document.documentElement;
  const THEMES = ['auto', 'light', 'dark'];
  root.dataset.js = '';
  const show = (name) => {
    if (name === 'auto') delete root.dataset.theme;
    else root.dataset.theme = name;
  };
  let theme = localStorage.getItem('theme') ?? 'auto';
  show(theme);
  document.addEventListener('DOMContentLoaded', () => {
    const button = document.querySelector('#theme');
    if (!button) return;
    const say = () => button.setAttribute('aria-label', button.title = 'Theme: ' + theme);
    button.hidden = false;
    say();
    button.addEventListener('click', () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      localStorage.setItem('theme', theme);
      show(theme);
      say();
    });
  });
}
