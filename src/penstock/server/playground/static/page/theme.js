const KEPT_AS = "penstock.theme";
const THEMES = ["auto", "light", "dark"];
export function themed(button) {
    let at = Math.max(0, THEMES.findIndex((theme) => theme === kept()));
    const apply = () => {
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
function kept() {
    try {
        return localStorage.getItem(KEPT_AS);
    }
    catch {
        return null;
    }
}
function keep(theme) {
    try {
        localStorage.setItem(KEPT_AS, theme);
    }
    catch {
    }
}
