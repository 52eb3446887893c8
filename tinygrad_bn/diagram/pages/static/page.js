// The theme button goes from the system's theme to light, to dark, and round again.
{
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  let chosen = root.dataset.theme ?? "auto";

  const set = (theme) => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    button.textContent = `theme: ${theme}`;
  };

  button.addEventListener("click", () => {
    chosen = themes[(themes.indexOf(chosen) + 1) % themes.length];
    set(chosen);
  });
  addEventListener("beforeprint", () => set("light")); // paper is white
  addEventListener("afterprint", () => set(chosen));
  set(chosen);
  button.hidden = false;
}
