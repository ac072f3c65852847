// Light or dark: the system's choice until the button is pressed; then the visitor's, kept in this browser.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = read();
  if (kept) root.dataset.theme = kept;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button.addEventListener("click", () => {
      root.dataset.theme = other();
      write(root.dataset.theme);
      name();
    });
    system.addEventListener("change", name);
    name();

    function name() {
      button.textContent = other() === "dark" ? "Dark" : "Light";
      button.setAttribute("aria-label", `Use ${other()} colours`);
    }
  });

  function other() {
    const now = root.dataset.theme ?? (system.matches ? "dark" : "light");
    return now === "dark" ? "light" : "dark";
  }

  // Storage may be switched off; then the choice lasts as long as the page.
  function read() {
    try {
      return localStorage.getItem("igva-theme");
    } catch {
      return null;
    }
  }

  function write(theme) {
    try {
      localStorage.setItem("igva-theme", theme);
    } catch {
      return;
    }
  }
})();
