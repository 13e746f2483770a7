/** Light, dark, or what the system has. */

const KEPT_AS = "penstock.theme";
const THEMES = ["auto", "light", "dark"] as const;

/** Have a button change the theme. */
export function themed(button: HTMLElement): void {
  let at = Math.max(0, THEMES.findIndex((theme) => theme === kept()));
  const apply = (): void => {
    const theme = THEMES[at] ?? "auto";
    document.documentElement.dataset["theme"] = theme;
    button.textContent = `Theme: ${theme}`;
    keep(theme);
  };
  button.addEventListener("click", () => {
    at = (at + 1) % THEMES.length;
    apply();
  });
  apply();
}

function kept(): string | null {
  try {
    return localStorage.getItem(KEPT_AS);
  } catch {
    return null;
  }
}

function keep(theme: string): void {
  try {
    localStorage.setItem(KEPT_AS, theme);
  } catch {
    // a browser that keeps nothing begins with `auto` each time
  }
}
