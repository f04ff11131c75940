// The reader's choice of light or dark, before the first paint. Nothing else runs this early.
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden: the system's choice holds.
}
document.documentElement.dataset.js = "";
